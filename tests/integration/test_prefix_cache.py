"""Runs with a prefix cache: the same weights as without, and cache entries that are safe."""

import json
import re

import pytest
from forked_cli import ForkedCli
from removals import always
from run_helpers import Stop, changed, interrupt, log_of, quick_run, weights_of, with_stages
from safetensors.torch import load_file
from transformers import TrainerCallback

from hf_finetune.cache.cache_dir import list_cache
from hf_finetune.cli.app import main
from hf_finetune.recipe.load import dump_recipe, parse_recipe


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cached(recipe, views=1, **more):
    content = recipe.model_dump(mode="json")
    content["speed"] |= {"prefix_cache": {"views": views, **more}, "decode_once": False}
    return parse_recipe(content)


def reports(folder):
    stages = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["stages"]
    return [stage["prefix_cache"] for stage in stages]


def assert_same(one, other):
    assert changed(weights_of(one), weights_of(other)) == set()
    assert (one / "predictions.parquet").read_bytes() == (other / "predictions.parquet").read_bytes()
    for stage in sorted(path.name for path in (one / "stages").iterdir()):
        assert log_of(one, stage) == log_of(other, stage)


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer.compute_loss",
    why="Cached outputs replace the frozen prefix",
)
def test_without_augmentation_images_give_the_same_bits(tmp_path, image_recipe):
    content = image_recipe().model_dump(mode="json")
    content["data"]["augment"] = "none"
    recipe = parse_recipe(content)
    quick_run(recipe, tmp_path / "plain")
    quick_run(cached(recipe), tmp_path / "cached")
    assert_same(tmp_path / "plain", tmp_path / "cached")
    head, last = reports(tmp_path / "cached")
    assert head["used"] and head["views"] == 1 and head["bytes"] > 0
    assert last["used"]


def test_with_as_many_versions_as_epochs_augmented_images_give_the_same_bits(
    tmp_path, image_recipe, image_run
):
    quick_run(cached(image_recipe(), 2), tmp_path / "cached")
    assert_same(image_run[1].folder, tmp_path / "cached")
    assert [report["views"] for report in reports(tmp_path / "cached")] == [2, 2]


def test_texts_give_the_same_results(tmp_path, text_recipe):
    recipe = with_stages(text_recipe(), {}, {"train": "last:1"})
    quick_run(recipe, tmp_path / "plain")
    quick_run(cached(recipe), tmp_path / "cached")
    assert_same(tmp_path / "plain", tmp_path / "cached")
    assert [report["used"] for report in reports(tmp_path / "cached")] == [True, True]


def test_another_number_of_versions_reuses_existing_ones(tmp_path, folder, image_recipe, image_run):
    quick_run(cached(image_recipe(), 1), tmp_path / "one")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.bin")}
    quick_run(cached(image_recipe(), 2), tmp_path / "two")
    assert_same(image_run[1].folder, tmp_path / "two")
    head = [path for path in before if path.stat().st_mtime_ns == before[path]]
    assert len(head) >= 2  # the first version of the head's stage, and its validation split


@pytest.mark.defends("hf_finetune.cache.store:_is_intact", why="Damaged cache files are not used", by=always)
def test_what_is_kept_is_read_again_and_what_is_damaged_is_made_anew(
    tmp_path, folder, image_recipe, image_run
):
    recipe = cached(image_recipe(), 2)
    quick_run(recipe, tmp_path / "first")
    files = sorted(folder.rglob("*.bin"))
    written = {path: path.stat().st_mtime_ns for path in files}
    quick_run(recipe, tmp_path / "second")
    assert {path: path.stat().st_mtime_ns for path in files} == written
    raw = bytearray(files[0].read_bytes())
    raw[len(raw) // 2] ^= 1
    files[0].write_bytes(raw)
    files[2].write_bytes(files[2].read_bytes()[:-4])
    quick_run(recipe, tmp_path / "third")
    for name in ("first", "second", "third"):
        assert_same(image_run[1].folder, tmp_path / name)


def test_a_run_continues_uncached_if_the_disk_or_the_limit_is_too_small(tmp_path, image_recipe, image_run):
    quick_run(cached(image_recipe(), 2, size_limit=1000), tmp_path / "run")
    assert_same(image_run[1].folder, tmp_path / "run")
    for report in reports(tmp_path / "run"):
        assert not report["used"]
        assert re.fullmatch(
            r"the outputs would take about [\d,]+ bytes, and the size limit is 1,000", report["reason"]
        )


@pytest.mark.parametrize("stop", [("head", 8, "ctrl-c"), ("all", 6, "save"), ("all", 0, "begin")])
def test_an_interrupted_run_with_a_cache_ends_the_same(tmp_path, image_recipe, image_run, stop):
    recipe = cached(image_recipe(), 2)
    interrupt(recipe, tmp_path / "run", Stop(*stop))
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_same(image_run[1].folder, tmp_path / "run")


def test_the_model_is_restored_after_the_stage(tmp_path, text_recipe):
    seen = []

    class See(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            seen.append(kwargs["model"])

    quick_run(cached(text_recipe()), tmp_path / "run", callbacks=[See()])
    for model in seen:
        assert not any("forward" in module.__dict__ for module in model.modules())
        assert not any(module._forward_pre_hooks for module in model.modules())
    head, everything = reports(tmp_path / "run")
    assert head["used"] and not everything["used"]


def test_the_cache_is_listed_and_pruned(tmp_path, folder, image_recipe, capsys, monkeypatch):
    quick_run(cached(image_recipe(evaluation={}), 1), tmp_path / "run")
    size = sum(path.stat().st_size for path in folder.rglob("*/*"))

    def command(*words):
        monkeypatch.setattr("sys.argv", ["hf-finetune", "cache", *words])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert exit_.value.code == 0
        return capsys.readouterr().out

    listed = command("list")
    # two versions of the head stage and one without augmentation for the baseline, validation, test
    assert listed.count("TimmWrapperForImageClassification before timm_model") == 6
    assert listed.endswith(f"{size:,} bytes in {folder}\n")
    assert command("prune", "--max-size", "1TB") == f"Removed 0 cache entries (0 bytes) from {folder}.\n"
    assert command("prune") == f"Removed 6 cache entries ({size:,} bytes) from {folder}.\n"
    assert command("list") == f"0 bytes in {folder}\n"


def test_older_cache_entries_are_evicted_for_new_ones(tmp_path, folder, image_recipe):
    quick_run(cached(image_recipe(), 1), tmp_path / "first")
    before = {kept.name for kept in list_cache(folder)}
    size = sum(kept.bytes for kept in list_cache(folder))
    quick_run(cached(image_recipe(seed=7), 1, size_limit=size), tmp_path / "second")
    assert all(report["used"] for report in reports(tmp_path / "second"))
    assert not before <= {kept.name for kept in list_cache(folder)}


def test_a_resumed_run_without_a_cache_uses_the_same_versions(tmp_path, image_recipe, monkeypatch):
    recipe = cached(image_recipe(), 1)
    quick_run(recipe, tmp_path / "through")
    interrupt(recipe, tmp_path / "run", Stop("head", 8, "ctrl-c"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "file"))
    quick_run(recipe, tmp_path / "run", resume=True)
    head = "stages/01-head/model.safetensors"
    assert changed(load_file(tmp_path / "through" / head), load_file(tmp_path / "run" / head)) == set()
    assert [report["used"] for report in reports(tmp_path / "run")] == [False, False]
    assert reports(tmp_path / "run")[0]["reason"].startswith("the outputs cannot be cached: ")


def test_a_benchmarked_run_keeps_its_execution_mode(tmp_path, folder, image_recipe):
    content = image_recipe().model_dump(mode="json")
    content["speed"] = "auto"
    quick_run(parse_recipe(content), tmp_path / "run")
    stages = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["stages"]
    for stage, name in zip(stages, ("01-head", "02-all"), strict=True):
        record = json.loads((tmp_path / "run" / "stages" / name / "speed.json").read_text(encoding="utf-8"))
        assert stage["speed"] == record["way"]
        assert stage["speed"]["precision"] in ("fp32", "bf16") and not stage["speed"]["compile"]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert "speed.precision is chosen by a benchmark" in manifest["determinism"]["obstacles"]


def test_two_runs_at_once_share_cache_entries(tmp_path, folder, image_recipe, image_run):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_recipe(cached(image_recipe(evaluation={}), 2)), encoding="utf-8")
    begun = [ForkedCli("run", recipe, "--output-dir", tmp_path / name) for name in ("one", "two")]
    done = [each.wait() for each in begun]
    assert [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
    for name in ("one", "two"):
        assert_same(image_run[1].folder, tmp_path / name)
    # two versions and the validation split of each stage, and for the baseline the unaugmented training examples and
    # the test split, once
    views = [kept.name.rpartition("-")[2] for kept in list_cache(folder)]
    assert sorted(views) == ["0"] * 6 + ["1"] * 2

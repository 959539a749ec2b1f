"""Runs with regularization: target weights, prefix cache, workers, and label types."""

import io
import json
import re

import pytest
import torch
from rich.console import Console
from run_helpers import Stop, log_of, quick_run, refusal, tiny_image_recipe, weights_of, with_stages
from safetensors.torch import load_file
from test_prefix_cache import assert_same, cached, reports

from hf_finetune.cli.plan_table import print_plan
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.estimates import describe_prefix_caches
from hf_finetune.runs.prepare import plan_stages


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "cache"))


def distance(weights, start):
    """Return the largest difference of two sets of weights, over the parameters below the head that both have."""
    names = [name for name in weights if name in start and "classifier" not in name]
    assert len(names) > 30
    return max((weights[name] - start[name]).abs().max().item() for name in names)


@pytest.mark.parametrize("interrupted", [False, True])
def test_l2_sp_pulls_to_the_checkpoint_and_not_to_where_the_stage_began(
    tmp_path, text_recipe, bert_checkpoint, interrupted
):
    """A resumed run, whose folder has the initial weights of the stage only, loads the checkpoint's weights again."""
    last = {"train": "all", "best": None}
    recipe = with_stages(text_recipe(), last, {**last, "regularize": {"l2_sp": 1e7}})
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            quick_run(recipe, tmp_path / "run", callbacks=[Stop("all", 2, "ctrl-c")])
    quick_run(recipe, tmp_path / "run", resume=interrupted)
    start = load_file(bert_checkpoint / "model.safetensors")
    first, second = (
        load_file(tmp_path / "run" / "stages" / stage / "model.safetensors")
        for stage in ("01-head", "02-all")
    )
    assert distance(first, start) > 0.01
    assert distance(second, start) < 1e-4


def test_two_passes_with_a_cache_equal_those_of_the_whole_model(tmp_path, text_recipe):
    changes = {"train": "last:1", "regularize": {"r_drop": 3.0}}
    recipe = with_stages(text_recipe(), {**changes, "lr": 0.01}, {**changes, "regularize": {"r_drop": 0.5}})
    plain = parse_recipe({**recipe.model_dump(mode="json"), "speed": {"prefix_cache": None}})
    quick_run(plain, tmp_path / "plain")
    quick_run(cached(recipe), tmp_path / "kept")
    assert [each["used"] for each in reports(tmp_path / "kept")] == [True, True]
    assert [each["used"] for each in reports(tmp_path / "plain")] == [False, False]
    one, other = weights_of(tmp_path / "plain"), weights_of(tmp_path / "kept")
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)


def test_mixing_does_not_depend_on_the_number_of_workers(tmp_path, squares, timm_checkpoint):
    content = tiny_image_recipe(squares, timm_checkpoint).model_dump(mode="json")
    for stage in content["stages"]:
        stage |= {"regularize": {"mixup": 0.5, "cutmix": 1.0}, "epochs": 1.0}
    for workers in (0, 2):
        content["data"]["workers"] = workers
        quick_run(parse_recipe(content), tmp_path / str(workers))
    assert_same(tmp_path / "0", tmp_path / "2")
    assert {each["reason"] for each in reports(tmp_path / "0")} == {"mixup and cutmix mix whole images"}


@pytest.mark.parametrize("several", [False, True], ids=["single_label", "multi_label"])
def test_mixed_labels_leave_the_config_as_it_is(tmp_path, squares, timm_checkpoint, several):
    """transformers would set the config to several labels for probabilities of classes."""
    table = tmp_path / "squares.jsonl"
    rows = [
        {"image": str(path), "label": [path.parent.name, "even"[: 4 * (int(path.stem) % 2)] or "odd"]}
        for path in sorted(squares.rglob("*.png"))
    ]
    rows = rows if several else [{**row, "label": row["label"][0]} for row in rows]
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    recipe = tiny_image_recipe(table, timm_checkpoint)
    changes = {"regularize": {"mixup": 1.0}, "epochs": 1.0}
    quick_run(with_stages(recipe, changes, changes), tmp_path / "run")
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text(encoding="utf-8"))
    expected = "multi_label_classification" if several else "single_label_classification"
    assert config["problem_type"] == expected
    losses = [entry["loss"] for entry in log_of(tmp_path / "run", "02-all") if "loss" in entry]
    assert len(losses) == 6 and all(0 < loss < 5 for loss in losses)


def test_sharded_weights_are_refused(tmp_path, text_recipe, monkeypatch):
    for name, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        monkeypatch.setenv(name, value)
    recipe = with_stages(
        text_recipe(), {"regularize": {"l1": 0.1, "r_drop": 1.0}}, {"regularize": {"ema": 0.9, "l2_sp": 0.1}}
    )
    rule = "is not supported with FSDP or DeepSpeed, which shard the weights."
    assert refusal(lambda: quick_run(recipe, tmp_path / "run")).splitlines() == [
        f"stages[0].regularize.l1 {rule} Got 0.1.",
        f"stages[1].regularize.l2_sp {rule} Got 0.1.",
        f"stages[1].regularize.ema {rule} Got 0.9.",
    ]


def test_the_plan_lists_regularization_and_uncached_stages(squares, timm_checkpoint):
    recipe = with_stages(
        tiny_image_recipe(squares, timm_checkpoint),
        {},
        {"regularize": {"l1": 1e-3, "ema": 0.99, "cutmix": 1}},
    )
    report, stream = plan_stages(recipe), io.StringIO()
    print_plan(Console(file=stream, width=200), recipe, report, describe_prefix_caches(report))
    text = stream.getvalue()
    assert text.count("; regularize: ") == 1
    words = r"sgd; regularize: l1 0\.001, ema 0\.99, cutmix 1; \d+ of \d+ BatchNorm layers frozen"
    assert re.search(words, text)
    assert text.count("prefix cache: not used (mixup and cutmix mix whole images)") == 1

"""Pruning in whole runs: the saved model, the trained weights, messages, and resuming."""

import json

import pytest
import timm
import torch
from run_helpers import (
    Record,
    Stop,
    assert_equal_runs,
    changed,
    interrupt,
    quick_run,
    refusal,
    tiny_image_recipe,
    weights_of,
    with_stages,
)
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    ViTImageProcessor,
)
from typer.testing import CliRunner

from hf_finetune.cli.app import app
from hf_finetune.models.pruning import narrow_model, pruning_masks
from hf_finetune.recipe.load import dump_recipe, parse_recipe
from hf_finetune.report.compression import size_tables
from hf_finetune.runs.prepare import plan_stages

HALF = {"prune": 0.5, "method": "unstructured"}
MEASURED = {"metrics", "parameters", "nonzero_parameters", "macs", "bytes", "milliseconds"}


def content_of(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def stage_weights(folder, stage):
    return load_file(folder / "stages" / stage / "model.safetensors")


def size_of(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def narrow_run(tmp_path_factory, text_recipe):
    """Return a run whose second stage removes half of the neurons, and the record of it."""
    recipe, record = with_stages(text_recipe(), {}, {"compress": 0.5}), Record()
    folder = tmp_path_factory.mktemp("narrow") / "run"
    return recipe, quick_run(recipe, folder, callbacks=[record]), record


@pytest.fixture(scope="module")
def sparse_recipe(text_recipe):
    """Return three stages: the second one prunes weights, the third one continues training."""
    content = with_stages(text_recipe(), {}, {"compress": HALF}).model_dump(mode="json")
    last = {**content["stages"][1], "name": "last", "compress": None, "lr": 0.01, "optimizer": "sgd"}
    return parse_recipe({**content, "stages": [*content["stages"], last]})


@pytest.fixture(scope="module")
def sparse_run(tmp_path_factory, sparse_recipe):
    record = Record()
    return quick_run(sparse_recipe, tmp_path_factory.mktemp("sparse") / "run", callbacks=[record]), record


# --- Narrower models --------------------------------------------------------------------------------------------


def test_plain_transformers_loads_a_narrower_text_model(narrow_run):
    folder = narrow_run[1].folder
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder / "model", output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.intermediate_size == 16
    whole, narrow = (stage["total_parameters"] for stage in content_of(folder)["stages"])
    assert size_of(model) == narrow == whole - 2 * 16 * (2 * 16 + 1)  # two layers: in, out and a bias
    assert content_of(folder)["stages"][1]["trainable_parameters"] == narrow
    assert model.config.id2label == {0: "bad", 1: "good"}


@pytest.mark.parametrize("name", ["vit", "timm/test_vit"])
def test_plain_libraries_load_a_narrower_image_model(tmp_path, squares, tiny_model, name):
    tiny_model(name).save_pretrained(tmp_path / "checkpoint")
    if name == "vit":
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "checkpoint")
    recipe = with_stages(tiny_image_recipe(squares, tmp_path / "checkpoint"), {}, {"compress": 0.5})
    folder = quick_run(recipe, tmp_path / "run").folder
    model, info = AutoModelForImageClassification.from_pretrained(folder / "model", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    whole, narrow = (stage["total_parameters"] for stage in content_of(folder)["stages"])
    assert size_of(model) == narrow < whole == size_of(tiny_model(name))
    assert AutoImageProcessor.from_pretrained(folder / "model") is not None
    if name != "vit":
        alone = timm.create_model(f"local-dir:{folder / 'model'}", pretrained=True).eval()
        pixels = torch.rand(1, 3, 32, 32)
        with torch.no_grad():
            assert torch.allclose(alone(pixels), model(pixels).logits, atol=1e-6)


def test_the_stage_begins_with_the_neurons_that_the_one_before_it_left(narrow_run, text_run):
    record = narrow_run[2]
    full = AutoModelForSequenceClassification.from_pretrained(text_run[1].folder / "model")
    full.load_state_dict(record.after[0])
    expected = narrow_model(full, 0.5).state_dict()
    assert changed(expected, record.before[1]) == set()


def test_only_planned_parameters_change_in_the_recovery_stage(tmp_path, text_recipe):
    recipe = with_stages(text_recipe(), {}, {"compress": 0.5, "train": "last:1", "best": None})
    record = Record()
    quick_run(recipe, tmp_path / "run", callbacks=[record])
    plan = plan_stages(recipe).plan.stages[1]
    assert changed(record.before[1], record.after[1]) == set(plan.trainable)
    held = {name: (rate, decay) for names, rate, decay in record.groups[1] for name in names}
    assert held == {
        name: (group.lr, group.weight_decay) for group in plan.groups for name in group.parameters
    }
    sizes = {parameter.name: parameter.size for parameter in plan.layout.parameters}
    assert sizes == {name: record.after[1][name].numel() for name in sizes}
    assert plan.trainable_size == sum(sizes[name] for name in plan.trainable)


def test_the_plan_counts_the_remaining_parameters(tmp_path, narrow_run):
    (tmp_path / "recipe.yaml").write_text(dump_recipe(narrow_run[0]), encoding="utf-8")
    told = CliRunner().invoke(app, ["plan", str(tmp_path / "recipe.yaml")]).output
    before, after = (stage["total_parameters"] for stage in content_of(narrow_run[1].folder)["stages"])
    assert f" of {before:,} parameters; 2 epochs" in told
    assert f"trains {after:,} of {after:,} parameters" in told
    assert "first removes 0.5 of the neurons of each feed-forward layer" in told


def test_stages_may_prune_one_after_the_other_and_the_first_one_too(tmp_path, text_recipe):
    recipe = with_stages(text_recipe(), {"compress": 0.25}, {"compress": 0.5})
    folder = quick_run(recipe, tmp_path / "run").folder
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    assert model.config.intermediate_size == 16  # half of 24 is 12, and the nearest multiple of 8 is 16
    found = content_of(folder)["compression"]
    assert found["before"]["metrics"] == {}  # no stage had trained yet
    assert found["stage"] == "head, all"
    assert found["before"]["parameters"] > found["after"]["parameters"] == size_of(model)


def test_frozen_layers_are_cached_after_pruning(tmp_path, text_recipe, monkeypatch):
    """Two runs with other fractions use the same cache folder, but not the same entries."""
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "cache"))
    recipes = [
        with_stages(
            text_recipe(speed={"prefix_cache": kept}), {}, {"compress": part, "train": "head", "lr": 0.01}
        )
        for part, kept in ((0.25, {"views": 1}), (0.5, {"views": 1}), (0.5, None))
    ]
    folders = [quick_run(recipe, tmp_path / str(index)).folder for index, recipe in enumerate(recipes)]
    assert [content_of(folder)["stages"][1]["prefix_cache"]["used"] for folder in folders] == [
        True,
        True,
        False,
    ]
    kept, computed = (weights_of(folder) for folder in folders[1:])
    assert kept.keys() == computed.keys()
    for name, value in kept.items():
        assert torch.allclose(value, computed[name], atol=1e-5), name


# --- Single weights ---------------------------------------------------------------------------------------------


def test_pruned_weights_are_zero_to_the_end_and_no_others(sparse_run, tmp_path):
    done, record = sparse_run
    model = AutoModelForSequenceClassification.from_pretrained(done.folder / "model")
    masked = pruning_masks(model)
    assert sum(int(mask.sum()) for _, mask in masked) == round(0.5 * sum(mask.numel() for _, mask in masked))
    first, second, last = (stage_weights(done.folder, stage) for stage in ("01-head", "02-all", "03-last"))
    pruned = {name for name in first if (second[name] == 0).sum() > (first[name] == 0).sum()}
    assert pruned == {
        name for name in first if name.endswith("weight") and "encoder" in name and "Norm" not in name
    } | {"bert.pooler.dense.weight"}
    for name in first:
        assert torch.equal(record.before[1][name] == 0, second[name] == 0) or name not in pruned
        assert torch.equal(second[name] == 0, last[name] == 0) or name not in pruned
    assert changed(second, last) >= pruned  # the others changed


def test_a_stage_that_freezes_pruned_weights_leaves_them_alone(tmp_path, text_recipe):
    recipe = with_stages(text_recipe(), {}, {"compress": HALF, "train": "last:1", "best": None})
    record = Record()
    quick_run(recipe, tmp_path / "run", callbacks=[record])
    assert changed(record.before[1], record.after[1]) == set(plan_stages(recipe).plan.stages[1].trainable)
    assert changed(record.after[0], record.before[1])  # frozen layers are pruned as well


def test_a_network_of_convolutions_is_pruned(tmp_path, image_recipe):
    recipe = with_stages(image_recipe(), {}, {"compress": HALF})
    folder = quick_run(recipe, tmp_path / "run").folder
    found = content_of(folder)["compression"]
    assert found["after"]["parameters"] == found["before"]["parameters"]
    assert found["after"]["nonzero_parameters"] < 0.55 * found["before"]["nonzero_parameters"]
    assert found["after"]["macs"] == found["before"]["macs"]
    AutoModelForImageClassification.from_pretrained(folder / "model")


# --- Resuming -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["begin", "save"])
def test_a_narrower_model_resumes_bit_for_bit(tmp_path, narrow_run, moment):
    recipe, straight, _ = narrow_run
    interrupt(recipe, tmp_path / "run", Stop("all", 4 if moment == "save" else 5, moment))
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(straight.folder, tmp_path / "run")


def test_a_stop_before_the_first_checkpoint_prunes_the_same_again(tmp_path, narrow_run):
    recipe, straight, _ = narrow_run
    interrupt(recipe, tmp_path / "run", Stop("all", 1, "begin"))
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(straight.folder, tmp_path / "run")


@pytest.mark.parametrize("stage", ["all", "last"])
def test_a_sparse_model_resumes_bit_for_bit(tmp_path, sparse_recipe, sparse_run, stage):
    interrupt(sparse_recipe, tmp_path / "run", Stop(stage, 5, "begin"))
    quick_run(sparse_recipe, tmp_path / "run", resume=True)
    assert_equal_runs(sparse_run[0].folder, tmp_path / "run")


def test_a_completed_pruning_is_not_changed(tmp_path, sparse_recipe):
    interrupt(sparse_recipe, tmp_path / "run", Stop("last", 2, "begin"))
    other = with_stages(sparse_recipe, {}, {"compress": 0.5}, {})
    told = refusal(lambda: quick_run(other, tmp_path / "run", resume=True, allow_changes=True))
    assert told == (
        "stages[1].compress must not change in a finished stage. "
        "Its weights are already pruned; start a new run."
    )


def test_a_stage_restarts_with_another_pruning(tmp_path, narrow_run):
    recipe, _, _ = narrow_run
    interrupt(recipe, tmp_path / "run", Stop("all", 5, "begin"))
    other = with_stages(recipe, {}, {"compress": 0.25})
    quick_run(other, tmp_path / "run", resume=True, allow_changes=True)
    quick_run(other, tmp_path / "straight")
    assert changed(weights_of(tmp_path / "run"), weights_of(tmp_path / "straight")) == set()


# --- Messages -----------------------------------------------------------------------------------------------


def test_metrics_report_and_card_show_savings_and_loss_of_accuracy(narrow_run):
    folder = narrow_run[1].folder
    content = content_of(folder)
    found = content["compression"]
    assert (found["stage"], found["method"]) == ("all", "structured")
    assert found["example"].endswith(" tokens")
    before, after = found["before"], found["after"]
    assert set(before) == set(after) == MEASURED
    assert after["metrics"] == {name: content["test"][name] for name in ("accuracy", "f1_macro")}
    assert set(before["metrics"]) == set(after["metrics"])
    assert before["bytes"] - after["bytes"] == 4 * (before["parameters"] - after["parameters"]) > 0
    # For each token and layer, 16 neurons less, with 16 weights in and 16 out.
    tokens = int(found["example"].split()[0])
    assert before["macs"] - after["macs"] == 2 * tokens * 16 * (16 + 16)
    assert before["milliseconds"] > 0 and after["milliseconds"] > 0
    report = (folder / "report.html").read_text(encoding="utf-8")
    card = (folder / "model" / "README.md").read_text(encoding="utf-8")
    for text in (report, card):
        assert "Size and speed" in text
        assert f"{before['macs']:,}" in text and f"{after['macs']:,}" in text
        assert "the model before pruning and after the run" in text


def test_a_run_without_pruning_does_not_mention_it(text_run):
    folder = text_run[1].folder
    assert "compression" not in content_of(folder) and "distillation" not in content_of(folder)
    assert "Size and speed" not in (folder / "report.html").read_text(encoding="utf-8")
    assert "Size and speed" not in (folder / "model" / "README.md").read_text(encoding="utf-8")


def test_original_and_pruned_model_are_compared_without_calibration(tmp_path, text_recipe):
    recipe = text_recipe(evaluation={"calibrate": True}, metrics=["accuracy", "log_loss"])
    folder = quick_run(with_stages(recipe, {}, {"compress": HALF}), tmp_path / "run").folder
    plain = quick_run(
        with_stages(text_recipe(metrics=["accuracy", "log_loss"]), {}, {"compress": HALF}), tmp_path / "plain"
    ).folder
    found, other = content_of(folder), content_of(plain)
    assert found["compression"]["after"]["metrics"] == other["compression"]["after"]["metrics"]
    assert found["compression"]["before"]["metrics"] == other["compression"]["before"]["metrics"]
    assert found["test"]["log_loss"] != other["test"]["log_loss"]


def test_a_student_is_shown_next_to_its_teacher(tmp_path, text_recipe, text_run):
    recipe = with_stages(text_recipe(), {}, {"compress": 0.5, "teacher": str(text_run[1].folder)})
    folder = quick_run(recipe, tmp_path / "run").folder
    content = content_of(folder)
    found = content["distillation"]
    teacher = content_of(text_run[1].folder)
    assert found["teacher"]["metrics"] == {name: teacher["test"][name] for name in ("accuracy", "f1_macro")}
    assert found["teacher"]["parameters"] == teacher["stages"][1]["total_parameters"]
    assert found["student"] == content["compression"]["after"]
    assert [table.columns for table in size_tables(content)] == [("before", "after"), ("teacher", "student")]
    assert ": teacher and student" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_fold_is_not_measured(tmp_path, text_recipe):
    recipe = with_stages(
        text_recipe(evaluation={"folds": 2}), {"epochs": 1.0}, {"epochs": 1.0, "compress": 0.5}
    )
    folder = quick_run(recipe, tmp_path / "run").folder
    assert "compression" in content_of(folder)
    assert "compression" not in content_of(folder / "folds" / "1-of-2")


# --- Refused before anything is written -------------------------------------------------------------------------


def test_a_network_without_feed_forward_layers_is_refused(tmp_path, image_recipe):
    recipe = with_stages(image_recipe(), {}, {"compress": 0.3})
    expected = (
        "stages[1].compress.method must be unstructured for a model whose config has no single feed-forward "
        "width. Got 'structured', for 'test_resnet'. Unstructured pruning sets single "
        "weights to 0."
    )
    assert refusal(lambda: quick_run(recipe, tmp_path / "run")) == expected
    assert refusal(lambda: plan_stages(recipe)) == expected
    assert not (tmp_path / "run").exists()

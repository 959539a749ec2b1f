"""Several processes: equal weights, the same as on one process, and every example counted once."""

import json

import numpy as np
import pytest
import torch
from launching import spread
from removals import unchanged
from safetensors.torch import load_file

from hf_finetune.distributed import start_processes
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.prepare import plan_stages, prepare_run
from hf_finetune.runs.run import run
from hf_finetune.training.stage_weights import load_weights

STAGES = ("01-head", "02-all")


def text_recipe(reviews, checkpoint, batch_size, **changes):
    """Return a recipe of 29 texts without dropout, and 5 for validation: neither divides by 2 or 3 processes."""
    common = {"epochs": 2.0, "batch_size": batch_size, "best": None, **changes}
    return parse_recipe(
        {
            "task": "text-classification",
            "model": {"path": str(checkpoint), "dropout": 0.0},
            "data": {"path": str(reviews), "split": {"validation": 0.125, "test": 0.15, "stratify": False}},
            "stages": [
                {"name": "head", "train": "head", "lr": 0.05, **common},
                {"name": "all", "train": "all", "lr": 0.005, "layer_decay": 0.9, **common},
            ],
            "evaluation": {"linear_probe": None},
        }
    )


def log_of(folder, stage):
    lines = (folder / "stages" / stage / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def values(log, name):
    return [entry[name] for entry in log if name in entry]


@pytest.fixture(scope="module")
def three(tmp_path_factory, reviews, bert_checkpoint):
    """Return a run on three processes, 3 examples each; the last step of an epoch has no example for the third."""
    done = spread(tmp_path_factory.mktemp("three"), text_recipe(reviews, bert_checkpoint, 3), 3)
    assert done.code == 0, done.err[-4000:]
    return done


@pytest.fixture(scope="module")
def alone(tmp_path_factory, reviews, bert_checkpoint):
    """Return a run in this process, with the same examples in each step."""
    recipe = text_recipe(reviews, bert_checkpoint, 9)
    folder = tmp_path_factory.mktemp("alone") / "run"
    return recipe, folder, run(recipe, folder)


def test_three_processes_end_each_stage_with_the_same_bits(three):
    for stage in STAGES:
        first, *others = (three.weights(stage, rank) for rank in range(3))
        for other in others:
            assert first.keys() == other.keys()
            assert [name for name in first if not torch.equal(first[name], other[name])] == []


def test_three_processes_change_exactly_the_planned_parameters(three, alone):
    for stage, plan in zip(STAGES, plan_stages(alone[0]).plan.stages, strict=True):
        for rank in range(3):
            before, after = three.weights(stage, rank, "before"), three.weights(stage, rank)
            moved = {name for name in before if not torch.equal(before[name], after[name])}
            assert moved <= set(plan.trainable)
            # attention does not depend on a key's bias: its gradient is only rounding
            assert {name for name in set(plan.trainable) - moved if "key.bias" not in name} == set()


def test_three_processes_train_as_one_does(three, alone):
    """Sums in another order differ by rounding, which grows from step to step."""
    for stage in STAGES:
        one, other = (
            load_file(folder / "stages" / stage / "model.safetensors")
            for folder in (alone[1], three.folder / "run")
        )
        for name, weight in one.items():
            torch.testing.assert_close(
                other[name], weight, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
            )


@pytest.mark.defends("hf_finetune.training.trainer:SingleStageTrainer.get_train_dataloader")
def test_loss_and_gradient_norm_do_not_depend_on_the_number_of_processes(three, alone):
    """Uneven steps too: 29 examples in steps of 9, 9, 9 and 2."""
    for stage in STAGES:
        one, other = (log_of(folder, stage) for folder in (alone[1], three.folder / "run"))
        for name, tolerance in (("loss", 1e-4), ("grad_norm", 1e-3)):
            assert len(values(one, name)) == 8
            assert values(other, name) == pytest.approx(values(one, name), rel=tolerance)
        assert values(other, "learning_rate") == values(one, "learning_rate")


def test_validation_counts_each_example_once(three, alone):
    for stage in STAGES:
        one, other = (log_of(folder, stage) for folder in (alone[1], three.folder / "run"))
        assert values(one, "eval_loss") and len(values(one, "eval_accuracy")) == 3
        assert values(other, "eval_loss") == pytest.approx(values(one, "eval_loss"), rel=1e-3)
        assert values(other, "eval_accuracy") == values(one, "eval_accuracy")


def test_the_test_split_is_counted_once(three, alone):
    found, expected = (
        read_predictions(folder / "predictions.parquet") for folder in (three.folder / "run", alone[1])
    )
    assert found.ids == expected.ids and len(set(found.ids)) == len(found.ids) == 6
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-4)
    assert three.metrics()["test"]["accuracy"] == alone[2].metrics["test"]["accuracy"]


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer.get_train_dataloader",
    why="Each example is trained on once per epoch",
)
def test_each_process_trains_on_its_share(three):
    for stage in STAGES:
        sizes = [three.notes(stage, rank)["sizes"] for rank in range(3)]
        # the 29 examples of an epoch are 27 and 2, so that the third process has a filler in the last step
        assert sizes == [[3, 3, 3, 1] * 2] * 3
        assert [three.notes(stage, rank)["fillers"] for rank in range(3)] == [0, 0, 2]


def test_only_the_first_process_writes(three):
    assert [three.notes("02-all", rank)["writes"] for rank in range(3)] == [True, False, False]
    given = [json.loads((three.folder / "ranks" / f"metrics-{rank}.json").read_text()) for rank in range(3)]
    assert given == [three.metrics(), {}, {}]
    assert sorted(path.name for path in (three.folder / "run").rglob("rng_state*")) == sorted(
        [f"rng_state_{rank}.pth" for rank in range(3)] * 4
    )


# --- BatchNorm --------------------------------------------------------------------------------------------------


def image_recipe(squares, checkpoint):
    common = {"epochs": 2.0, "batch_size": 5, "optimizer": "sgd"}
    return parse_recipe(
        {
            "task": "image-classification",
            "model": str(checkpoint),
            "data": {"path": str(squares), "split": {"validation": 0.14, "test": 0.17}},
            "stages": [
                {"name": "head", "train": "head", "lr": 0.05, **common},
                {"name": "all", "train": "all", "lr": 0.01, **common},
            ],
            "evaluation": {"linear_probe": None},
        }
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory, squares, timm_checkpoint):
    """Return a run on two processes whose BatchNorms train: 25 images in steps of 10, 10 and 5; 5 for validation."""
    done = spread(tmp_path_factory.mktemp("two"), image_recipe(squares, timm_checkpoint), 2)
    assert done.code == 0, done.err[-4000:]
    return done


def test_the_statistics_of_the_processes_are_one(two):
    for stage in STAGES:
        first, second = (two.weights(stage, rank) for rank in range(2))
        assert [name for name in first if not torch.equal(first[name], second[name])] == []
    before, after = two.weights("02-all", 1, "before"), two.weights("02-all", 1)
    assert any("running" in name and not torch.equal(before[name], after[name]) for name in after)
    before, after = two.weights("01-head", 1, "before"), two.weights("01-head", 1)
    assert not any("running" in name and not torch.equal(before[name], after[name]) for name in after)


@pytest.mark.defends(
    "hf_finetune.data.distributed_sampling:SyncBuffersCallback.on_epoch_end",
    why="All processes evaluate with the BatchNorm statistics that are saved",
)
def test_every_process_evaluates_with_the_same_statistics(two):
    for stage in STAGES:
        first, second = (two.notes(stage, rank)["buffers"] for rank in range(2))
        assert len(first) == 3 and first == second
    assert len(set(first)) == 3


@pytest.mark.defends(
    "hf_finetune.training.stage:add_loss_metric",
    why="The validation loss counts each example once",
    by=unchanged,
)
def test_validation_evaluates_the_saved_weights(two, squares, timm_checkpoint):
    recipe = image_recipe(squares, timm_checkpoint)
    prepared = prepare_run(recipe, start_processes())
    inputs = prepared.task.prepare(prepared.data, prepared.processor, recipe.data, recipe.seed)
    batch = inputs.collate([inputs.validation[index] for index in range(len(inputs.validation))])
    labels = batch.pop("labels")
    model = load_pretrained(prepared).model.eval()
    checked = 0
    for stage in STAGES:
        folder = two.folder / "run" / "stages" / stage
        for entry in log_of(two.folder / "run", stage):
            checkpoint = folder / f"checkpoint-{entry['step']}"
            if "eval_loss" in entry and checkpoint.exists():
                load_weights(model, checkpoint / "model.safetensors")
                with torch.no_grad():
                    logits = model(**batch).logits
                loss = torch.nn.functional.cross_entropy(logits, labels).item()
                assert entry["eval_loss"] == pytest.approx(loss, rel=1e-4)
                right = (logits.argmax(1) == labels).double().mean().item()
                assert entry["eval_accuracy"] == pytest.approx(right)
                checked += 1
    assert checked == 4

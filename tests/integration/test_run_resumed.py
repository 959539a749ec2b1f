"""Whole runs that are interrupted and resumed end the same."""

import json
import shutil

import pytest
from run_helpers import (
    Stop,
    assert_equal_runs,
    first_epoch_is_best,
    interrupt,
    quick_run,
    refusal,
    tiny_text_recipe,
    with_stages,
)
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.prepare import plan_stages

STOPS = [
    ("head", 6, "save"),  # after the first epoch's checkpoint
    ("head", 12, "save"),  # after the last checkpoint of the stage
    ("head", 3, "begin"),  # before there is any checkpoint
    ("head", 8, "ctrl-c"),  # inside the second epoch
    ("all", 0, "begin"),  # between the stages
    ("all", 6, "save"),
    ("all", 12, "save"),
    ("all", 2, "ctrl-c"),
    ("all", 9, "begin"),
]
STOP_IDS = [f"{stage}-{moment}-{step}" for stage, step, moment in STOPS]


@pytest.fixture(scope="module")
def quick_image(tmp_path_factory, image_recipe):
    """Return a recipe of images and its finished run, without the linear probe."""
    recipe = image_recipe()
    return recipe, quick_run(recipe, tmp_path_factory.mktemp("image") / "run")


@pytest.fixture(scope="module")
def quick_text(tmp_path_factory, text_recipe):
    """Return a recipe of texts and its finished run, without the linear probe."""
    recipe = text_recipe()
    return recipe, quick_run(recipe, tmp_path_factory.mktemp("text") / "run")


@pytest.mark.parametrize("stop", STOPS, ids=STOP_IDS)
def test_an_interrupted_image_run_ends_the_same(tmp_path, quick_image, stop):
    recipe, result = quick_image
    interrupt(recipe, tmp_path / "run", Stop(*stop))
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


@pytest.mark.parametrize(
    "stop",
    [
        ("head", 4, "save"),
        ("head", 8, "ctrl-c at the end"),
        ("all", 1, "ctrl-c"),
        ("all", 4, "save"),
        ("all", 6, "ctrl-c"),
        ("all", 8, "ctrl-c at the end"),
    ],
)
def test_an_interrupted_text_run_ends_the_same(tmp_path, quick_text, stop):
    recipe, result = quick_text
    interrupt(recipe, tmp_path / "run", Stop(*stop))
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


@pytest.mark.parametrize("stage", ["head", "all"])
def test_an_interrupt_in_the_last_step_of_an_epoch_skips_no_evaluation(tmp_path, quick_text, stage):
    """A checkpoint written before the epoch's evaluation would resume in the next epoch."""
    recipe, result = quick_text
    interrupt(recipe, tmp_path / "run", Stop(stage, 3, "ctrl-c"))
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


@pytest.mark.parametrize("step", [4, 5])
def test_an_interrupt_between_two_logs_changes_none_of_them(tmp_path, text_recipe, step):
    """The Trainer resets its mean of the loss when it resumes."""
    recipe = with_stages(text_recipe(), *[{"batch_size": 1, "accumulation": 2, "epochs": 1.0}] * 2)
    assert plan_stages(recipe).plan.stages[0].steps >= 10
    quick_run(recipe, tmp_path / "whole")
    interrupt(recipe, tmp_path / "run", Stop("all", step, "ctrl-c"))
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_a_run_that_is_interrupted_again_and_again_ends_the_same(tmp_path, quick_text):
    recipe, result = quick_text
    interrupt(recipe, tmp_path / "run", Stop("head", 1, "ctrl-c"))
    for stop in [("head", 5, "ctrl-c"), ("all", 1, "ctrl-c"), ("all", 4, "save"), ("all", 6, "begin")]:
        with pytest.raises(KeyboardInterrupt):
            quick_run(recipe, tmp_path / "run", resume=True, callbacks=[Stop(*stop)])
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


@pytest.mark.parametrize("stop", [("head", 8, "ctrl-c"), ("all", 6, "save")])
def test_an_interrupted_run_with_a_data_loader_process_ends_the_same(tmp_path, quick_image, stop):
    recipe = quick_image[0]
    content = recipe.model_dump(mode="json")
    content["data"]["workers"] = 1
    content["stages"] = [{**stage, "epochs": 2.0} for stage in content["stages"]]
    recipe = parse_recipe(content)
    interrupt(recipe, tmp_path / "run", Stop(*stop))
    quick_run(recipe, tmp_path / "run", resume=True)
    # the worker augments as the main process does, so that even the number of workers changes nothing
    assert_equal_runs(quick_image[1].folder, tmp_path / "run")


@pytest.mark.defends(
    "hf_finetune.training.resume:ResumableEarlyStopping.check_metric_value",
    why="Early stopping continues to count after a resume",
    ids=["stop0"],
)
@pytest.mark.parametrize("stop", [("head", 8, "save"), ("head", 12, "save"), ("head", 9, "ctrl-c")])
def test_early_stopping_counts_on_after_an_interruption(tmp_path, text_recipe, stop):
    """Trap 16: transformers 5.23 restores the state of a callback only on request."""
    endless = {"epochs": 6.0, "lr": 1e-6, "early_stopping": {"patience": 3, "threshold": 0.5}}
    recipe = with_stages(text_recipe(), endless, {"epochs": None, "max_steps": 1})
    whole = quick_run(recipe, tmp_path / "whole").metrics["stages"][0]
    assert whole["steps"] == 12
    interrupt(recipe, tmp_path / "run", Stop(*stop))
    assert quick_run(recipe, tmp_path / "run", resume=True).metrics["stages"][0]["steps"] == 12
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_early_stopping_restarts_in_each_stage(tmp_path, text_recipe):
    """Trap 17: the best metric of the previous stage would stop the next one in its first dip."""
    endless = {"epochs": 6.0, "lr": 1e-6, "early_stopping": {"patience": 2, "threshold": 0.5}}
    stages = quick_run(with_stages(text_recipe(), endless, endless), tmp_path / "run").metrics["stages"]
    assert [entry["steps"] for entry in stages] == [8, 8]


def test_a_half_written_checkpoint_is_passed_over(tmp_path, quick_text):
    recipe, result = quick_text
    interrupt(recipe, tmp_path / "run", Stop("all", 4, "save"))
    half = tmp_path / "run" / "stages" / "02-all" / "checkpoint-7"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


@pytest.mark.defends(
    "hf_finetune.training.resume:MovedCheckpoint.on_train_begin",
    why="The best checkpoint is found after the run directory was moved",
)
def test_a_run_that_was_moved_is_resumed(tmp_path, text_recipe, monkeypatch):
    monkeypatch.setattr("hf_finetune.training.trainer.is_better", first_epoch_is_best)
    recipe = with_stages(text_recipe(), *[{"lr": 1e-5}] * 2)
    quick_run(recipe, tmp_path / "whole")
    interrupt(recipe, tmp_path / "old", Stop("all", 8, "save"))
    (tmp_path / "old").rename(tmp_path / "new")
    quick_run(recipe, tmp_path / "new", resume=True)
    # neither the last epoch, nor the start
    assert json.loads((tmp_path / "new" / "metrics.json").read_text())["stages"][1]["best_step"] == 4
    assert_equal_runs(tmp_path / "whole", tmp_path / "new")


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(tmp_path, text_run):
    recipe, result = text_run
    shutil.copytree(result.folder, tmp_path / "run")
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


def test_a_run_that_was_killed_while_it_evaluated_is_finished(tmp_path, text_run, monkeypatch):
    recipe, result = text_run

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hf_finetune.runs.results.evaluate_model", killed)
        with pytest.raises(KeyboardInterrupt):
            quick_run(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(result.folder, tmp_path / "run")


def test_resuming_a_run_that_never_began_is_an_error(tmp_path, text_recipe):
    assert refusal(lambda: quick_run(text_recipe(), tmp_path / "run", resume=True)) == (
        f"{tmp_path / 'run' / 'manifest.json'} must be the manifest of a run. Got no such file. "
        "Start the run without --resume."
    )
    assert refusal(lambda: quick_run(text_recipe(), resume=True)) == (
        "resume requires output_dir (--output-dir)."
    )
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_with_new_embeddings_ends_the_same(tmp_path, reviews, bert_checkpoint):
    shutil.copytree(bert_checkpoint, tmp_path / "bert")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "bert")
    tokenizer.add_tokens(["zzza", "zzzb"])
    tokenizer.save_pretrained(tmp_path / "bert")
    model = {"path": str(tmp_path / "bert"), "resize_embeddings": True}
    recipe = tiny_text_recipe(reviews, tmp_path / "bert", model=model)
    quick_run(recipe, tmp_path / "whole")
    interrupt(recipe, tmp_path / "run", Stop("all", 1, "ctrl-c"))
    quick_run(recipe, tmp_path / "run", resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    assert saved.get_input_embeddings().weight.shape[0] == len(tokenizer)

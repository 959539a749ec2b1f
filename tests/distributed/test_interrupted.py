"""Interrupted runs on several processes: messages of the other processes, and resuming."""

import json
import shutil

import pytest
import torch
from launching import launch, spread
from removals import no_context, unchanged
from safetensors.torch import load_file
from test_processes import log_of, text_recipe, values
from transformers import TrainerCallback

from hf_finetune.errors import InputError
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.run import run

STAGES = ("01-head", "02-all")
# torchelastic looks every 0.1 seconds, terminates the others, and kills them after 30 seconds; the rest is start-up.
# Without the package a process waits 30 minutes for one that is stuck.
SECONDS_TO_END = 180


def recipe_with_best(reviews, checkpoint, batch_size):
    """Return a recipe of 29 texts in steps of 6 on two processes of 3; each stage continues from its best checkpoint.

    The learning rate lets both stages improve on their initial weights.
    """
    content = text_recipe(reviews, checkpoint, batch_size, best={"metric": "loss"}).model_dump(mode="json")
    content["stages"][1]["lr"] = 0.01
    return parse_recipe(content)


def same(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def close(one, other):
    for name, weight in one.items():
        torch.testing.assert_close(
            other[name], weight, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def assert_learns_alike(one, other):
    """Compare two runs of two stages, up to rounding."""
    assert [stage["best_step"] for stage in metrics_of(one)["stages"]] == [10, 10], "both learn something"
    for stage in STAGES:
        close(stage_weights(one, stage), stage_weights(other, stage))
        logs = [log_of(folder / "run", stage) for folder in (one, other)]
        for name in ("loss", "grad_norm", "eval_loss"):
            assert values(logs[1], name) == pytest.approx(values(logs[0], name), rel=2e-3)


def metrics_of(folder):
    return json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))


def stage_weights(folder, stage):
    return load_file(folder / "run" / "stages" / stage / "model.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, reviews, bert_checkpoint):
    folder = tmp_path_factory.mktemp("alone")
    run(recipe_with_best(reviews, bert_checkpoint, 6), folder / "run")
    return folder


@pytest.fixture(scope="module")
def ended(tmp_path_factory, reviews, bert_checkpoint):
    """Return a run on two processes, the second of which dies in the second epoch of the second stage."""
    event = {"rank": 1, "stage": "all", "step": 7, "how": "exit"}
    folder = tmp_path_factory.mktemp("ended")
    return launch(folder, recipe_with_best(reviews, bert_checkpoint, 3), 2, event=event)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, reviews, bert_checkpoint):
    """Return the same run without a failure."""
    done = spread(tmp_path_factory.mktemp("straight"), recipe_with_best(reviews, bert_checkpoint, 3), 2)
    assert done.code == 0, done.err[-4000:]
    return done


@pytest.mark.defends(
    "hf_finetune.distributed:detect_lost_process", why="A process that lost another reports it", by=no_context
)
def test_a_dead_process_ends_the_others_which_report_it(ended):
    assert ended.code != 0
    before = ended.err.partition("the event happens")
    assert before[1], ended.err[-4000:]
    assert ended.seconds < SECONDS_TO_END
    assert ended.manifest()["state"] == "running"
    assert [stage["state"] for stage in ended.manifest()["stages"]] == ["done", "running"]
    assert (
        "LostProcessError: Process 0 of 2 lost the connection to another process, which ended or is "
        "stuck; see its output for the cause. Files saved before are kept; resume a run with --resume."
        in ended.err
    )
    assert "exitcode  : 7 (pid" in ended.err or "exitcode: 7" in ended.err


def resumed(ended, tmp_path, recipe, processes):
    shutil.copytree(ended.folder / "run", tmp_path / "run")
    done = spread(tmp_path, recipe, processes, resume=True)
    assert done.code == 0, done.err[-4000:]
    return done


def test_the_same_number_of_processes_resumes_bit_for_bit(
    ended, straight, tmp_path, reviews, bert_checkpoint
):
    done = resumed(ended, tmp_path, recipe_with_best(reviews, bert_checkpoint, 3), 2)
    for stage in STAGES:
        assert same(stage_weights(done.folder, stage), stage_weights(straight.folder, stage)) == []
        for name in ("loss", "grad_norm", "eval_loss", "learning_rate"):
            one, other = (values(log_of(each.folder / "run", stage), name) for each in (done, straight))
            assert one == other
    assert done.metrics()["test"] == straight.metrics()["test"]


def test_one_process_resumes_a_run_of_two(ended, alone, tmp_path, reviews, bert_checkpoint):
    """The batch size of a step stays the same; only the order of the sums differs."""
    shutil.copytree(ended.folder / "run", tmp_path / "run")
    run(recipe_with_best(reviews, bert_checkpoint, 3), tmp_path / "run", resume=True)
    close(stage_weights(alone, "02-all"), stage_weights(tmp_path, "02-all"))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["processes"], manifest["changes"]) == (2, [])
    one, other = (log_of(folder / "run", "02-all") for folder in (alone, tmp_path))
    assert values(other, "loss") == pytest.approx(values(one, "loss"), rel=1e-3)
    assert [entry["step"] for entry in other] == [entry["step"] for entry in one]


@pytest.mark.defends(
    "hf_finetune.runs.changes:adapt_to_processes",
    why="The batch size of a step does not depend on the number of processes",
    by=unchanged,
)
def test_two_processes_resume_a_run_of_one(alone, tmp_path, reviews, bert_checkpoint):
    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if args.output_dir.endswith("02-all") and state.global_step == 7:
                raise KeyboardInterrupt

    recipe = recipe_with_best(reviews, bert_checkpoint, 6)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "run", callbacks=[Stop()])
    done = spread(tmp_path, recipe, 2, resume=True)
    assert done.code == 0, done.err[-4000:]
    close(stage_weights(alone, "02-all"), stage_weights(tmp_path, "02-all"))
    # each process has half of a step's 6 examples, and of the last step's 5 three and two
    assert done.notes("02-all", 0)["sizes"][-1] == 3 and done.notes("02-all", 1)["sizes"][-1] == 2
    assert done.manifest()["processes"] == 1


def test_two_processes_resume_after_one_of_three_failed(tmp_path, alone, reviews, bert_checkpoint):
    """Here by an exception. 2 examples on each of three processes are 3 on each of two."""
    recipe = recipe_with_best(reviews, bert_checkpoint, 2)
    event = {"rank": 2, "stage": "head", "step": 7, "how": "raise"}
    failed = spread(tmp_path, recipe, 3, event=event)
    assert failed.code != 0 and failed.seconds < SECONDS_TO_END
    assert "OSError: the disk of this process is gone" in failed.err
    done = spread(tmp_path, recipe, 2, resume=True)
    assert done.code == 0, done.err[-4000:]
    for stage in STAGES:
        close(stage_weights(alone, stage), stage_weights(tmp_path, stage))
    assert done.manifest()["processes"] == 3


def test_a_process_that_is_stuck_ends_the_others_after_the_timeout(
    tmp_path, reviews, bert_checkpoint, monkeypatch
):
    monkeypatch.setenv("HF_FINETUNE_TIMEOUT", "3")
    event = {"rank": 1, "stage": "head", "step": 2, "how": "hang"}
    recipe = recipe_with_best(reviews, bert_checkpoint, 3)
    done = spread(tmp_path, recipe, 2, event=event, ends_others=True)
    assert done.code != 0 and done.seconds < SECONDS_TO_END
    assert (
        "LostProcessError: Process 0 of 2 lost the connection to another process, which ended or is stuck"
        in done.err
    )


def test_ctrl_c_on_one_process_stops_all_with_a_checkpoint(tmp_path, alone, reviews, bert_checkpoint):
    event = {"rank": 1, "stage": "all", "step": 1, "how": "ctrl-c"}
    recipe = recipe_with_best(reviews, bert_checkpoint, 3)
    stopped = spread(tmp_path, recipe, 2, event=event)
    assert stopped.code != 0
    checkpoints = (tmp_path / "run" / "stages" / "02-all").glob("checkpoint-*")
    assert sorted(path.name for path in checkpoints) == ["checkpoint-0", "checkpoint-2"]
    run(recipe, tmp_path / "run", resume=True)
    close(stage_weights(alone, "02-all"), stage_weights(tmp_path, "02-all"))


@pytest.mark.defends(
    "hf_finetune.training.trainer:forward_set_epoch",
    why="The rest of an interrupted epoch is sampled as without the interruption",
)
def test_two_processes_resume_bit_for_bit_in_the_middle_of_a_later_epoch(
    tmp_path, straight, reviews, bert_checkpoint
):
    """accelerate 1.15 does not pass the epoch to a sampler once it skips the completed batches."""
    event = {"rank": 1, "stage": "all", "step": 7, "how": "ctrl-c"}
    recipe = recipe_with_best(reviews, bert_checkpoint, 3)
    assert spread(tmp_path, recipe, 2, event=event).code != 0
    kept = [path.name for path in (tmp_path / "run" / "stages" / "02-all").glob("checkpoint-*")]
    assert "checkpoint-8" in kept
    shutil.rmtree(tmp_path / "ranks")
    again = spread(tmp_path, recipe, 2, resume=True)
    assert again.code == 0, again.err[-4000:]
    assert same(stage_weights(again.folder, "02-all"), stage_weights(straight.folder, "02-all")) == []


def test_a_batch_that_does_not_divide_is_refused(ended, tmp_path, reviews, bert_checkpoint, monkeypatch):
    """Two processes of 3 examples do not divide evenly among four."""
    shutil.copytree(ended.folder / "run", tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    manifest["processes"] = 1
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    from hf_finetune.runs.changes import adapt_to_processes
    from hf_finetune.training.manifest import read_manifest

    before = read_manifest(tmp_path / "run" / "manifest.json")
    recipe = recipe_with_best(reviews, bert_checkpoint, 3)
    with pytest.raises(InputError) as caught:
        adapt_to_processes(recipe, before, 2)
    assert str(caught.value) == (
        "stages[1] must have a global batch size that is divisible by the number of processes. Got 3 "
        "examples on 2 processes. "
        "Resume with one of these numbers of processes: 1, 3."
    )
    assert adapt_to_processes(parse_recipe(recipe.model_dump(mode="json")), before, 1) == recipe

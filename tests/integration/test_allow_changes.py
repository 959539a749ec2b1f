"""Resuming with changes: an error that lists them, or with ``--allow-changes`` a warning."""

import json
import logging
import math
import shutil

import pytest
import torch
from run_helpers import StopAtStep, quick_run, small_recipe_in
from safetensors.torch import load_file, save_file

from hf_finetune.errors import InputError
from hf_finetune.recipe.load import load_recipe, parse_recipe
from hf_finetune.runs.changes import Changes


@pytest.fixture(scope="module")
def original(tmp_path_factory, reviews, bert_checkpoint):
    """Return a folder with data, a checkpoint and a run that was killed in its last epoch, and a copy of it."""
    place = tmp_path_factory.mktemp("place")
    shutil.copy(reviews, place / "reviews.csv")
    shutil.copytree(bert_checkpoint, place / "bert")
    with pytest.raises(KeyboardInterrupt):
        quick_run(small_recipe_in(place), place / "run", callbacks=[StopAtStep("all", 6)])
    return place, shutil.copytree(place, tmp_path_factory.mktemp("copy") / "place")


@pytest.fixture
def place(original):
    """Return the folder with data and checkpoint alone, at the same path for all tests, because the run knows it."""
    folder, copy = original
    shutil.rmtree(folder)
    return shutil.copytree(copy, folder, ignore=shutil.ignore_patterns("run"))


@pytest.fixture
def recipe(place):
    return small_recipe_in(place)


@pytest.fixture
def interrupted(place, original):
    """Return a run in the folder that was killed in the second epoch of its second stage."""
    return shutil.copytree(original[1] / "run", place / "run")


def changed(recipe, *overrides):
    return parse_recipe(recipe.model_dump(mode="json"), overrides)


def refusal(recipe, folder, **options):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError) as caught:
        quick_run(recipe, folder, resume=True, **options)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    return str(caught.value)


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def log_of(folder, stage):
    lines = (folder / "stages" / stage / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if "loss" in entry]


def allow(recipe, folder, caplog):
    """Resume with a changed recipe. Return the announcement, and the steps that were trained."""
    steps = StopAtStep()
    with caplog.at_level(logging.INFO, logger="hf_finetune"):
        quick_run(recipe, folder, resume=True, allow_changes=True, callbacks=[steps])
    found = [record.getMessage() for record in caplog.records if "with changes: " in record.getMessage()]
    assert len(found) == 1
    return found[0], steps.steps


# --- Refused ----------------------------------------------------------------------------------------------------


def no_changes(original, *arguments):
    """No changes are found."""
    return Changes({}, data=False, checkpoint=False)


@pytest.mark.defends(
    "hf_finetune.runs.changes:find_changes", why="A resume keeps recipe, data and checkpoint", by=no_changes
)
def test_every_changed_field_is_reported_with_both_values(interrupted, recipe):
    other = changed(
        recipe,
        *("stages.1.lr=0.02", "stages.0.batch_size=4", "stages.1.train=[head, norms]", "stages.1.clip=null"),
        *("stages.0.optimizer.args={eps: 1e-6}", "metrics=[accuracy, f1_macro]", "seed=1"),
    )
    found = refusal(other, interrupted)
    # another seed gives other splits
    assert found == (
        "The recipe has changed since the run started: "
        "stages.0.optimizer.args.eps: (not set) -> 1e-06; stages.0.batch_size: 8 -> 4; "
        "stages.1.train: 'all' -> ['head', 'norms']; stages.1.lr: 0.005 -> 0.02; "
        "stages.1.clip: 1.0 -> null; metrics: [] -> ['accuracy', 'f1_macro']; "
        f"seed: 0 -> 1. Resume with {interrupted / 'recipe.yaml'}, add --allow-changes to accept the changes, "
        "or start a new run.\n"
        "The data has changed since the run started. Add --allow-changes to accept the changes, "
        "or start a new run."
    )


def test_added_and_removed_stages_are_reported(interrupted, recipe):
    content = recipe.model_dump(mode="json")
    content["stages"].append({"name": "end", "train": "norms", "epochs": 1.0, "lr": 0.001})
    assert "stages.2: (not set) -> 'end'. Resume with" in refusal(parse_recipe(content), interrupted)
    content["stages"] = content["stages"][:1]
    found = refusal(parse_recipe(content), interrupted)
    assert "stages.1: 'all' -> (not set). Resume with" in found


@pytest.mark.defends("hf_finetune.runs.changes:find_changes", by=no_changes)
def test_other_data_and_another_checkpoint_are_reported(interrupted, recipe, place):
    other_data(place)
    other_checkpoint(place)
    assert refusal(recipe, interrupted) == (
        "The data has changed since the run started. "
        "Add --allow-changes to accept the changes, or start a new run.\n"
        "The checkpoint has changed since the run started. "
        "Add --allow-changes to accept the changes, or start a new run."
    )


def other_data(folder):
    with (folder / "reviews.csv").open("a", encoding="utf-8") as file:
        file.write("a film of its own,good\n")


def other_checkpoint(folder):
    path = folder / "bert" / "model.safetensors"
    weights = {name: value + 1 for name, value in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})


def test_an_edited_recipe_in_the_run_directory_is_compared_with_the_original(interrupted):
    path = interrupted / "recipe.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("lr: 0.005", "lr: 0.5"), encoding="utf-8")
    assert "stages.1.lr: 0.005 -> 0.5." in refusal(load_recipe(path), interrupted)


def test_allowing_changes_needs_a_run_to_resume(recipe, place):
    with pytest.raises(InputError) as caught:
        quick_run(recipe, place / "new", allow_changes=True)
    assert str(caught.value) == "allow_changes (--allow-changes) requires resume (--resume)."


# --- Refused although allowed -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["first", "all"], "stages[0] must be the finished stage 'head'. Got 'first'. "),
        (["all", "head"], "stages[0] must be the finished stage 'head'. Got 'all'. "),
        (["new", "head", "all"], "stages[0] must be the finished stage 'head'. Got 'new'. "),
    ],
)
def test_finished_stages_are_unchanged(interrupted, recipe, names, message):
    stages = {stage["name"]: stage for stage in recipe.model_dump(mode="json")["stages"]}
    chosen = [
        {**stages.get(name, stages["head"]), "name": name, "lr": 0.01 * (index + 1)}
        for index, name in enumerate(names)
    ]
    other = parse_recipe({**recipe.model_dump(mode="json"), "stages": chosen})
    assert refusal(other, interrupted, allow_changes=True) == (
        f"{message}Finished stages cannot be renamed, moved or removed; start a new run."
    )
    # and no message suggests to allow it
    assert "--allow-changes" not in refusal(other, interrupted)


def test_a_finished_run_keeps_all_of_its_stages(recipe, place):
    quick_run(recipe, place / "run")
    other = parse_recipe(
        {**recipe.model_dump(mode="json"), "stages": recipe.model_dump(mode="json")["stages"][:1]}
    )
    assert refusal(other, place / "run", allow_changes=True).startswith(
        "stages[1] must be the finished stage 'all'. "
    )


def test_the_weights_of_another_architecture_are_not_carried(interrupted, recipe, tiny_model, place):
    tiny_model("bert", num_hidden_layers=3, num_labels=2).save_pretrained(place / "bert")
    assert refusal(recipe, interrupted, allow_changes=True) == (
        "model.path must have the same architecture as at the start of the run. "
        f"Got {str(place / 'bert')!r}. "
        "The trained weights fit only that architecture; start a new run."
    )


def test_a_head_for_other_classes_is_not_carried(interrupted, recipe, place):
    text = (place / "reviews.csv").read_text(encoding="utf-8")
    (place / "reviews.csv").write_text(text.replace(",good", ",great"), encoding="utf-8")
    assert refusal(recipe, interrupted, allow_changes=True) == (
        "The classes of the data have changed since the run started. Start a new run."
    )


def test_steps_that_are_done_are_not_taken_back(interrupted, recipe):
    other = changed(recipe, "stages.1.epochs=0.5")
    assert refusal(other, interrupted, allow_changes=True) == (
        "stages[1].epochs must amount to at least the 4 steps already trained. Got 2 steps."
    )


# --- Allowed ----------------------------------------------------------------------------------------------------


def test_another_rate_applies_after_the_checkpoint(interrupted, recipe, caplog):
    """The optimizer and schedule of a checkpoint contain the old rates."""
    other = changed(recipe, "stages.1.lr=0.02", "stages.1.epochs=3.0", "stages.1.schedule=cosine")
    said, steps = allow(other, interrupted, caplog)
    assert said == (
        "Resuming stage all at step 4 with changes: stages.1.epochs: 2.0 -> 3.0; "
        "stages.1.lr: 0.005 -> 0.02; stages.1.schedule.name: 'linear' -> 'cosine'."
    )
    assert steps == [("all", step) for step in range(5, 13)]
    logged = [entry["learning_rates"][0][1] for entry in log_of(interrupted, "02-all")]
    straight = [0.005 * (1 - step / 8) for step in range(4)]
    bent = [0.02 * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(4, 12)]
    assert logged == pytest.approx([*straight, *bent], rel=1e-9, abs=1e-12)
    # the new one from the first step, although the checkpoint's scheduler has the old one
    state = torch.load(interrupted / "stages" / "02-all" / "checkpoint-12" / "optimizer.pt")
    assert {group["initial_lr"] for group in state["param_groups"]} == {0.02}


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer._load_optimizer_and_scheduler",
    why="A run resumed with `--allow-changes` uses the learning rates of the new recipe",
)
def test_the_first_step_after_it_uses_the_new_rate(interrupted, recipe):
    steps = StopAtStep()
    quick_run(
        changed(recipe, "stages.1.lr=0.02"),
        interrupted,
        resume=True,
        allow_changes=True,
        callbacks=[steps],
    )
    assert steps.rates == pytest.approx([0.02 * (1 - step / 8) for step in range(4, 8)], rel=1e-12)


def test_changes_are_recorded_in_the_manifest(interrupted, recipe, caplog):
    other = changed(recipe, "stages.1.lr=0.02")
    before = manifest_of(interrupted)
    allow(other, interrupted, caplog)
    after = manifest_of(interrupted)
    assert after["changes"] == [
        {
            "stage": "all",
            "step": 4,
            "anew": False,
            "recipe": {"stages.1.lr": [0.005, 0.02]},
            "data": False,
            "checkpoint": False,
        }
    ]
    assert before["changes"] == []
    same = [
        name for name in before["fingerprints"] if before["fingerprints"][name] == after["fingerprints"][name]
    ]
    assert same == ["data", "classes", "checkpoint", "architecture"]
    assert load_recipe(interrupted / "recipe.yaml") == other
    # from here on this is the run's recipe
    quick_run(other, interrupted, resume=True)
    assert "stages.1.lr: 0.02 -> 0.005" in refusal(recipe, interrupted)


def test_an_unchanged_run_is_not_touched_by_allowing_changes(interrupted, recipe, caplog):
    with caplog.at_level(logging.INFO, logger="hf_finetune"):
        quick_run(recipe, interrupted, resume=True, allow_changes=True)
    assert "with changes: " not in caplog.text
    assert manifest_of(interrupted)["changes"] == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["stages.1.train=last:1"], "stages.1.train: 'all' -> 'last:1'"),
        (["stages.1.layer_decay=0.5"], "stages.1.layer_decay: 1.0 -> 0.5"),
        (["stages.1.batch_size=4"], "stages.1.batch_size: 8 -> 4"),
        (["stages.1.optimizer=sgd"], "stages.1.optimizer.name: 'adamw' -> 'sgd'"),
        (["metrics=[f1_macro]"], "metrics: [] -> ['f1_macro']"),
    ],
)
def test_changes_that_the_checkpoint_does_not_fit_restart_the_stage(
    interrupted, recipe, caplog, overrides, words
):
    said, steps = allow(changed(recipe, *overrides), interrupted, caplog)
    assert (
        said
        == f"Resuming stage all at step 4 with changes: {words}. Stage all restarts because of the changes."
    )
    assert steps[0] == ("all", 1) and {stage for stage, _ in steps} == {"all"}
    assert manifest_of(interrupted)["changes"][0]["anew"] is True
    assert [entry["step"] for entry in log_of(interrupted, "02-all")] == [step for _, step in steps]


def test_a_smaller_batch_with_more_accumulation_is_resumed(interrupted, recipe, caplog):
    other = changed(recipe, "stages.1.batch_size=4", "stages.1.accumulation=2")
    said, steps = allow(other, interrupted, caplog)
    assert "restarts" not in said
    assert steps == [("all", step) for step in range(5, 9)]


def test_a_change_for_a_finished_stage_comes_too_late(interrupted, recipe, caplog):
    said, steps = allow(changed(recipe, "stages.0.lr=0.1"), interrupted, caplog)
    assert said == (
        "Resuming stage all at step 4 with changes: stages.0.lr: 0.05 -> 0.1. "
        "Changed fields of finished stages have no effect: head."
    )
    assert steps == [("all", step) for step in range(5, 9)]


def test_other_data_restarts_the_stage_with_a_warning_about_the_test_split(
    interrupted, recipe, place, caplog
):
    other_data(place)
    said, steps = allow(recipe, interrupted, caplog)
    assert said == (
        "Resuming stage all at step 4 with changes: data changed. Stage all restarts because of the changes. "
        "Earlier training examples may now be in the test split."
    )
    assert steps == [("all", step) for step in range(1, 9)]
    assert manifest_of(interrupted)["changes"][0]["data"] is True


def test_a_stage_resumes_after_checkpoint_or_data_were_moved(interrupted, recipe, place, caplog):
    (place / "bert").rename(place / "there")
    (place / "reviews.csv").rename(place / "moved.csv")
    other = changed(recipe, f"model.path={place / 'there'}", f"data.path={place / 'moved.csv'}")
    said, steps = allow(other, interrupted, caplog)
    assert said.startswith("Resuming stage all at step 4 with changes: model.path: ")
    assert "checkpoint changed" not in said and "data changed" not in said and "restarts" not in said
    assert steps == [("all", step) for step in range(5, 9)]


def test_another_checkpoint_of_the_same_architecture_has_no_effect(interrupted, recipe, place, caplog):
    other_checkpoint(place)
    said, steps = allow(recipe, interrupted, caplog)
    assert said == "Resuming stage all at step 4 with changes: checkpoint changed."
    assert steps == [("all", step) for step in range(5, 9)]


def test_stages_that_have_not_begun_may_come_go_and_change(recipe, place, caplog):
    with pytest.raises(KeyboardInterrupt):
        quick_run(recipe, place / "run", callbacks=[StopAtStep("all", 0)])
    content = recipe.model_dump(mode="json")
    content["stages"][1:] = [
        {"name": "norms", "train": "norms", "max_steps": 1, "lr": 0.01},
        {"name": "end", "train": "last:1", "max_steps": 2, "lr": 0.001},
    ]
    said, steps = allow(parse_recipe(content), place / "run", caplog)
    assert said.startswith("Resuming stage all at step 0 with changes: stages.1.name: 'all' -> 'norms'")
    assert steps == [("norms", 1), ("end", 1), ("end", 2)]
    folders = sorted(path.name for path in (place / "run" / "stages").iterdir())
    assert folders == ["01-head", "02-norms", "03-end"]


def test_a_finished_run_can_get_another_stage(recipe, place, caplog):
    quick_run(recipe, place / "run")
    content = recipe.model_dump(mode="json")
    content["stages"].append({"name": "end", "train": "norms", "max_steps": 1, "lr": 0.01})
    said, steps = allow(parse_recipe(content), place / "run", caplog)
    assert said == "Resuming after the last stage with changes: stages.2: (not set) -> 'end'."
    assert steps == [("end", 1)]
    manifest = manifest_of(place / "run")
    assert (manifest["state"], manifest["changes"][0]["stage"]) == ("done", "end")
    assert len(json.loads((place / "run" / "metrics.json").read_text())["stages"]) == 3


def test_a_stage_that_was_interrupted_may_be_left_out(interrupted, recipe, caplog):
    content = recipe.model_dump(mode="json")
    content["stages"] = content["stages"][:1]
    said, steps = allow(parse_recipe(content), interrupted, caplog)
    assert said == "Resuming stage all at step 4 with changes: stages.1: 'all' -> (not set)."
    assert steps == []
    assert [path.name for path in (interrupted / "stages").iterdir()] == ["01-head"]

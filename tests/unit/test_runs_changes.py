"""Changes of a recipe when a run of an older version is resumed."""

from types import SimpleNamespace

import pytest

from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.changes import Position, cannot_resume, find_changes
from hf_finetune.training.manifest import Manifest

PRINTS = {"data": "same", "checkpoint": "same"}
HEAD = {"hidden": [1024], "activation": None, "dropout": 0.2}
ADAPTER = {"r": 8, "alpha": 16, "dropout": 0.0}
PRETRAINING = {"epochs": None, "max_steps": None, "lr": 5e-5, "batch_size": 32, "mask": None, "source": False}
ALIGNMENT = {"weight": 1.0, "stages": []}


def recipe(head="linear", adapter=None, **fields):
    content = {
        "task": "text-classification",
        "data": "d",
        "stages": [{"train": "all", "epochs": 1, "lr": 0.1}],
    }
    return parse_recipe({**content, "model": {"path": "m", "head": head, "adapter": adapter}, **fields})


def begun_by_an_older_version(made, **fields):
    """Return the manifest of a run in whose recipe the parts also have fields of other options."""
    content = made.model_dump(mode="json")
    content["model"]["head"] |= HEAD
    if content["model"]["adapter"] is not None:
        content["model"]["adapter"] |= ADAPTER
    if content["domain_adaptation"] is not None:
        content["domain_adaptation"] = {**PRETRAINING, **ALIGNMENT, **content["domain_adaptation"]}
    return Manifest(stages=(), fingerprints=PRINTS, versions={}, seed=0, recipe=content, **fields)


@pytest.mark.parametrize(
    "made",
    [
        recipe(),
        recipe("cosine"),
        recipe(adapter="ia3"),
        recipe(domain_adaptation={"target": "t", "method": "coral"}),
        recipe(domain_adaptation={"target": "t", "method": "continue_pretraining"}),
    ],
    ids=["linear", "cosine", "ia3", "coral", "pretraining"],
)
def test_the_fields_of_other_options_are_no_change(made):
    manifest = begun_by_an_older_version(made)
    assert manifest.recipe != made.model_dump(mode="json")
    assert not find_changes(manifest, made, PRINTS)
    changes = find_changes(manifest, made.model_copy(update={"seed": 3}), PRINTS)
    assert changes.sentence() == "seed: 0 -> 3"


def test_the_pretraining_of_an_older_version_is_unchanged():
    made = recipe(domain_adaptation={"target": "t", "method": "continue_pretraining"})
    manifest = begun_by_an_older_version(made, pretraining={"state": "running"})
    prepared = SimpleNamespace(requested=made, recipe=made)
    assert cannot_resume(manifest, prepared, PRINTS, Position(0, 0)) == []


def test_a_change_of_the_head_lists_the_fields_of_both():
    changes = find_changes(begun_by_an_older_version(recipe()), recipe({"type": "mlp", "hidden": 8}), PRINTS)
    assert changes.recipe["model.head.type"] == ("linear", "mlp")
    assert changes.recipe["model.head.hidden"][1] == [8]


def test_a_recipe_that_is_invalid_now_is_compared_as_it_is():
    manifest = begun_by_an_older_version(recipe())
    manifest.recipe["retired"] = 1
    changes = find_changes(manifest, recipe(), PRINTS)
    assert changes.recipe.keys() == {
        "retired",
        *(f"model.head.{name}" for name in HEAD if HEAD[name] is not None),
    }


def test_a_new_model_is_not_trained_further_on_changed_data():
    fields = {"task": "event-classification", "model": {"new": {}}, "data": "d"}
    made = parse_recipe({**fields, "stages": [{"train": "all", "epochs": 1, "lr": 0.1}]})
    prints = {**PRINTS, "classes": "same", "architecture": "same"}
    content = made.model_dump(mode="json")
    manifest = Manifest(stages=(), fingerprints=prints, versions={}, seed=0, recipe=content)
    stage = SimpleNamespace(steps=9)
    prepared = SimpleNamespace(requested=made, recipe=made, plan=SimpleNamespace(stages=[stage]))
    changed = {**prints, "data": "other", "architecture": "other"}
    assert cannot_resume(manifest, prepared, prints, Position(0, 3)) == []
    assert cannot_resume(manifest, prepared, changed, Position(0, 0)) == []
    assert [str(problem) for problem in cannot_resume(manifest, prepared, changed, Position(0, 3))] == [
        "model.new cannot be trained further: its tokenizer is made from the training split, which has changed. "
        "Restore the data of the run, or start a new run."
    ]

"""The list of defences that ``tools/mutations.py`` takes away: up to date, and as the page says."""

import ast
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tools"))

import mutations  # noqa: E402


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda mutation: mutation.target)
def test_each_defence_and_each_test_of_it_is_there(mutation):
    module, _, path = mutation.target.partition(":")
    found = import_module(module)
    for step in path.split("."):
        found = getattr(found, step)
    assert callable(found) or isinstance(found, bool)
    assert mutation.tests
    for test in mutation.tests:
        file, _, name = test.partition("::")
        functions = {
            node.name
            for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }
        assert name.partition("[")[0] in functions


def test_the_page_is_that_of_the_list():
    assert mutations.PAGE.read_text(encoding="utf-8") == mutations.table()


def test_every_override_of_the_trainer_is_on_the_list():
    from transformers import Trainer

    from hf_finetune.training.trainer import StagedTrainer

    own = {name for name, value in vars(StagedTrainer).items() if callable(value) and hasattr(Trainer, name)}
    listed = {mutation.target.rpartition("StagedTrainer.")[2] for mutation in mutations.MUTATIONS}
    assert own - listed == set()


def test_a_defence_is_taken_away_wherever_it_has_a_name(monkeypatch):
    from hf_finetune.training import freezing, stage

    original = freezing.unfreeze_modes
    (mutation,) = [
        each
        for each in mutations.MUTATIONS
        if each.target.endswith(":unfreeze_modes") and each.removal == "nothing"
    ]
    mutations.apply(mutation, monkeypatch.setattr)
    assert freezing.unfreeze_modes is stage.unfreeze_modes is not original
    monkeypatch.undo()
    assert freezing.unfreeze_modes is stage.unfreeze_modes is original

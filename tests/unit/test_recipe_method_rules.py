"""The rules of the methods: each field has one owner, and a conflict is reported from both sides."""

from dataclasses import replace

import pytest

from hf_finetune.methods import METHODS
from hf_finetune.methods.base import Method
from hf_finetune.recipe import method_rules
from hf_finetune.recipe.method_rules import DISTILLATION, EMA, MIXUP, PROXIMAL, RULES, conflicting_fields
from hf_finetune.recipe.regularize import RegularizeSpec
from hf_finetune.recipe.stage_fields import StageSpec

STAGE = StageSpec(train="all", epochs=1, lr=0.1, regularize={"ema": 0.9, "l1": 0.5, "l2_sp": 0.0})


def test_each_field_belongs_to_one_method():
    owned = [field for rules in RULES for field in rules.fields]
    assert len(owned) == len(set(owned))
    assert {f"regularize.{name}" for name in RegularizeSpec.model_fields} <= set(owned)
    assert all(set(rules.single_task_reasons) - {"balance.weights"} <= set(rules.fields) for rules in RULES)


def test_the_rules_are_those_of_the_methods():
    declared = {kind.rules.name for kind in METHODS} - {Method.rules.name}
    assert declared == {rules.name for rules in RULES}
    assert all(rules.conflicts <= declared for rules in RULES)


@pytest.mark.parametrize("stage", [STAGE, STAGE.model_dump()], ids=["model", "mappings"])
def test_a_field_at_its_default_is_not_used(stage):
    assert PROXIMAL.used(stage) == {"regularize.l1": 0.5}
    assert EMA.used(stage) == {"regularize.ema": 0.9}
    assert DISTILLATION.used(stage) == MIXUP.used(stage) == {}


@pytest.mark.parametrize("declares", ["ema", "proximal steps"])
def test_a_conflict_is_declared_by_either_method(monkeypatch, declares):
    other = {"ema": "proximal steps", "proximal steps": "ema"}[declares]
    changed = {
        rules.name: replace(rules, conflicts=frozenset({other})) if rules.name == declares else rules
        for rules in RULES
    }
    monkeypatch.setattr(method_rules, "RULES", tuple(changed.values()))
    assert list(conflicting_fields(changed["ema"], STAGE)) == ["regularize.l1"]
    assert list(conflicting_fields(changed["proximal steps"], STAGE)) == ["regularize.ema"]
    assert list(conflicting_fields(changed["mixup"], STAGE)) == []

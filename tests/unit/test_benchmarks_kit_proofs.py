"""Sources and tests on the kit's page: the tests exist, and use the option."""

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.inputs import ROOT
from benchmarks.kit.proofs import PROOFS, proofs_table
from hf_finetune.recipe.balance import BalanceSpec
from hf_finetune.recipe.domain import DomainSpec
from hf_finetune.recipe.regularize import RegularizeSpec
from hf_finetune.recipe.schedule import ScheduleSpec

TESTS = ROOT / "tests"


def text_of(file):
    """Return the text of a test, and of the fixtures and helpers that it uses."""
    text = (TESTS / file).read_text(encoding="utf-8")
    for helper in re.findall(r"^from (\w+) import", text, re.MULTILINE):
        for path in (TESTS / f"{helper}.py", (TESTS / file).parent / f"{helper}.py"):
            text += path.read_text(encoding="utf-8") if path.is_file() else ""
    return text


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.option)
def test_the_tests_that_are_named_exist_and_use_the_option(proof):
    file, _, name = proof.test.partition("::")
    assert f"\ndef {name}(" in (TESTS / file).read_text(encoding="utf-8")
    for run in proof.runs:
        assert re.search(rf"[\"']{proof.word}[\"']|\b{proof.word}=", text_of(run)), run
    assert proof.runs[0].startswith("integration/") and proof.runs[1].startswith("distributed/")
    assert proof.option.startswith(("balance", "fit")) or proof.source


def test_no_option_is_left_out():
    words = {proof.word for proof in PROOFS}
    assert words >= set(RegularizeSpec.model_fields)
    assert words >= set(ScheduleSpec.options()) - {"linear"}  # the default, which all other tests cover
    assert words >= set(BalanceSpec.options()) - {"none"}
    assert words >= {"weight_decay", "label_smoothing", "early_stopping", "dropout", "drop_path"}
    assert words >= {"mlp", "cosine", "cls", "mean", "attention", "logistic_regression", "ridge"}
    assert words >= {"seeds", "trivial", "randaugment", "erase", "transforms", "mask", "drop"}
    assert words >= set(DomainSpec.options())


def test_each_is_a_row_with_links():
    lines = proofs_table().splitlines()
    assert len(lines) == len(PROOFS) + 2
    assert lines[2].startswith("| `balance: class_weights` | King & Zeng 2001")
    assert lines[2].endswith("[kit](../tests/distributed/test_kit.py) |")
    for link in re.findall(r"\]\(([^)]+)\)", proofs_table()):
        assert (ROOT / "docs" / link).is_file()

"""The tests declare the safeguards that they guard, and docs/mutations.md lists them (see ``tools/mutations.py``)."""

import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest
from removals import replace

sys.path.append(str(Path(__file__).parents[2] / "tools"))

import mutations

TARGET = "hf_finetune.training.freezing:release_eval_mode"


def always(original):
    return True


def collect(*marks, tests=("a[x]", "b")):
    """Collect the safeguards that the last test declares."""
    items = [
        SimpleNamespace(
            nodeid=f"test.py::{test}", iter_markers=lambda name, test=test: marks * (test == tests[-1])
        )
        for test in tests
    ]
    collector = mutations.Collector()
    collector.pytest_collection_finish(SimpleNamespace(items=items))
    return collector.safeguards


def defends(*arguments, **options):
    return pytest.mark.defends(*arguments, **options).mark


@pytest.mark.slow
def test_the_page_lists_the_declared_safeguards_whose_code_and_tests_exist(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # from the conftest that is imported again
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        page = pool.submit(mutations.page).result()
    assert mutations.PAGE.read_text(encoding="utf-8") == page


def test_the_tests_of_a_safeguard_are_those_that_declare_it():
    marks = [defends(TARGET, why="a"), defends(TARGET), defends("torch.compiler:reset", why="b")]
    safeguards = collect(*marks)
    assert [(safeguard.target, safeguard.why, safeguard.tests) for safeguard in safeguards] == [
        (TARGET, "a", ["test.py::b"]),
        ("torch.compiler:reset", "b", ["test.py::b"]),
    ]
    (safeguard,) = collect(defends(TARGET, why="a", ids=["y"]), tests=("a[x]", "a[y]", "a[z]"))
    assert safeguard.tests == ["test.py::a[y]"]


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ([defends(TARGET)], "gives 'why'"),
        ([defends(TARGET, why="a"), defends(TARGET, why="b")], "the reasons 'a' and 'b' differ"),
        ([defends(TARGET, why="a", ids=["y"])], r"there is no test.py::b\[y\]"),
        ([defends(f"{TARGET}x", why="a")], "has no attribute 'release_eval_modex'"),
        ([defends("hf_finetune.no:name", why="a")], "No module named 'hf_finetune.no'"),
        ([defends(TARGET, why="a", by=always)], "always needs a docstring"),
    ],
)
def test_a_wrong_declaration_is_an_error(marks, message):
    with pytest.raises(pytest.UsageError, match=message):
        collect(*marks)


def test_every_override_of_the_trainer_is_a_safeguard():
    from transformers import Trainer

    from hf_finetune.training.trainer import SingleStageTrainer

    page = mutations.PAGE.read_text(encoding="utf-8")
    own = [
        name for name, value in vars(SingleStageTrainer).items() if callable(value) and hasattr(Trainer, name)
    ]
    assert own and [name for name in own if f":SingleStageTrainer.{name}`" not in page] == []


def test_a_safeguard_is_replaced_wherever_it_is_imported(monkeypatch):
    from hf_finetune.training import freezing, stage

    original = freezing.release_eval_mode
    replace(TARGET, put=monkeypatch.setattr)
    assert freezing.release_eval_mode is stage.release_eval_mode is not original
    assert freezing.release_eval_mode() is None
    monkeypatch.undo()
    assert freezing.release_eval_mode is stage.release_eval_mode is original


def test_a_removed_method_is_the_inherited_one(monkeypatch):
    from transformers import Trainer

    from hf_finetune.training.trainer import SingleStageTrainer

    replace("hf_finetune.training.trainer:SingleStageTrainer._save", put=monkeypatch.setattr)
    assert SingleStageTrainer._save is Trainer._save

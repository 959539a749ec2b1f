"""The checks of ``tools/check_api.py``: sections of docstrings, examples and entries in the documentation."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "tools"))

from check_api import LIMITS, exported, incomplete, lacking, without_sections

ARGS, RETURNS = LIMITS


def undocumented(number: int) -> str:
    """Return a text."""
    return str(number)


class Documented:
    """A class.

    Args:
        number: A number.

    Raises:
        ValueError: Never.

    Example:
        >>> Documented(1)
    """

    def __init__(self, number: int):
        self.number = number


def test_missing_sections_are_reported():
    assert lacking("undocumented", undocumented) == ["Example:", "Args:", "Returns:", "Raises:"]
    assert lacking("Documented", Documented) == []


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        ('def a(b):\n    """Return b."""\n', [ARGS]),
        ('def a() -> int:\n    """Count."""\n', [RETURNS]),
        (
            'def a(b) -> int:\n    """Count.\n\n    Args:\n        b: B.\n\n    Returns:\n        C.\n    """\n',
            [],
        ),
        ('def a() -> int:\n    """Return a count."""\n', []),
        ('def _a(b):\n    """Count."""\n', []),
        ('class A:\n    def a(self, b) -> int:\n        """Count."""\n', [ARGS, RETURNS]),
        ('class A:\n    @property\n    def a(self) -> int:\n        """Count."""\n', []),
        ('class _A:\n    def a(self, b):\n        """Count."""\n', []),
        ('@app.command("a")\ndef a(b) -> int:\n    """Count."""\n', []),
    ],
)
def test_functions_without_sections_are_found(tmp_path, source, rules):
    (tmp_path / "module.py").write_text(source, encoding="utf-8")
    assert [rule for rule, _ in without_sections(tmp_path)] == rules


def test_the_public_names_are_complete():
    assert "StagedTrainer.train" in dict(exported())
    assert list(incomplete()) == []


def test_overrides_need_no_sections():
    places = [place for _, place in without_sections()]
    assert not [place for place in places if place.endswith(" on_train_begin")]

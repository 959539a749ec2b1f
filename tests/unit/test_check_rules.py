"""The rules of ``tools/check_rules.py``: each is broken by a small package, and kept by this one."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "tools"))

from check_rules import LIMITS, OTHER_FOLDERS, PACKAGE, ROOT, find_all, find_openings, main

VIOLATIONS = {
    "names of targets outside targets/": ("data/a.py", 'is_number = target == "regression"\n'),
    "names of tasks, modalities and model inputs outside tasks/": (
        "data/a.py",
        'pixels = batch["pixel_values"]\n',
    ),
    "names of methods outside methods/ and recipe/": (
        "data/a.py",
        'if stage.regularize["mixup"]:\n    pass\n',
    ),
    "docstrings that open with another verb than the field uses": (
        "models/classifier_head.py",
        'def a():\n    """Give one."""\n',
    ),
    "modules of more than 400 lines (runs/run.py: 200)": ("runs/run.py", "\n" * 201),
}


@pytest.mark.parametrize("rule", LIMITS)
def test_a_broken_rule_is_found(tmp_path, rule):
    name, source = VIOLATIONS[rule]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(source, encoding="utf-8")
    assert [finding.rule for finding in find_all(tmp_path)] == [rule]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("targets/a.py", 'name = "regression"\n'),
        ("tasks/a.py", 'name = "pixel_values"\n'),
        ("methods/a.py", 'name = "mixup"\n'),
        ("recipe/a.py", 'name = "mixup"\n'),
        ("models/classifier_head.py", 'pixels = batch["pixel_values"]\n'),
        ("a.py", '"""Return one of regression."""\n'),
    ],
)
def test_accepted_code_has_no_finding(tmp_path, name, source):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(source, encoding="utf-8")
    assert list(find_all(tmp_path)) == []


def test_openings_of_docstrings_are_checked_in_any_folder(tmp_path):
    file = tmp_path / "unit" / "test_a.py"
    file.parent.mkdir()
    file.write_text('def test_a():\n    """Tell one."""\n    name = "regression"\n', encoding="utf-8")
    assert [finding.place for finding in find_openings(tmp_path, tmp_path)] == ["unit/test_a.py:2"]


@pytest.mark.slow
def test_the_package_keeps_the_rules(capsys):
    assert PACKAGE.is_dir() and all((ROOT / folder).is_dir() for folder in OTHER_FOLDERS)
    assert main() == 0, capsys.readouterr().out

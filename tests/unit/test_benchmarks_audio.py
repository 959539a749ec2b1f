"""The page on drum sounds: the baseline of each length of the input, and how many seeds agree."""

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.audio.measure import FOLDS, SETTINGS, Row
from benchmarks.audio.page import render
from benchmarks.inputs import ROOT
from benchmarks.kit.results import pack
from benchmarks.rows import read_rows

FIRST, SHORT, *_ = SETTINGS
KITS = ("a", "b", "c", "d")


def rows(setting, right, log_mel, seed=0):
    packed = [pack(np.array(values)) for values in (right, log_mel, (0, 0, 0, 0))]
    return [Row(setting, seed, fold, KITS, *packed, 10.0) for fold in range(1, FOLDS + 1)]


def test_a_setting_with_another_baseline_has_a_line_for_it():
    page = render([*rows(FIRST, (1, 1, 0, 0), (1, 0, 0, 0)), *rows(SHORT, (1, 1, 1, 1), (1, 1, 0, 0))])
    assert "| log-mel statistics | 0.250 |" in page
    assert f"| log-mel statistics, {SHORT} | 0.500 |" in page and f"| {SHORT} | 1.000 | +0.500 |" in page
    assert page.count("| log-mel statistics") == 2


def test_the_seeds_with_which_a_setting_is_above_are_counted():
    better, equal = ((1, 1, 1, 1), (0, 0, 0, 0)), ((1, 0, 1, 0), (0, 1, 0, 1))
    page = render([*rows(FIRST, *better), *rows(FIRST, *equal, seed=1), *rows(FIRST, *better, seed=2)])
    assert "with one seed alone, above it for 2 of 3." in page
    assert "with one seed alone" not in render(rows(FIRST, *equal))


def test_the_page_is_that_of_the_stored_rows():
    stored = read_rows(Row, ROOT / "benchmarks" / "results" / "audio.json")
    assert stored and (ROOT / "docs" / "drums.md").read_text(encoding="utf-8") == render(stored)

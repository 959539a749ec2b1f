"""Differences over several seeds: their mean and the ends of their intervals, and the words on them."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.seeds import over_seeds, verdict_of_seeds

BETTER, EQUAL, WORSE = (
    {"difference": difference, "interval": [difference - 0.1, difference + 0.1]}
    for difference in (0.2, 0.0, -0.2)
)


def test_the_mean_has_the_outer_ends_of_all_intervals():
    assert over_seeds([BETTER, EQUAL]) == pytest.approx((0.1, -0.1, 0.3))


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ([BETTER], "better than it"),
        ([BETTER, BETTER], "better than it with every seed"),
        ([WORSE, EQUAL, WORSE], "worse than it with 2 of 3 seeds"),
        ([EQUAL, EQUAL], "not distinguishable from it"),
        ([BETTER, WORSE, EQUAL], "better than it with 1 of 3 seeds and worse than it with 1 of 3 seeds"),
    ],
)
def test_words_count_the_seeds(differences, words):
    assert verdict_of_seeds({"it": differences}) == words


def test_baselines_with_the_same_result_are_named_together():
    tested = {"a": [BETTER], "b": [WORSE], "c": [BETTER]}
    assert verdict_of_seeds(tested) == "better than a and c; worse than b"
    assert verdict_of_seeds(tested, greater_is_better=False) == "worse than a and c; better than b"

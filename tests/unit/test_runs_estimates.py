"""Estimates of durations: which examples are timed."""

import pytest

from hf_finetune.runs.estimates import typical_rows
from hf_finetune.tasks import Inputs


def test_texts_of_about_the_mean_length_are_timed():
    lengths = [10, 500, 100, 20, 250, 240, 30, 230]  # the quadratic mean is 231
    inputs = Inputs(lengths, None, list, lengths)
    assert sorted(typical_rows(inputs, 3)) == [4, 5, 7]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_examples_from_everywhere_in_the_data_are_timed(count):
    """Images are often sorted by class."""
    rows = typical_rows(Inputs(range(100), None, list), count)
    assert rows[0] == 0 and rows[-1] >= 99 - 100 / count and len(set(rows)) == count

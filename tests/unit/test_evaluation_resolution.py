"""When a validation split is reported as too small to compare epochs, and the message."""

import pytest
from scipy.stats import binomtest

from hf_finetune.evaluation.resolution import MAX_HALF_WIDTH, half_width, resolution_note


@pytest.mark.parametrize("units", [2, 10, 40, 380, 5000])
def test_the_half_width_is_that_of_the_wilson_interval(units):
    ends = binomtest(units // 2, units).proportion_ci(0.95, "wilson")
    assert half_width(units) == pytest.approx((ends.high - ends.low) / 2)


def test_a_split_is_too_small_up_to_380_examples():
    assert half_width(380) > MAX_HALF_WIDTH > half_width(381)
    assert resolution_note("accuracy", 380) is not None
    assert resolution_note("accuracy", 381) is None
    assert resolution_note("rmse", 10_000) is None


@pytest.mark.parametrize(
    ("metric", "examples", "groups", "note"),
    [
        (
            *("accuracy", 40, None),
            "The validation split has only 40 examples: the 95 % confidence interval of accuracy is about "
            "±0.15, so smaller differences between epochs may be due to chance.",
        ),
        (
            *("top_5_accuracy", 1, None),
            "The validation split has only 1 example: the 95 % confidence interval of top_5_accuracy is "
            "about ±0.45, so smaller differences between epochs may be due to chance.",
        ),
        (
            *("accuracy", 1000, 50),
            "The validation split has only 1,000 examples in 50 groups: the 95 % confidence interval of "
            "accuracy is about ±0.13, so smaller differences between epochs may be due to chance.",
        ),
        (
            *("rmse", 40, None),
            "The validation split has only 40 examples, on which the 95 % confidence interval of a "
            "proportion is about ±0.15: small differences of rmse between epochs may be due to chance.",
        ),
    ],
)
def test_the_note_names_size_resolution_and_interval(metric, examples, groups, note):
    assert resolution_note(metric, examples, groups) == note

"""Class balancing that the labels do not allow: reported before training."""

import pytest

from hf_finetune.methods.class_balance import label_problems
from hf_finetune.recipe.stage_fields import StageSpec

NAMES = ("a", "b", "c")


@pytest.mark.parametrize(
    ("fields", "target", "expected"),
    [
        ({"balance": "focal"}, "single_label", []),
        ({"balance": "class_weights"}, "multi_label", []),
        (
            {"balance": "focal"},
            "regression",
            ["stages[0].balance must be none for regression labels. Got 'focal'."],
        ),
        (
            {"balance": "sampler"},
            "multi_label",
            [
                "stages[0].balance must not be sampler for multi-label data. Oversampling a rare class "
                "also oversamples the other classes of its examples. Use class_weights."
            ],
        ),
        (
            {"balance": {"method": "class_weights", "weights": {"a": 2.0, "bb": 2.0}}},
            "single_label",
            ["stages[0].balance.weights must contain only classes of the data. Got 'bb'. Nearest: 'b'."],
        ),
        (
            {"label_smoothing": 0.1},
            "multi_label",
            ["stages[0].label_smoothing must be 0 unless each example has exactly one class. Got 0.1."],
        ),
    ],
)
def test_incompatible_labels_are_refused(fields, target, expected):
    stage = StageSpec(train="head", epochs=1, lr=0.1, **fields)
    assert [str(problem) for problem in label_problems(stage, "stages[0]", target, NAMES)] == expected

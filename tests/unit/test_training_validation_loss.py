"""The validation loss of a stage."""

import numpy as np
import pytest
from transformers import EvalPrediction

from hf_finetune.runs.tasks import score_tasks
from hf_finetune.training.callbacks import DivergedError
from hf_finetune.training.validation_loss import require_finite_logits

LOGITS = np.array([[1.0, 2.0], [0.5, -1.0]], np.float32)


@pytest.mark.parametrize("given", [LOGITS, (LOGITS, np.zeros(3))])
def test_logits_are_extracted_from_any_model_output(given):
    assert np.array_equal(require_finite_logits(EvalPrediction(given, np.zeros(2))), LOGITS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_reported_as_such(value):
    """Not as an error in the input, as a metric would report."""
    wrong = LOGITS.copy()
    wrong[1, 0] = value
    with pytest.raises(DivergedError, match="is not finite"):
        require_finite_logits(EvalPrediction(wrong, np.zeros(2)))


def test_those_of_several_tasks_are_too():
    class Nothing:
        tasks = {}  # noqa: RUF012
        recipe = type("Recipe", (), {"stages": ()})

    with pytest.raises(DivergedError):
        score_tasks(Nothing)(EvalPrediction(LOGITS * np.nan, np.zeros((2, 1))))

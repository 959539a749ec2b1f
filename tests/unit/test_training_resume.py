"""How long a stage has waited for an improvement, read from its log."""

import pytest
from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.training.resume import ResumableEarlyStopping, failed_evaluations


@pytest.mark.parametrize(
    ("values", "greater", "threshold", "expected"),
    [
        ([0.5, 0.6, 0.7], True, 0.0, 0),
        ([0.5, 0.4, 0.5], True, 0.0, 2),
        ([0.5, 0.6, 0.6], True, 0.0, 1),
        ([0.5, 0.55, 0.58], True, 0.1, 2),
        ([0.5, 0.55, 0.7], True, 0.1, 0),
        ([2.0, 1.0, 1.5], False, 0.0, 1),
        ([], False, 0.0, 0),
    ],
)
def test_evaluations_without_improvement_are_counted_as_transformers_does(
    tmp_path, values, greater, threshold, expected
):
    arguments = TrainingArguments(str(tmp_path), metric_for_best_model="score", greater_is_better=greater)
    stock, state = EarlyStoppingCallback(9, threshold), TrainerState()
    for value in values:
        stock.check_metric_value(arguments, state, TrainerControl(), value)
        if state.best_metric is None or (value > state.best_metric) == greater:
            state.best_metric = value
    log = [{"loss": 1.0}, *({"eval_score": value} for value in values)]
    counted = failed_evaluations(TrainerState(log_history=log), arguments, threshold)
    assert counted == stock.early_stopping_patience_counter == expected
    for patience in (1, 2):
        ours = ResumableEarlyStopping(patience, threshold)
        assert ours.had_stopped(TrainerState(log_history=log), arguments) == (expected >= patience)

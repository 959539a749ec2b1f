"""Forecasts: their loss, metrics, quantiles, and what is stored of them."""

import numpy as np
import pytest
import torch

from hf_finetune.evaluation.intervals import intervals
from hf_finetune.evaluation.metrics import compute_metrics
from hf_finetune.evaluation.predictions import Predictions, read_predictions, write_predictions
from hf_finetune.targets import TARGETS
from hf_finetune.targets.forecast import LEVELS
from hf_finetune.targets.losses import loss_for
from hf_finetune.targets.scored_examples import ScoredExamples

FORECAST = TARGETS["forecast"]
LABELS = np.array([[10.0, 20.0, 5.0], [0.0, 4.0, 2.0], [1.0, 1.0, 0.0]])
"""Two steps and the scale; the last series has none."""
MEDIANS = np.array([[15.0, 20.0], [0.0, 0.0], [1.0, 3.0]])


def with_spread(medians, spread):
    """Return quantiles [examples, steps x levels] around medians, ``spread`` between neighboring levels."""
    offsets = (np.arange(len(LEVELS)) - len(LEVELS) // 2) * spread
    return (medians[..., None] + offsets).reshape(len(medians), -1)


def examples(spread=0.0, **options):
    return ScoredExamples(LABELS, with_spread(MEDIANS, spread), "forecast", **options)


def metric(name, **options):
    return compute_metrics([name], examples(**options))[name]


def test_scaled_errors_leave_out_series_without_a_scale():
    assert metric("mase") == pytest.approx(((5 / 2) / 5 + (4 / 2) / 2) / 2)
    assert metric("mase", weights=np.array([3, 1, 5])) == pytest.approx((3 * 0.5 + 1.0) / 4)
    only = ScoredExamples(LABELS[2:], with_spread(MEDIANS[2:], 0), "forecast")
    assert np.isnan(compute_metrics(["mase"], only)["mase"])


def test_percentages_count_zeros_as_correct_if_both_are_zero():
    shares = [2 * 5 / 25, 0, 0, 2 * 4 / 4, 0, 2 * 2 / 4]
    assert metric("smape") == pytest.approx(100 * np.mean(shares))


def test_absolute_errors():
    assert metric("mae") == pytest.approx(np.mean([2.5, 2.0, 1.0]))
    assert metric("rmse") == pytest.approx(np.sqrt(np.mean([12.5, 8.0, 2.0])))


def test_a_forecast_without_uncertainty_loses_its_absolute_error():
    assert metric("weighted_quantile_loss") == pytest.approx((5 + 4 + 2) / (30 + 4 + 2))


def test_quantile_losses_are_those_of_the_definition():
    quantiles = with_spread(MEDIANS, 1.5).reshape(3, 2, len(LEVELS))
    losses = []
    for level, column in zip(LEVELS, np.moveaxis(quantiles, -1, 0), strict=True):
        errors = LABELS[:, :-1] - column
        losses.append(2 * np.where(errors > 0, level * errors, (level - 1) * errors).sum())
    assert metric("weighted_quantile_loss", spread=1.5) == pytest.approx(np.mean(losses) / 36)


def test_coverage_is_compared_with_the_share_that_it_promises():
    # 10 and 4 lie outside of 15 and 0 with four times 1.1 to each side; 20, 0 and 1 are inside, 1 and 3 too
    assert metric("coverage_error_80", spread=1.1) == pytest.approx(abs(5 / 6 - 0.8))
    assert metric("coverage_error_80", spread=0.0) == pytest.approx(abs(3 / 6 - 0.8))


@pytest.mark.parametrize("name", [metric.name for metric in FORECAST.metrics])
def test_intervals_of_many_resamples_are_those_of_single_ones(name):
    rng = np.random.default_rng(0)
    labels = np.column_stack([rng.normal(50, 10, size=(40, 2)), rng.uniform(1, 5, size=40)])
    scores = with_spread(labels[:, :2] + rng.normal(0, 5, size=(40, 2)), 1.0)
    known = ScoredExamples(labels, scores, "forecast", groups=np.arange(40) // 2)
    value = compute_metrics([name], known)[name]
    low, high = intervals([name], known, seed=0)[name]
    assert low <= value <= high and low < high
    weights = np.arange(40) % 3
    repeated = ScoredExamples(labels.repeat(weights, axis=0), scores.repeat(weights, axis=0), "forecast")
    weighted = compute_metrics([name], ScoredExamples(labels, scores, "forecast", weights=weights))[name]
    assert weighted == pytest.approx(compute_metrics([name], repeated)[name])


def test_the_loss_is_the_scaled_quantile_loss():
    logits = torch.tensor(with_spread(MEDIANS, 0.5))
    labels = torch.tensor(LABELS)
    loss = loss_for("forecast")({"logits": logits}, labels)
    by_example = []
    for row in range(3):
        errors = LABELS[row, :-1, None] - with_spread(MEDIANS, 0.5)[row].reshape(2, len(LEVELS))
        pinball = 2 * np.maximum(np.array(LEVELS) * errors, (np.array(LEVELS) - 1) * errors).mean()
        by_example.append(pinball / (LABELS[row, -1] or np.abs(LABELS[row, :-1]).mean()))
    assert loss.item() == pytest.approx(np.mean(by_example), rel=1e-5)


def test_the_loss_of_a_point_forecast_is_its_scaled_error():
    logits, labels = torch.tensor(with_spread(MEDIANS, 0.0))[:2], torch.tensor(LABELS)[:2]
    assert loss_for("forecast")({"logits": logits}, labels).item() == pytest.approx(metric("mase"), rel=1e-6)


def test_padding_has_no_loss_and_micro_batches_add_up():
    logits, labels = torch.tensor(with_spread(MEDIANS, 0.5)), torch.tensor(LABELS)
    whole = loss_for("forecast")({"logits": logits}, labels)
    padded = torch.cat([labels, torch.full((1, 3), torch.nan)])
    more = torch.cat([logits, logits[:1]])
    assert loss_for("forecast")({"logits": more}, padded).item() == pytest.approx(whole.item())
    parts = sum(loss_for("forecast")({"logits": logits[[row]]}, labels[[row]], 3).item() for row in range(3))
    assert parts == pytest.approx(whole.item())


def test_minus_one_hundred_is_a_value():
    label = torch.tensor([[-100.0, -100.0, 10.0]])
    assert loss_for("forecast")({"logits": torch.zeros(1, 2 * len(LEVELS))}, label).item() == pytest.approx(
        10
    )


def test_constant_zeros_have_a_finite_loss():
    logits = torch.zeros(1, 2 * len(LEVELS), requires_grad=True)
    loss = loss_for("forecast")({"logits": logits}, torch.zeros(1, 3))
    loss.backward()
    assert loss.item() == 0 and logits.grad.isfinite().all()


def test_quantiles_never_cross():
    crossing = np.array([[3.0, 1.0, 2.0, *range(4, 10)]])
    scores = FORECAST.scores(crossing)
    assert scores.tolist() == [sorted(crossing[0])]
    assert FORECAST.decide(scores).tolist() == [[5.0]]


def test_forecasts_are_stored_with_scale_and_quantiles(tmp_path):
    path = tmp_path / "predictions.parquet"
    names = FORECAST.output_names(LABELS.tolist(), None)
    stored = Predictions(("a", "b", "c"), LABELS, with_spread(MEDIANS, 0.5), "forecast", names)
    write_predictions(path, stored)
    read = read_predictions(path)
    assert (read.target, read.label_names) == ("forecast", ("step 1", "step 2"))
    np.testing.assert_allclose(read.labels, LABELS)
    np.testing.assert_allclose(read.scores, stored.scores)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["a"], "not lists"), ([["a", "b"]], "not numbers"), ([[1.0, 2.0]], None)],
)
def test_labels_of_another_form_are_described(labels, message):
    from hf_finetune.targets.reading import summarize_labels

    assert FORECAST.incompatibility(summarize_labels(labels)) == message


def test_labels_must_have_the_same_number_of_steps():
    (problem,) = FORECAST.value_problems({"train": [[1.0, 2.0, 0.5], [1.0, 0.5]]}, {"train": ["a", "b"]})
    assert problem.rule == "must contain the same number of future values in every row"
    assert problem.value == "fewer than 2 in 'b'"

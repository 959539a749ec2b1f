"""Multi-label data with unknown labels: the outputs for those have no effect."""

import numpy as np
import pytest

from hf_finetune.evaluation.calibration import calibration_error, fit_temperature, reliability
from hf_finetune.evaluation.intervals import intervals, statistic
from hf_finetune.evaluation.metrics import compute_metrics, defined_metrics, metric_for
from hf_finetune.evaluation.predictions import Predictions, read_predictions, write_predictions
from hf_finetune.evaluation.thresholds import fit_thresholds
from hf_finetune.report.tables import class_rows
from hf_finetune.targets import TARGETS
from hf_finetune.targets.metric import MetricSettings
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.training.linear_fit import fit_linear
from hf_finetune.training.linear_folds import assign_folds

NAMES = ("a", "b", "c")
SETTINGS = MetricSettings(NAMES)
METRICS = (*defined_metrics("multi_label"), "f1:b", "recall:c")
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, (40, 3)).astype(np.float64)
HIDDEN = RNG.random(LABELS.shape) < 0.2
HIDDEN[HIDDEN.all(axis=1), 0] = False
PARTLY = np.where(HIDDEN, np.nan, LABELS)
SCORES = RNG.uniform(0.01, 0.99, LABELS.shape)
OTHERWISE = np.where(HIDDEN, 1 - SCORES, SCORES)


def scored(labels, scores):
    return ScoredExamples(labels, scores, "multi_label", settings=SETTINGS)


def metrics(labels, scores, names=METRICS):
    return compute_metrics(names, scored(labels, scores))


@pytest.mark.parametrize("name", METRICS)
def test_no_metric_depends_on_what_is_said_of_unknown_labels(name):
    partly, otherwise, known, whole = (
        metrics(labels, scores, [name])[name]
        for labels, scores in (
            (PARTLY, SCORES),
            (PARTLY, OTHERWISE),
            (LABELS, SCORES),
            (LABELS.astype(np.int64), SCORES),
        )
    )
    assert partly == otherwise
    assert whole == known
    assert partly != known  # labels that are left out were not taken for 0


@pytest.mark.parametrize("name", METRICS)
def test_resamples_have_the_same_metric(name, monkeypatch):
    monkeypatch.setattr("hf_finetune.evaluation.intervals.SLOW_RESAMPLES", 20)
    rows = np.arange(40) % 7 != 0
    examples = scored(PARTLY, SCORES)
    whole, some = statistic(metric_for(name, examples), examples)(np.stack([np.ones(40), rows.astype(float)]))
    assert whole == pytest.approx(metrics(PARTLY, SCORES, [name])[name])
    assert some == pytest.approx(metrics(PARTLY[rows], SCORES[rows], [name])[name])
    assert intervals([name], examples, seed=0)[name] is not None


def test_a_class_is_evaluated_on_its_known_labels():
    seen = ~np.isnan(PARTLY[:, 1])
    single = compute_metrics(
        ["roc_auc", "log_loss"], scored(PARTLY[seen, 1:2].astype(np.int64), SCORES[seen, 1:2])
    )
    alone = np.where(np.arange(3) == 1, PARTLY, np.nan)
    found = metrics(alone, SCORES)
    assert {name: found[name] for name in single} == pytest.approx(single)


def test_calibration_and_thresholds_leave_them_out():
    logits, others = (np.log(each / (1 - each)) for each in (SCORES, OTHERWISE))
    for compute in (calibration_error, reliability, fit_thresholds):
        assert np.array_equal(np.array(compute(SCORES, PARTLY)), np.array(compute(OTHERWISE, PARTLY)))
    assert fit_temperature(logits, PARTLY, "multi_label") == fit_temperature(others, PARTLY, "multi_label")
    assert sum(each.count for each in reliability(SCORES, PARTLY)) == (~HIDDEN).sum()


def test_predictions_are_written_and_read_with_them(tmp_path):
    ids = [str(row) for row in range(40)]
    write_predictions(tmp_path / "p.parquet", Predictions(ids, PARTLY, SCORES, "multi_label", NAMES))
    found = read_predictions(tmp_path / "p.parquet")
    np.testing.assert_array_equal(found.labels, PARTLY)
    write_predictions(
        tmp_path / "w.parquet", Predictions(ids, LABELS.astype(int), SCORES, "multi_label", NAMES)
    )
    assert read_predictions(tmp_path / "w.parquet").labels.dtype == np.int64


def test_the_report_counts_no_mistake_for_them(tmp_path):
    write_predictions(
        tmp_path / "p.parquet", Predictions(list(map(str, range(40))), PARTLY, SCORES, "multi_label", NAMES)
    )
    found = read_predictions(tmp_path / "p.parquet")
    wrong, _ = TARGETS[found.target].mistakes(found.labels, found.scores, (SCORES >= 0.5).astype(int))
    np.testing.assert_array_equal(wrong, ((SCORES >= 0.5) != LABELS)[...].__and__(~HIDDEN).any(axis=1))
    rows = class_rows(found, {"splits": {}})
    assert [row.test for row in rows] == [int(np.nansum(column)) for column in PARTLY.T]


def test_a_fit_leaves_them_out_for_each_class():
    features = RNG.normal(size=(40, 4))
    folds = assign_folds([np.flatnonzero(row == 1).tolist() for row in PARTLY], "multi_label", 1, 0)
    made = fit_linear(features, PARTLY, "multi_label", 3, (0.1,))
    assert np.isfinite(fit_linear(features, PARTLY, "multi_label", 3, folds=folds).weight).all()
    seen = ~np.isnan(PARTLY[:, 2])
    logits = made(features)[:, 2]
    assert np.isfinite(logits).all()
    shifted = np.where(HIDDEN, np.nan, LABELS)
    np.testing.assert_array_equal(
        made(features), fit_linear(features, shifted, "multi_label", 3, (0.1,))(features)
    )
    assert np.corrcoef(logits[seen], LABELS[seen, 2])[0, 1] > 0


def test_a_fit_to_weights_and_probabilities_equals_one_to_repeated_examples():
    features = RNG.normal(size=(30, 4))
    classes = RNG.integers(0, 3, 30)
    times = RNG.integers(0, 4, 30)
    weighted = np.eye(3)[classes] * times[:, None]
    made = fit_linear(features, weighted, "single_label", 3, (1.0,))
    plain = fit_linear(features, np.eye(3)[classes], "single_label", 3, (1.0,))
    np.testing.assert_allclose(
        plain(features), fit_linear(features, classes, "single_label", 3, (1.0,))(features)
    )
    assert np.abs(made(features) - plain(features)).max() > 0.01
    shares = RNG.dirichlet(np.ones(3), 30)
    fitted = fit_linear(features, shares, "single_label", 3, (10.0,))
    assert fitted(features).shape == (30, 3)
    folds = assign_folds(shares.argmax(axis=1).tolist(), "single_label", 1, 0)
    assert (
        len(
            fit_linear(features, shares, "single_label", 3, folds=folds, class_weights=(1.0, 2.0, 3.0)).losses
        )
        > 1
    )


def test_a_mean_over_examples_is_undefined_with_unequal_numbers_of_known_labels():
    examples = scored(PARTLY, SCORES)
    assert metric_for("log_loss", examples).per_example is None
    assert metric_for("exact_match", examples).per_example(examples).shape == (40,)

"""A linear layer fitted in closed form: values by hand, and those of scikit-learn."""

import warnings

import numpy as np
import pytest
from feature_scales import MedianScaler
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from hf_finetune.evaluation.metrics import probabilities
from hf_finetune.training.linear_fit import CONSTANT_CLASS_LOGIT, MISSING_CLASS_LOGIT, fit_linear
from hf_finetune.training.linear_folds import assign_folds


def blobs(classes=3, features=6, each=20, distance=2.0, seed=0):
    """Return points around a center for each class; the features differ in mean and scale."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centers = distance * random.normal(size=(classes, features))
    points = centers[labels] + random.normal(size=(len(labels), features))
    return points * np.geomspace(0.1, 50, features) + np.arange(features), labels


def test_a_ridge_regression_by_hand():
    """Standardized, x = 0, 2 is z = -1, 1 and y = 5, 9 is -2, 2 about 7: w = 4 / (2 + alpha), and y = 7 + w z."""
    found = fit_linear(np.array([[0.0], [2.0]]), np.array([5.0, 9.0]), "regression", 1, (0.5,))
    assert found.inverse_strength == 0.5
    assert found.weight == pytest.approx(np.array([[4 / (2 + 2)]]))
    assert found.bias == pytest.approx(np.array([7 - 1.0]))
    assert found(np.array([[1.0], [3.0]]))[:, 0] == pytest.approx([7.0, 9.0])


@pytest.mark.parametrize("target", ["single_label", "multi_label"])
def test_a_logistic_regression_by_hand(target):
    """On z = -1, 1 the penalty w^2 / 2 and C times the loss are least where w = 2 C / (1 + e^w)."""
    labels = np.array([0, 1]) if target == "single_label" else np.array([[0], [1]])
    found = fit_linear(
        np.array([[10.0], [14.0]]), labels, target, 2 if target == "single_label" else 1, (3.0,)
    )
    logits = found(np.array([[10.0], [12.0], [14.0]]))
    asked = logits[:, 1] - logits[:, 0] if target == "single_label" else logits[:, 0]
    weight = asked[2]
    assert weight == pytest.approx(2 * 3.0 / (1 + np.exp(weight)), rel=1e-3)
    assert asked == pytest.approx([-weight, 0.0, weight], abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_it_uses_unscaled_features_and_gives_scikit_learns_probabilities(classes):
    features, labels = blobs(classes)
    found = fit_linear(features, labels, "single_label", classes, (0.3,))
    pipe = make_pipeline(MedianScaler(), LogisticRegression(C=0.3, max_iter=1000)).fit(features, labels)
    unseen, _ = blobs(classes, seed=1)
    assert probabilities(found(unseen), "single_label") == pytest.approx(pipe.predict_proba(unseen), abs=1e-9)
    assert found.losses == {}


@pytest.mark.parametrize("classes", [2, 3])
def test_weighted_classes_are_scikit_learns(classes):
    features, labels = blobs(classes, distance=0.5)
    factors = [3.0, 0.5, 1.5][:classes]
    found = fit_linear(features, labels, "single_label", classes, (0.3,), class_weights=factors)
    model = LogisticRegression(C=0.3, max_iter=1000, class_weight=dict(enumerate(factors)))
    pipe = make_pipeline(MedianScaler(), model).fit(features, labels)
    assert probabilities(found(features), "single_label") == pytest.approx(
        pipe.predict_proba(features), abs=1e-9
    )


def test_with_several_labels_positives_have_the_weight_of_their_class():
    features, labels = blobs(2, distance=0.5)
    several = np.stack([labels, 1 - labels], axis=1)
    found = fit_linear(features, several, "multi_label", 2, (0.3,), class_weights=[4.0, 1.0])
    model = LogisticRegression(C=0.3, max_iter=1000, class_weight={0: 1.0, 1: 4.0})
    pipe = make_pipeline(MedianScaler(), model).fit(features, labels)
    scores = probabilities(found(features), "multi_label")[:, 0]
    assert scores == pytest.approx(pipe.predict_proba(features)[:, 1], abs=1e-9)


def test_a_shift_of_the_logits_is_subtracted_from_the_bias():
    """The loss uses bias + shift, and is least at the bias of a fit without shift."""
    features, labels = blobs(3, distance=0.5)
    plain = fit_linear(features, labels, "single_label", 3, (0.3,))
    found = fit_linear(features, labels, "single_label", 3, (0.3,), logit_adjustments=[-2.0, -1.0, 0.5])
    assert np.array_equal(found.weight, plain.weight)
    assert plain.bias - found.bias == pytest.approx([-2.0, -1.0, 0.5])


def test_the_penalty_is_chosen_by_the_weighted_loss():
    """Five times the loss with the same penalty equals five times C."""
    features, labels = blobs(2, each=12, distance=0.5)
    folds = np.arange(len(labels)) % 3
    found = fit_linear(features, labels, "single_label", 2, (1e-2, 1.0), folds, class_weights=[5.0, 5.0])
    alone = fit_linear(features, labels, "single_label", 2, (5e-2, 5.0), folds)
    assert [5 * loss for loss in alone.losses.values()] == pytest.approx(
        list(found.losses.values()), rel=0.02
    )
    assert found(features) == pytest.approx(alone(features), rel=1e-3, abs=1e-3)


def test_a_constant_feature_has_no_effect():
    features, labels = blobs()
    features[:, 2] = 7.0
    found = fit_linear(features, labels, "single_label", 3, (1.0,))
    assert found.weight[:, 2].tolist() == [0.0, 0.0, 0.0]
    assert np.isfinite(found.weight).all() and np.isfinite(found.bias).all()


@pytest.mark.parametrize("deviation", [1e-3, 1e-17, 4e-33])
@pytest.mark.parametrize("target", ["single_label", "multi_label", "regression"])
def test_a_feature_that_hardly_varies_gets_no_larger_weight_than_others(target, deviation):
    """A sentence encoder has one of deviation 4e-33, which would cause infinite gradients in the next stage."""
    features, labels = blobs(features=6, each=40)
    several = labels[:, None] == np.arange(3)
    of = {"single_label": labels, "multi_label": several.astype(int), "regression": labels * 1.0}[target]
    classes = 1 if target == "regression" else 3
    without = fit_linear(features, of, target, classes, (1.0,))
    features[:, 0] = deviation * np.random.default_rng(1).normal(size=len(labels))
    found = fit_linear(features, of, target, classes, (1.0,))
    assert np.abs(found.weight[:, 0]).max() < np.abs(without.weight).max()


def test_features_that_never_change_leave_the_biases_alone():
    found = fit_linear(np.full((6, 2), 3.0), np.array([0, 0, 0, 0, 1, 1]), "single_label", 2, (1.0,))
    assert found.weight.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert probabilities(found(np.full((1, 2), 3.0)), "single_label")[0] == pytest.approx(
        [2 / 3, 1 / 3], abs=1e-3
    )


def test_a_class_without_examples_is_never_predicted():
    features, labels = blobs(2)
    found = fit_linear(features, np.where(labels == 1, 3, 0), "single_label", 4, (1.0,))
    assert found.weight[[1, 2]].tolist() == np.zeros((2, 6)).tolist()
    assert found.bias[[1, 2]].tolist() == [MISSING_CLASS_LOGIT, MISSING_CLASS_LOGIT]
    assert set(found(features).argmax(axis=1)) == {0, 3}
    alone = fit_linear(features, np.zeros(len(labels), dtype=np.int64), "single_label", 2, (1.0,))
    assert alone(features[:1]).tolist() == [[0.0, MISSING_CLASS_LOGIT]]


def test_a_label_of_all_or_no_examples_is_constant():
    features, labels = blobs(2)
    several = np.stack([labels, np.ones_like(labels), np.zeros_like(labels)], axis=1)
    found = fit_linear(features, several, "multi_label", 3, (1.0,))
    assert found(features)[:, 1:].tolist() == [[CONSTANT_CLASS_LOGIT, -CONSTANT_CLASS_LOGIT]] * len(labels)
    assert ((found(features)[:, 0] > 0) == (labels == 1)).mean() > 0.95
    shifted = fit_linear(features, several, "multi_label", 3, (1.0,), logit_adjustments=(0.5, 30.0, -30.0))
    assert shifted.bias.tolist() == [found.bias[0] - 0.5, CONSTANT_CLASS_LOGIT, -CONSTANT_CLASS_LOGIT]


@pytest.mark.parametrize("target", ["single_label", "multi_label", "regression"])
def test_the_penalty_has_the_lowest_held_out_loss(target):
    features, classes = blobs(3, each=15, distance=0.5)
    labels = {
        "single_label": classes,
        "multi_label": np.eye(3, dtype=np.int64)[classes],
        "regression": classes + 0.1 * features[:, 0],
    }[target]
    folds = np.arange(len(classes)) % 3
    inverse_strengths = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    found = fit_linear(features, labels, target, 3, inverse_strengths, folds)
    by_hand = {}
    for inverse_strength in inverse_strengths:
        total = 0.0
        for fold in range(3):
            out = folds == fold
            outputs = fit_linear(features[~out], labels[~out], target, 3, (inverse_strength,))(features[out])
            total += losses(outputs, labels[out], target).sum()
        by_hand[inverse_strength] = total / len(classes)
    tried = list(found.losses)
    assert tried == list(inverse_strengths[: len(tried)])
    # candidates are compared with less precision
    assert list(found.losses.values()) == pytest.approx([by_hand[each] for each in tried], rel=0.02)
    assert found.inverse_strength == min(tried, key=found.losses.get)
    grew = [found.losses[tried[place]] > found.losses[tried[place - 1]] for place in range(1, len(tried))]
    assert not any(grew[:-1]), "it goes on as long as the loss falls"
    assert grew[-1] or len(tried) == len(inverse_strengths), "and no further"
    alone = fit_linear(features, labels, target, 3, (found.inverse_strength,))
    assert np.array_equal(alone.weight, found.weight) and np.array_equal(alone.bias, found.bias)


def losses(outputs, labels, target):
    if target == "regression":
        return (outputs[:, 0] - labels) ** 2
    scores = probabilities(outputs, target)
    if target == "single_label":
        return -np.log(scores[np.arange(len(labels)), labels])
    return -np.log(np.where(labels == 1, scores, 1 - scores)).sum(axis=1)


def test_each_fold_gets_its_share_of_every_class_and_all_versions_of_an_example():
    labels = [0] * 20 + [1] * 10 + [2] * 3
    folds = assign_folds(labels, "single_label", 2, seed=0)
    assert folds.tolist()[: len(labels)] == folds.tolist()[len(labels) :]
    counts = np.array([np.bincount(np.array(labels)[folds[:33] == fold], minlength=3) for fold in range(5)])
    assert counts[:, 0].tolist() == [4] * 5 and counts[:, 1].tolist() == [2] * 5
    assert sorted(counts[:, 2]) == [0, 0, 1, 1, 1]
    assert assign_folds(labels, "single_label", 1, seed=0).tolist() == folds[:33].tolist()
    assert assign_folds(labels, "single_label", 1, seed=1).tolist() != folds[:33].tolist()


def test_continuous_targets_and_several_labels_are_distributed_too():
    assert sorted(assign_folds([0.5] * 10, "regression", 1, seed=0)) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    several = [[0], [0, 1], [], [0]] * 5
    folds = assign_folds(several, "multi_label", 1, seed=0)
    rare = [fold for fold, labels in zip(folds, several, strict=True) if 1 in labels]
    assert sorted(rare) == [0, 1, 2, 3, 4]


def test_groups_stay_in_one_fold_and_a_single_group_is_no_group():
    labels, groups = [0, 0, 0, 0, 1, 1, 1, 1] * 5, [number // 2 for number in range(40)]
    folds = assign_folds(labels, "single_label", 2, seed=0, groups=groups)
    assert (folds[:40:2] == folds[1:40:2]).all() and folds[:40].tolist() == folds[40:].tolist()
    assert np.bincount(folds[:40]).tolist() == [8] * 5
    alone = assign_folds(labels, "single_label", 1, seed=0).tolist()
    assert assign_folds(labels, "single_label", 1, seed=0, groups=[7] * 40).tolist() == alone
    assert assign_folds(labels, "single_label", 1, seed=0, groups=range(40, 80)).tolist() == alone


def test_classes_of_few_examples_are_fitted_without_a_warning_of_scikit_learn():
    draw = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_linear(draw.normal(size=(30, 4)), np.arange(30), "single_label", 30, (1.0,))

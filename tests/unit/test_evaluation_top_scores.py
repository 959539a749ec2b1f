"""The highest probabilities instead of all: the same metrics, and smaller files."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from evaluation_helpers import save_bert
from sklearn.metrics import (
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
    top_k_accuracy_score,
)

from hf_finetune.errors import InputError
from hf_finetune.evaluation import evaluate
from hf_finetune.evaluation.calibration import reliability
from hf_finetune.evaluation.classifier import load_classifier
from hf_finetune.evaluation.compare import compare_runs
from hf_finetune.evaluation.evaluate import evaluate_model
from hf_finetune.evaluation.intervals import intervals, statistic
from hf_finetune.evaluation.metrics import (
    all_metrics,
    compute_metrics,
    decide,
    metric_for,
    probabilities,
)
from hf_finetune.evaluation.predict import predict
from hf_finetune.evaluation.prediction_writers import open_output
from hf_finetune.evaluation.predictions import Predictions, read_predictions, write_predictions
from hf_finetune.evaluation.registry import needs_all_scores
from hf_finetune.report.figures import confused_classes, confusion_matrix
from hf_finetune.targets.losses import loss_for
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.targets.top_scores import (
    NUM_STORED,
    constant_scores,
    keep_top,
    label_ranks,
    needs_reduction,
    pack_top,
    stack_top,
    top_indices,
    unpack_top,
)
from hf_finetune.training.validation_loss import add_loss_metric, reduce_before_metrics, reduce_logits

CLASSES, EXAMPLES = 300, 60
SCORES = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
NAMES = tuple(f"class {index}" for index in range(CLASSES))


def scores_and_labels(examples=EXAMPLES, classes=CLASSES, digits=1):
    draw = np.random.default_rng(0)
    logits = np.round(
        draw.normal(size=(examples, classes)), digits
    )  # with ties, unless there are many digits
    labels = np.where(draw.random(examples) < 0.5, logits.argmax(axis=1), draw.integers(0, classes, examples))
    return probabilities(logits, "single_label"), labels


def kept(scores, labels):
    return keep_top(scores, labels, decide(scores, "single_label"))


def scored(scores, labels, target="single_label"):
    return ScoredExamples(labels, scores, target)


def test_metrics_are_those_of_all_probabilities():
    scores, labels = scores_and_labels()
    names = [*all_metrics("single_label", CLASSES), "top_3_accuracy", "top_10_accuracy", "cohen_kappa_linear"]
    expected = compute_metrics(names, scored(scores, labels))
    found = compute_metrics(names, scored(kept(scores, labels), labels))
    for name in names:
        if needs_all_scores(name, "single_label"):
            assert np.isnan(found[name])
        else:
            assert found[name] == pytest.approx(expected[name], abs=1e-12), name
    metric_names = ["accuracy", "f1_macro", "log_loss", "top5_accuracy"]
    assert intervals(metric_names, scored(kept(scores, labels), labels), seed=0) == intervals(
        metric_names, scored(scores, labels), seed=0
    )
    assert reliability(kept(scores, labels), labels) == reliability(scores, labels)


def test_metrics_of_many_classes_are_those_of_scikit_learn():
    scores, labels = scores_and_labels(examples=400)
    averages = [f"{score}_{average}" for score in SCORES for average in ("micro", "macro", "weighted")]
    names = ["log_loss", "top5_accuracy", "roc_auc", "balanced_accuracy", *averages]
    found = compute_metrics(names, scored(scores, labels))
    every, decisions = np.arange(CLASSES), scores.argmax(axis=1)
    for name in averages:
        score, average = name.split("_")
        expected = SCORES[score](labels, decisions, average=average, zero_division=0)
        assert found[name] == pytest.approx(expected, abs=1e-12), name
    recalls = recall_score(labels, decisions, labels=np.unique(labels), average="macro", zero_division=0)
    assert found["balanced_accuracy"] == pytest.approx(recalls, abs=1e-12)
    assert found["log_loss"] == pytest.approx(log_loss(labels, scores, labels=every), abs=1e-12)
    assert found["top5_accuracy"] == top_k_accuracy_score(labels, scores, k=5, labels=every)
    areas = [roc_auc_score(labels == one, scores[:, one]) for one in np.unique(labels)]
    assert found["roc_auc"] == pytest.approx(np.mean(areas), abs=1e-12)


def test_the_first_of_equal_classes_is_kept():
    scores = np.full((2, CLASSES), 1 / CLASSES)
    found = kept(scores, np.array([0, 299]))
    assert found.indices[:, 0].tolist() == [0, 0] == found.decisions.tolist()
    assert found.ranks.tolist() == [299, 0] == label_ranks(scores, np.array([0, 299])).tolist()


@pytest.mark.parametrize("digits", [0, 1, 9])
def test_top_indices_are_those_of_a_stable_sort(digits):
    scores, _ = scores_and_labels(digits=digits)
    for top in (1, NUM_STORED, CLASSES):
        expected = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        assert (top_indices(scores, top) == expected).all()


def test_resamples_of_many_classes_are_those_that_are_computed_one_by_one():
    scores, labels = scores_and_labels(examples=40)
    counts = np.random.default_rng(1).multinomial(40, np.full(40, 1 / 40), size=7).astype(np.float64)
    averages = [f"{score}_{average}" for score in SCORES for average in ("micro", "macro", "weighted")]
    for name in (*averages, "balanced_accuracy", "matthews_correlation", "cohen_kappa"):
        examples = scored(kept(scores, labels), labels)
        found = statistic(metric_for(name, examples), examples)(counts)
        for times, value in zip(counts.astype(int), found, strict=True):
            rows = np.repeat(np.arange(40), times)
            expected = compute_metrics([name], scored(scores[rows], labels[rows]))[name]
            assert value == pytest.approx(expected, abs=1e-12), name


def test_parts_are_put_together_and_taken_apart():
    scores, labels = scores_and_labels()
    whole = kept(scores, labels)
    for other in (
        stack_top([kept(scores[:20], labels[:20]), kept(scores[20:], labels[20:])]),
        unpack_top(pack_top(whole), CLASSES),
        whole.reordered(np.arange(CLASSES)),
    ):
        assert (other.indices == whole.indices).all() and (other.ranks == whole.ranks).all()
        assert other.values == pytest.approx(whole.values, rel=1e-6)
    answer = scores[0]
    constant = kept(np.broadcast_to(answer, scores.shape), labels)
    assert (constant_scores(answer, labels).ranks == constant.ranks).all()
    assert (constant_scores(answer, labels).label_probabilities == constant.label_probabilities).all()


@pytest.mark.parametrize("target", ["single_label", "multi_label"])
def test_predictions_of_many_classes_contain_the_top_20(tmp_path, target):
    scores, labels = scores_and_labels()
    if target == "multi_label":
        labels = (scores > 0.03).astype(np.int64)
        scores = np.clip(scores * 20, 0, 1)
    ids = [str(row) for row in range(EXAMPLES)]
    for kind in ("top", "all"):
        write_predictions(
            tmp_path / f"{kind}.parquet", Predictions(ids, labels, scores, target, NAMES), probabilities=kind
        )
    top, every = (read_predictions(tmp_path / f"{kind}.parquet") for kind in ("top", "all"))
    assert len(pq.read_schema(tmp_path / "top.parquet").names) < 10
    assert (tmp_path / "top.parquet").stat().st_size < (tmp_path / "all.parquet").stat().st_size / 3
    assert (top.labels == every.labels).all() and top.label_names == every.label_names == NAMES
    assert (decide(top.scores, target) == decide(every.scores, target)).all()
    assert top.scores.indices.shape == (EXAMPLES, NUM_STORED)
    names = [name for name in all_metrics(target, CLASSES) if not needs_all_scores(name, target)]
    assert compute_metrics(names, scored(top.scores, top.labels, target)) == pytest.approx(
        compute_metrics(names, scored(every.scores, every.labels, target))
    )


def test_runs_of_both_forms_are_compared(tmp_path):
    scores, labels = scores_and_labels(digits=9)
    ids = [str(row) for row in range(EXAMPLES)]
    order = np.random.default_rng(1).permutation(CLASSES)
    other = [NAMES[index] for index in order]
    write_predictions(
        tmp_path / "a.parquet", Predictions(ids, labels, scores, "single_label", NAMES), probabilities="all"
    )
    write_predictions(
        tmp_path / "b.parquet",
        Predictions(ids, np.argsort(order)[labels], scores[:, order], "single_label", other),
    )
    runs = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    (found,) = compare_runs(runs, ["accuracy", "log_loss", "top5_accuracy"])
    assert [each.value for each in found.differences] == pytest.approx(
        [each.first for each in found.differences]
    )
    with pytest.raises(InputError) as caught:
        compare_runs(runs, ["roc_auc"])
    assert str(caught.value) == (
        f"--metric roc_auc needs the probabilities of all classes, but {tmp_path / 'b.parquet'} stores only "
        "the 20 highest. Run with evaluation.probabilities: all."
    )


def save_many(folder):
    return save_bert(folder, NAMES, max_length=16)


def test_an_evaluation_that_is_reduced_has_the_same_metrics(tmp_path, monkeypatch):
    classifier = load_classifier(save_many(tmp_path / "model"), batch_size=4)
    texts = ["good film", "bad plot", "the very boring film", "great", "not", "the plot", "good"] * 2
    features = Features(
        {"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=list(NAMES))}
    )
    rows = {"id": [str(row) for row in range(14)], "text": texts, "label": list(range(14))}
    dataset = Dataset.from_dict(rows, features)
    whole = evaluate_model(classifier, dataset)
    monkeypatch.setattr(evaluate, "needs_reduction", lambda examples, classes: True)
    found = evaluate_model(classifier, dataset)
    assert found.scores.indices.shape == (14, NUM_STORED)
    computable = {
        name: value for name, value in whole.metrics.items() if not needs_all_scores(name, "single_label")
    }
    assert {name: found.metrics[name] for name in computable} == pytest.approx(computable)
    asked = evaluate_model(classifier, dataset, metrics=["roc_auc"])
    assert isinstance(asked.scores, np.ndarray) and asked.metrics["roc_auc"] == whole.metrics["roc_auc"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_predictions_of_many_classes_are_written_in_few_columns(tmp_path, ending):
    stream = predict(load_classifier(save_many(tmp_path / "model")), ["good film"])
    path = tmp_path / f"out.{ending}"
    with open_output(path, "single_label", NAMES) as write:
        for prediction in stream:
            write(prediction)
    assert len(prediction.scores) == NUM_STORED
    assert next(iter(prediction.scores)) == prediction.label
    assert prediction.score == next(iter(prediction.scores.values()))
    if ending == "csv":
        head, row = path.read_text().splitlines()
        assert head == "id,prediction,score,top_classes,top_probabilities,error"
        assert json.dumps(list(prediction.scores)).replace(chr(34), 2 * chr(34)) in row
    elif ending == "parquet":
        assert pq.read_table(path)["top_classes"][0].as_py() == list(prediction.scores)
    else:
        assert list(json.loads(path.read_text())["scores"]) == list(prediction.scores)


def test_reduced_logits_of_a_stage_give_the_loss_and_metrics_of_all_logits():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(EXAMPLES, CLASSES, generator=draw)
    labels = torch.randint(0, CLASSES, (EXAMPLES,), generator=draw)

    def reduce(logits, labels):
        scores = probabilities(logits.numpy(), "single_label")
        return torch.as_tensor(pack_top(kept(scores, labels.numpy())))

    def metrics(prediction):
        scores = unpack_top(np.asarray(prediction.predictions), CLASSES)
        return compute_metrics(["accuracy", "log_loss"], scored(scores, prediction.label_ids))

    loss = loss_for("single_label")
    compute = reduce_before_metrics(add_loss_metric(metrics, loss, reduced=True), reduce_logits(reduce, loss))
    found = compute(type("Prediction", (), {"predictions": logits.numpy(), "label_ids": labels.numpy()}))
    scores = probabilities(logits.numpy(), "single_label")
    expected = compute_metrics(["accuracy", "log_loss"], scored(scores, labels.numpy()))
    assert found == pytest.approx({**expected, "loss": loss((logits,), labels).item()}, rel=1e-6)


def test_few_examples_or_classes_are_not_reduced():
    assert not needs_reduction(1_000_000, 200)
    assert not needs_reduction(2000, 5000)
    assert needs_reduction(1000, 100_000)


def test_figures_of_very_many_classes_are_of_the_confused_ones():
    labels = np.arange(100_000).repeat(2)[:1000]
    decisions = np.where(np.arange(1000) % 3 == 0, labels, 99_999)
    names = [f"class {index}" for index in range(100_000)]
    assert confusion_matrix(labels, decisions, names) is None
    figure = confused_classes(labels, decisions, names)
    assert figure.title == "The 15 most confused classes"
    assert len(figure.svg) < 100_000

"""Metrics that are undefined or uninformative: the reported reason."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from hf_finetune.cli.app import app
from hf_finetune.evaluation import evaluate_run
from hf_finetune.evaluation.evaluate import EvaluationResult
from hf_finetune.evaluation.metrics import all_metrics, compute_metrics
from hf_finetune.evaluation.undefined_metrics import undefined_notes
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.targets.top_scores import TopScores

NAMES = ("n", "p")


def judged(target, scores, labels, names=NAMES, metrics=()):
    scores, labels = np.array(scores, dtype=float), np.array(labels)
    wanted = [*all_metrics(target, len(names)), *metrics]
    metrics = compute_metrics(wanted, ScoredExamples(labels, scores, target))
    ids = tuple(map(str, range(len(labels))))
    return EvaluationResult(metrics, ids, labels, scores, target, names, 1.0)


def test_one_class_alone_leaves_some_metrics_undefined():
    found = judged("single_label", [[0.8, 0.2], [0.6, 0.4]], [1, 1])
    assert math.isnan(found.metrics["roc_auc"]) and found.metrics["mean_average_precision"] == 1
    assert undefined_notes(found) == (
        "roc_auc is undefined: every example is of the class 'p'.",
        "mean_average_precision is 1 whatever the model predicts: every example is of the class 'p'.",
    )
    found = judged("single_label", [[0.2, 0.8], [0.4, 0.6]], [1, 1])
    assert (
        undefined_notes(found)[0] == "cohen_kappa, roc_auc are undefined: every example is of the class 'p'."
    )


def test_defined_metrics_have_no_note():
    assert undefined_notes(judged("single_label", [[0.8, 0.2], [0.6, 0.4]], [1, 0])) == ()
    assert undefined_notes(judged("multi_label", [[0.8, 0.2], [0.6, 0.4]], [[1, 0], [0, 0]])) == ()
    assert undefined_notes(judged("regression", [1, 2, 4], [1.0, 2.5, 2.0], ("label",))) == ()


def test_ranking_metrics_need_two_classes():
    never = judged("multi_label", [[0.8, 0.2], [0.6, 0.4]], [[0, 0], [0, 0]])
    assert undefined_notes(never) == (
        "roc_auc is undefined: no class has both positive and negative examples.",
        "mean_average_precision is undefined: no example has a class.",
    )
    always = judged("multi_label", [[0.8, 0.2], [0.6, 0.4]], [[1, 0], [1, 0]])
    assert undefined_notes(always) == (
        "roc_auc is undefined: no class has both positive and negative examples.",
        "mean_average_precision is 1 whatever the model predicts: no class has both positive and negative "
        "examples.",
    )
    unknown = judged("multi_label", [[0.8, 0.2], [0.6, 0.4]], [[1, math.nan], [math.nan, 0]])
    assert undefined_notes(unknown) == undefined_notes(always)


def test_constant_continuous_targets():
    alone = judged("regression", [1], [2.0], ("label",))
    assert undefined_notes(alone) == ("r2, spearman are undefined: there is one example.",)
    same = judged("regression", [1, 1], [1.0, 2.0], ("label",))
    assert undefined_notes(same) == ("spearman is undefined: all predictions are equal.",)
    labels = judged("regression", [1, 2], [2.0, 2.0], ("label",))
    assert undefined_notes(labels)[-1] == "spearman is undefined: all labels are equal."


def test_metrics_of_all_probabilities_are_undefined_for_top_scores():
    top = object.__new__(TopScores)
    found = SimpleNamespace(
        metrics={"roc_auc": math.nan, "other": math.nan},
        target="single_label", scores=top, labels=np.array([0, 1]), label_names=NAMES,
    )  # fmt: skip
    assert undefined_notes(found) == (
        "roc_auc is undefined: only the highest probabilities of each example are stored.",
        "other is undefined: it has no value on these examples.",
    )


@pytest.mark.filterwarnings("error")
def test_the_command_reports_the_reason(monkeypatch, capsys):
    found = judged("single_label", [[0.8, 0.2], [0.6, 0.4]], [1, 1])
    monkeypatch.setattr(evaluate_run, "evaluate", lambda *_, **__: found)
    app(["evaluate", "run"], standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "roc_auc undefined " in said and " nan" not in said
    assert (
        "2 examples roc_auc is undefined: every example is of the class 'p'. mean_average_precision is 1"
        in said
    )

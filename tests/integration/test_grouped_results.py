"""A run on grouped examples: intervals by groups, requested metrics, and tests against its baselines."""

import json

import numpy as np
import pytest
from run_helpers import quick_run, tiny_text_recipe

from hf_finetune.cli.app import app
from hf_finetune.evaluation.compare import compare_runs
from hf_finetune.evaluation.evaluate_run import evaluate
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.targets import TARGETS
from hf_finetune.targets.metric import Metric
from hf_finetune.targets.scored_examples import group_indices

METRICS = ["accuracy", "recall:good", "top_1_accuracy", "expected_cost", "matthews_correlation"]


@pytest.fixture(scope="module")
def grouped(tmp_path_factory, bert_checkpoint):
    folder = tmp_path_factory.mktemp("grouped")
    lines = [
        json.dumps({"text": f"the {word} film {number}", "label": word, "critic": f"critic {number // 4}"})
        for number in range(96)
        for word in [("good", "bad", "boring")[(number // 4) % 3]]
    ]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    content = tiny_text_recipe(folder / "rows.jsonl", bert_checkpoint).model_dump(mode="json")
    content["data"]["split"] = {"group": "critic", "validation": 0.2, "test": 0.4}
    content["metrics"] = METRICS
    content["evaluation"] = {"costs": {"good": {"bad": 4}}, "slices": ["label"]}
    return quick_run(parse_recipe(content), folder / "run")


def test_intervals_are_of_groups_everywhere(grouped, capsys):
    metrics = grouped.metrics
    groups = metrics["test_groups"]
    assert groups["column"] == "critic" and 5 < groups["groups"] < 12
    found = read_predictions(grouped.folder / "predictions.parquet")
    assert found.group_column == "critic" and len(set(found.groups)) == groups["groups"]
    again = evaluate(grouped.folder)
    assert again.groups == found.groups
    assert {name: list(ends) for name, ends in again.intervals.items()} == metrics["test_interval"]
    assert all(row["groups"] <= groups["groups"] for row in metrics["slices"]["label"]["slices"])
    page = (grouped.folder / "report.html").read_text(encoding="utf-8")
    assert "by groups of critic)" in page
    app(["evaluate", str(grouped.folder)], standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    assert f"examples in {groups['groups']} groups of critic, resampled as whole groups" in said


def test_every_requested_metric_has_a_value_an_interval_and_baselines(grouped):
    metrics = grouped.metrics
    for name in METRICS:
        assert metrics["test"][name] is not None
        assert set(metrics["baseline_differences"]["linear_probe"][name]) == {
            "difference", "interval", "p_value", "verdict",
        }  # fmt: skip
    assert metrics["test"]["top_1_accuracy"] == metrics["test"]["accuracy"]
    assert metrics["test"]["expected_cost_bayes"] >= 0


def test_baselines_are_kept_and_compared_as_any_predictions(grouped):
    model, probe, majority = (
        grouped.folder / name
        for name in ("predictions.parquet", "baselines/linear_probe.parquet", "baselines/majority.parquet")
    )
    (found,) = compare_runs([probe, model], ["accuracy"])
    kept = grouped.metrics["baseline_differences"]["linear_probe"]["accuracy"]
    (difference,) = found.differences
    assert (found.group_column, found.groups) == ("critic", grouped.metrics["test_groups"]["groups"])
    assert kept["difference"] == pytest.approx(difference.value - difference.first)
    assert kept["interval"] == pytest.approx(difference.interval) and kept["verdict"] == difference.verdict
    assert np.ptp(read_predictions(majority).scores, axis=0).max() == 0
    page = (grouped.folder / "report.html").read_text(encoding="utf-8")
    assert "On the same examples, the model&#39;s" in page


def share_of_groups(examples):
    """Compute the mean over the groups of whether the example with the highest score has the highest label."""
    hits = []
    for group in np.unique(examples.groups):
        labels, scores = (values[examples.groups == group] for values in (examples.labels, examples.scores))
        hits.append(labels[scores.argmax()] == labels.max())
    return np.mean(hits)


def test_a_metric_of_groups_selects_the_epoch_and_is_tested(tmp_path, bert_checkpoint, monkeypatch):
    target = TARGETS["regression"]
    monkeypatch.setattr(target, "metrics", (*target.metrics, Metric("share_of_groups", share_of_groups)))
    lines = [
        json.dumps({"text": f"the {word} film {critic}", "label": number + 0.5, "critic": f"critic {critic}"})
        for critic in range(24)
        for number, word in enumerate(("bad", "dull", "good"))
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    content = tiny_text_recipe(tmp_path / "rows.jsonl", bert_checkpoint).model_dump(mode="json")
    content["data"]["split"] = {"group": "critic", "validation": 0.2, "test": 0.4}
    content["metrics"] = ["share_of_groups", "mae"]
    found = quick_run(parse_recipe(content), tmp_path / "run")
    stored = read_predictions(found.folder / "predictions.parquet")
    groups = group_indices(stored.groups)
    best = [max(np.flatnonzero(groups == group), key=lambda row: stored.scores[row]) for group in set(groups)]
    assert found.metrics["test"]["share_of_groups"] == (stored.labels[best] == 2.5).mean()
    assert set(found.metrics["test_interval"]) == {"share_of_groups", "mae"}
    assert all("share_of_groups" in stage["validation"] for stage in found.metrics["stages"])
    assert set(found.metrics["baselines"]["majority"]) == {"share_of_groups", "mae"}

"""Two runs on the same test examples: significant differences, and runs that cannot be compared."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from hf_finetune.cli.app import app
from hf_finetune.data.content_hashes import write_hashes
from hf_finetune.errors import InputError
from hf_finetune.evaluation.compare import McNemar, compare_runs, paired_difference
from hf_finetune.evaluation.predictions import Predictions, write_predictions
from hf_finetune.targets.scored_examples import ScoredExamples

NAMES = ("bread", "soup", "stew")


@pytest.fixture
def make_run(tmp_path):
    """Return a function that makes runs whose predictions are right with a probability."""

    def make(name, right, *, ids=None, label_names=NAMES, count=200, seed=0, groups=None):
        labels = np.random.default_rng(0).integers(0, 3, count)
        chance = np.random.default_rng(seed)
        said = np.where(chance.random(count) < right, labels, (labels + 1) % 3)
        scores = 0.7 * np.eye(3)[said] + 0.1
        order = [NAMES.index(each) for each in label_names]
        folder = tmp_path / name
        folder.mkdir()
        write_predictions(
            folder / "predictions.parquet",
            Predictions(
                ids or [f"{row}.jpg" for row in range(count)],
                np.argsort(order)[labels],
                scores[:, order],
                "single_label",
                label_names,
                groups=groups,
                group_column=groups and "patient",
            ),
        )
        return folder

    return make


def test_a_significant_difference_is_distinguished_from_chance(make_run):
    good, bad, other = make_run("good", 0.9), make_run("bad", 0.6, seed=1), make_run("other", 0.9, seed=2)
    worse, same = compare_runs([good, bad, other])
    assert (worse.run, worse.examples) == (str(bad), 200)
    accuracy, f1 = worse.differences
    assert (accuracy.metric, f1.metric) == ("accuracy", "f1_macro")
    assert accuracy.interval[1] < 0 and accuracy.p_value < 0.01 and worse.mcnemar.p_value < 0.01
    assert same.differences[0].interval[0] < 0 < same.differences[0].interval[1]
    assert same.differences[0].p_value > 0.05


def test_groups_are_resampled_as_a_whole_and_reported(make_run, capsys):
    groups = [f"patient {row // 5}" for row in range(200)]
    runs = [make_run("one", 0.8, groups=groups), make_run("two", 0.9, seed=1), make_run("plain", 0.8)]
    (by_group,), (alone,) = compare_runs(runs[:2]), compare_runs([runs[2], runs[1]])
    assert (by_group.group_column, by_group.groups, alone.group_column, alone.groups) == (
        "patient",
        40,
        None,
        None,
    )
    assert by_group.differences[0].value == alone.differences[0].value
    assert by_group.differences[0].interval != alone.differences[0].interval
    app(["compare", str(runs[1]), str(runs[0])], standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "on 200 test examples in 40 groups of patient, resampled as whole groups " in said
    few = make_run("few", 0.8, groups=[f"site {row % 4}" for row in range(200)])
    app(["compare", str(few), str(runs[1])], standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "in 4 groups of patient, resampled as whole groups; intervals from so few groups are unreliable"
        in said
    )


def test_examples_with_the_same_index_but_other_content_are_counted(make_run, capsys):
    runs = [make_run("one", 0.9), make_run("two", 0.9, seed=1)]
    hashes = np.arange(200, dtype=np.uint64)
    write_hashes(runs[0] / "examples.npz", {"train": hashes + 1000, "test": hashes})
    assert compare_runs(runs)[0].changed_examples == 0  # what the other run was judged on is not known
    write_hashes(runs[1] / "examples.npz", {"train": hashes, "test": hashes})
    assert compare_runs(runs)[0].changed_examples == 0
    write_hashes(runs[1] / "examples.npz", {"train": hashes, "test": hashes + 150})
    assert compare_runs(runs)[0].changed_examples == 150
    app(["compare", *map(str, runs)], standalone_mode=False)
    assert (
        "150 of the test examples have the same name as one in the first run, but different content. If the "
        "data was "
        "reordered or renamed between the runs, they were not evaluated on the same examples."
    ) in " ".join(capsys.readouterr().out.split())


def test_the_verdict_is_above_below_or_undecided(make_run, capsys):
    good, bad, other = make_run("good", 0.9), make_run("bad", 0.6, seed=1), make_run("other", 0.9, seed=2)
    worse, same = compare_runs([good, bad, other])
    assert (worse.differences[0].verdict, same.differences[0].verdict) == ("below", "not distinguishable")
    (better,) = compare_runs([bad, good], ["accuracy", "log_loss", "recall:soup"])
    assert [each.verdict for each in better.differences] == ["above", "below", "above"]
    app(["compare", str(good), str(bad)], standalone_mode=False)
    said = capsys.readouterr().out
    assert "Significantly below good: accuracy, f1_macro\n" in said
    assert re.search(r"\n +good +bad +difference +95 % interval +p *\n", said)
    assert re.search(r"McNemar's test: \d+ correct only in good, \d+ only in bad; p < 0\.001\n", said)


def test_few_examples_that_differ_do_not_decide():
    """Four of a hundred, all in one direction: significant by the bootstrap alone, but not by McNemar's test."""
    labels = np.zeros(100, dtype=np.int64)
    other = ScoredExamples(labels, np.eye(2)[labels], "single_label")
    first = replace(other, scores=other.scores.copy())
    first.scores[:4] = first.scores[:4, ::-1]
    found = paired_difference("accuracy", first, other, seed=0)
    assert found.value - found.first == pytest.approx(0.04) and found.p_value == pytest.approx(0.125)
    assert found.verdict == "not distinguishable"
    first = replace(other, scores=np.eye(2)[(np.arange(100) < 12).astype(int)])
    assert paired_difference("accuracy", first, other, seed=0).verdict == "above"


def test_costs_of_a_run_are_compared(make_run):
    one, two = make_run("one", 0.9), make_run("two", 0.7, seed=1)
    recipe = {"evaluation": {"costs": {"soup": {"stew": 9.0}}}}
    (one / "manifest.json").write_text(json.dumps({"recipe": recipe}), encoding="utf-8")
    (found,) = compare_runs([one, two], ["expected_cost"])
    assert found.differences[0].value > 1.5 * found.differences[0].first > 0
    assert found.differences[0].verdict == "above"
    with pytest.raises(InputError, match=r"Set the misclassification costs in evaluation\.costs\."):
        compare_runs([two, two], ["expected_cost"])


def test_mcnemar_counts_examples_that_only_one_has_right(make_run):
    good, bad = make_run("good", 1.0), make_run("bad", 0.9, seed=1)
    (found,) = compare_runs([good, bad])
    wrong = round(200 * (1 - found.differences[0].value))
    assert found.mcnemar == McNemar(wrong, 0, pytest.approx(binomtest(0, wrong).pvalue))
    (itself,) = compare_runs([good, good])
    assert itself.mcnemar == McNemar(0, 0, 1.0)


def test_order_of_rows_and_classes_does_not_matter(make_run, monkeypatch):
    monkeypatch.setattr("hf_finetune.evaluation.intervals.SLOW_RESAMPLES", 50)
    one = make_run("one", 0.8)
    turned = make_run("turned", 0.8, label_names=("stew", "bread", "soup"))
    (found,) = compare_runs([one, turned], ["accuracy", "roc_auc", "log_loss"])
    assert [each.value for each in found.differences] == pytest.approx(
        [each.first for each in found.differences]
    )


def test_thresholds_of_a_run_count(tmp_path):
    labels = np.array([[1, 0], [0, 1]] * 20)
    scores = np.where(labels == 1, 0.4, 0.2)
    for name in ("plain", "chosen"):
        (tmp_path / name).mkdir()
        write_predictions(
            tmp_path / name / "predictions.parquet",
            Predictions([str(row) for row in range(40)], labels, scores, "multi_label", ("a", "b")),
        )
    said = {"thresholds": {"b": 0.3, "a": 0.3}}
    (tmp_path / "chosen" / "metrics.json").write_text(json.dumps(said), encoding="utf-8")
    (found,) = compare_runs([tmp_path / "plain", tmp_path / "chosen"], ["f1_macro"])
    assert (found.differences[0].first, found.differences[0].value) == (0.0, 1.0)


def test_incomparable_runs_are_refused(make_run, tmp_path):
    one, few = make_run("one", 0.9), make_run("few", 0.9, count=150)
    with pytest.raises(InputError, match="must be at least two runs"):
        compare_runs([one])
    with pytest.raises(
        InputError,
        match=r"must be evaluated on the test examples of .*50 examples that only one of the runs has",
    ):
        compare_runs([one, few])
    with pytest.raises(InputError, match=r"must be a metric for the label type single_label. Got 'rmse'"):
        compare_runs([one, one], ["rmse"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"contains no predictions.parquet"):
        compare_runs([one, tmp_path / "empty"])
    other = make_run("other", 0.9, seed=3)
    rows = np.random.default_rng(5).integers(0, 3, 200)
    write_predictions(
        other / "predictions.parquet",
        Predictions([f"{row}.jpg" for row in range(200)], rows, np.eye(3)[rows], "single_label", NAMES),
    )
    with pytest.raises(InputError, match="has other test labels than"):
        compare_runs([one, other])


def test_the_command_prints_a_table_for_each_run(make_run, capsys):
    one, two = make_run("one", 0.9), make_run("two", 0.6, seed=1)
    app(["compare", str(one), str(two)], standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "on 200 test examples" in said and "f1_macro" in said and "McNemar's test:" in said

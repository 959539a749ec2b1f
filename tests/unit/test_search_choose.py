"""`choose`: checkpoints ranked by a classifier on their frozen features, without the test split."""

import json
import os
import shutil
import signal
from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForImageClassification
from typer.testing import CliRunner

from hf_finetune.cache import writer
from hf_finetune.cli.app import app
from hf_finetune.errors import InputError
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.search import choose, frozen
from hf_finetune.search.choose import choose_checkpoint
from hf_finetune.search.draft_recipe import draft_recipe
from hf_finetune.search.inspect_data import inspect_data
from hf_finetune.search.log_me import log_me
from hf_finetune.search.rank_candidates import CandidateFilter, _read_source, rank_candidates

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def useless(timm_checkpoint, tmp_path_factory):
    """Return a checkpoint whose features are the same for all images."""
    folder = tmp_path_factory.mktemp("useless")
    model = AutoModelForImageClassification.from_pretrained(timm_checkpoint)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def inspected(squares):
    return inspect_data(str(squares))


def rank(inspected, *models, data=None):
    def recipe_for(model):
        return parse_recipe(yaml.safe_load(draft_recipe(inspected, model)))

    return choose_checkpoint([*map(str, models)], recipe_for, data or inspected.data)


def test_useful_features_rank_first(inspected, timm_checkpoint, useless):
    ranking = rank(inspected, useless, timm_checkpoint)
    best, worst = ranking.ranked
    assert (best.model, worst.model) == (str(timm_checkpoint), str(useless))
    assert best.value > worst.value and best.log_me > worst.log_me > -np.inf
    assert (best.comparison, worst.comparison) == ("best", "worse")
    assert best.examples == len(inspected.data.train)
    assert best.interval[0] <= best.value <= best.interval[1]
    assert best.input_size == "32 x 32 pixels"


def test_the_test_and_validation_splits_are_not_read(inspected, timm_checkpoint):
    data = replace(inspected.data, validation=inspected.data.train.select([0]), test=None)
    (alone,) = rank(inspected, timm_checkpoint, data=data).ranked
    (entry,) = rank(inspected, timm_checkpoint).ranked
    assert (alone.value, alone.log_me) == (entry.value, entry.log_me)


def test_features_are_computed_once(inspected, timm_checkpoint, monkeypatch):
    rank(inspected, timm_checkpoint)

    def refuse(*arguments, **options):
        raise AssertionError("computed again")

    monkeypatch.setattr(writer.PrefixWriter, "_write", refuse)
    rank(inspected, timm_checkpoint)


def test_a_killed_ranking_continues_and_ends_as_without_the_kill(
    inspected, timm_checkpoint, useless, monkeypatch, tmp_path
):
    def without_times(ranking):
        return [replace(entry, milliseconds=0.0) for entry in ranking.ranked]

    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "whole"))
    expected = rank(inspected, timm_checkpoint, useless)
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "killed"))
    computed, write = [], writer.PrefixWriter._write

    def record(self, *arguments, **options):
        computed.append(self)
        return write(self, *arguments, **options)

    def kill_at_second(self, *arguments, **options):
        record(self, *arguments, **options)
        if len(set(map(id, computed))) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        writer.PrefixWriter._write = kill_at_second
        rank(inspected, timm_checkpoint, useless)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    monkeypatch.setattr(writer.PrefixWriter, "_write", record)
    assert without_times(rank(inspected, timm_checkpoint, useless)) == without_times(expected)
    assert len(set(map(id, computed))) == 1  # only those of the second checkpoint


def test_a_clearly_worse_checkpoint_is_dropped_early(inspected, timm_checkpoint, useless, monkeypatch):
    monkeypatch.setattr(choose, "FIRST_ROUND", 20)
    best, worst = rank(inspected, useless, timm_checkpoint).ranked
    assert (best.examples, worst.examples) == (len(inspected.data.train), 20)
    assert (worst.comparison, worst.is_as_good) == ("dropped early", False)


def test_the_second_round_does_not_read_features_of_the_first(
    inspected, timm_checkpoint, monkeypatch, tmp_path
):
    def parts_of_ten(count, batch_size):
        return [range(start, min(start + 10, count)) for start in range(0, count, 10)]

    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path))
    (expected,) = rank(inspected, timm_checkpoint).ranked
    monkeypatch.setattr(writer, "part_ranges", parts_of_ten)
    monkeypatch.setattr(choose, "FIRST_ROUND", 20)
    (entry,) = rank(inspected, timm_checkpoint).ranked
    assert entry.log_me == pytest.approx(expected.log_me, rel=1e-4)


def test_checkpoints_that_cannot_be_used_are_named(inspected, timm_checkpoint, bert_checkpoint):
    ranking = rank(inspected, timm_checkpoint, bert_checkpoint)
    assert [entry.model for entry in ranking.ranked] == [str(timm_checkpoint)]
    assert [*ranking.refused] == [str(bert_checkpoint)]
    with pytest.raises(InputError, match="cannot be ranked"):
        rank(inspected, bert_checkpoint)


def test_a_checkpoint_that_fails_does_not_end_the_ranking(inspected, timm_checkpoint, tmp_path):
    damaged, infinite = tmp_path / "damaged", tmp_path / "infinite"
    shutil.copytree(timm_checkpoint, damaged)
    (damaged / "model.safetensors").write_bytes(b"no weights")
    model = AutoModelForImageClassification.from_pretrained(timm_checkpoint)
    with torch.no_grad():
        next(model.parameters()).fill_(1e38)
    model.save_pretrained(infinite)
    ranking = rank(inspected, damaged, infinite, timm_checkpoint)
    assert [entry.model for entry in ranking.ranked] == [str(timm_checkpoint)]
    assert ranking.refused[str(damaged)].startswith("model.path must contain intact weight files.")
    assert ranking.refused[str(infinite)] == "model.path must have finite features for all examples."
    with pytest.raises(InputError, match=r"cannot be ranked: model.path must have .* examples\.$"):
        rank(inspected, infinite)


def test_classes_that_take_too_long_to_fit_are_refused(inspected, timm_checkpoint, monkeypatch):
    monkeypatch.setattr("hf_finetune.evaluation.linear_probe.MAX_WORK", 100)
    with pytest.raises(InputError, match=r": 24 examples x 96 features x 3 classes take too long to fit\.$"):
        rank(inspected, timm_checkpoint)


def test_texts_are_ranked_with_the_best_pooling(reviews, bert_checkpoint):
    (entry,) = rank(inspect_data(str(reviews)), bert_checkpoint).ranked
    assert entry.pooling
    assert entry.input_size.endswith("tokens")


def test_the_evidence_is_that_of_a_bayesian_regression():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 20))
    label = (features[:, 0] + rng.normal(size=200) > 0).astype(float)
    alpha = beta = 1.0
    values, gram = np.linalg.eigvalsh(features.T @ features), features.T @ features
    for _ in range(300):  # the fixed point of MacKay, with the full matrix
        precision = alpha * np.eye(20) + beta * gram
        mean = beta * np.linalg.solve(precision, features.T @ label)
        effective = (values * beta / (alpha + values * beta)).sum()
        alpha = effective / (mean @ mean)
        beta = (200 - effective) / np.square(features @ mean - label).sum()
    precision = alpha * np.eye(20) + beta * gram
    evidence = (
        200 * np.log(beta) + 20 * np.log(alpha) - 200 * np.log(2 * np.pi) - np.linalg.slogdet(precision)[1]
    )
    evidence -= beta * np.square(features @ mean - label).sum() + alpha * mean @ mean
    assert log_me(features, label[:, None]) == pytest.approx(evidence / 400, abs=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e-6, 1e6, 1e20])
def test_the_evidence_is_finite_for_features_of_any_scale(scale):
    rng = np.random.default_rng(0)
    for examples, size in ((3, 40), (10, 11), (40, 3)):
        features = scale * rng.normal(size=(examples, size))
        labels = np.eye(3)[rng.integers(0, 2, examples)]
        assert np.isfinite(log_me(features, labels))


def test_the_recommendation_is_the_fastest_of_the_best(squares, timm_checkpoint, useless):
    models = [str(useless), str(timm_checkpoint)]
    result = rank_candidates(str(squares), models, CandidateFilter())
    assert result.recommended.model == str(timm_checkpoint)
    assert yaml.safe_load(result.recipe_text)["model"] == str(timm_checkpoint)
    assert result.recommendation.endswith("the fastest that cannot be distinguished from the best.")
    with pytest.raises(InputError, match="--max-latency must allow a checkpoint"):
        rank_candidates(str(squares), models, CandidateFilter(), max_milliseconds=1e-9)


def test_the_revision_of_a_recipe_is_not_that_of_another_checkpoint(squares, tmp_path):
    model = "{path: a/model, revision: old}"
    stages = "[{train: head, epochs: 1, lr: 0.1}]"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"task: image-classification\nmodel: {model}\ndata: {squares}\nstages: {stages}\n")
    write = _read_source(str(recipe))[2]
    assert yaml.safe_load(write("a/model"))["model"]["revision"] == "old"
    assert yaml.safe_load(write("b/model"))["model"]["revision"] is None


def test_the_command_prints_a_table_and_writes_the_recipe(squares, timm_checkpoint, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    arguments = ["choose", str(squares), "--model", str(timm_checkpoint)]
    told = CliRunner().invoke(app, [*arguments, "--output", str(recipe)])
    assert told.exit_code == 0, told.output
    assert "without validation and test examples" in told.output
    header, row = told.stdout.splitlines()[:2]
    assert header.split()[0] == "checkpoint" and header.split()[-1] == "verdict"
    assert row.split()[-1] == "best"
    assert yaml.safe_load(recipe.read_text())["model"] == str(timm_checkpoint)
    from_recipe = CliRunner().invoke(app, ["choose", str(recipe), "--model", str(timm_checkpoint), "--json"])
    content = json.loads(from_recipe.stdout)
    assert content["recommended"] == str(timm_checkpoint)
    assert content["checkpoints"][0]["comparison"] == "best"


def test_an_output_that_exists_is_refused_before_the_ranking(squares, tmp_path):
    (tmp_path / "recipe.yaml").write_text("")
    arguments = [
        "choose",
        str(squares),
        "--model",
        "no/such/model",
        "--output",
        str(tmp_path / "recipe.yaml"),
    ]
    assert "recipe.yaml must not exist." in str(CliRunner().invoke(app, arguments).exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--license", "free"), "--license must be permissive. Got 'free'."),
        (
            ("--model", "a/model", "--max-params", "5"),
            "--model must not be set with --max-params, --license or",
        ),
        (("--max-params", "0.1"), "--model must be set, because no suitable candidate is on this machine."),
    ],
)
def test_invalid_options_are_refused(squares, arguments, message):
    told = CliRunner().invoke(app, ["choose", str(squares), *arguments])
    assert str(told.exception).startswith(message)


def test_a_fast_checkpoint_that_is_worse_is_recommended_as_such(
    squares, timm_checkpoint, useless, monkeypatch
):
    milliseconds = iter((1.0, 9.0))
    monkeypatch.setattr(frozen.FrozenNetwork, "milliseconds", lambda self: next(milliseconds))
    models = [str(useless), str(timm_checkpoint)]
    result = rank_candidates(str(squares), models, CandidateFilter(), max_milliseconds=5.0)
    assert result.recommended.model == str(useless)
    assert result.recommendation.endswith("the best within --max-latency, but worse than the best of all.")


@pytest.mark.parametrize(
    ("metric", "leader", "others", "dropped"),
    [
        ("accuracy", (0.8, 0.9), {"a": (0.7, 0.79), "b": (0.7, 0.81), "c": None}, ["a"]),
        ("rmse", (1.0, 2.0), {"a": (2.1, 3.0), "b": (1.9, 3.0), "c": None}, ["a"]),
    ],
)
def test_only_a_separate_interval_on_the_worse_side_drops_a_checkpoint(metric, leader, others, dropped):
    def scored(name, interval, value):
        entry = choose.RankedCheckpoint(name, 10, value, interval, 0.0, 1, 1.0, "", "")
        return choose._Scored(entry, None)

    best, worst = (1.0, 0.0) if metric == "accuracy" else (0.0, 1.0)
    all_scored = {"leader": scored("leader", leader, best)}
    all_scored |= {name: scored(name, interval, worst) for name, interval in others.items()}
    assert choose._clearly_worse(all_scored, metric) == dropped


def test_without_time_for_the_second_round_the_first_one_counts(
    squares, timm_checkpoint, useless, monkeypatch
):
    """Scores of different examples cannot be compared, so that no checkpoint has those of the second round."""
    data, _, write = _read_source(str(squares))
    monkeypatch.setattr(choose, "FIRST_ROUND", 10)
    monkeypatch.setattr(choose, "_clearly_worse", lambda scored, metric: [])
    times = iter((1.0, 1.0, 1.0, 1e9))
    monkeypatch.setattr(frozen.FrozenNetwork, "milliseconds", lambda self: next(times))
    models = [str(timm_checkpoint), str(useless)]
    ranking = choose_checkpoint(
        models, lambda model: parse_recipe(yaml.safe_load(write(model))), data, deadline=perf_counter() + 1000
    )
    assert {entry.model: entry.examples for entry in ranking.ranked} == dict.fromkeys(models, 10)
    assert ranking.refused == {}


def test_a_checkpoint_that_would_take_too_long_is_not_ranked(squares, timm_checkpoint, useless, monkeypatch):
    data, _, write = _read_source(str(squares))
    times = iter((1e9, 1e9))
    monkeypatch.setattr(frozen.FrozenNetwork, "milliseconds", lambda self: next(times))
    ranking = choose_checkpoint(
        [str(timm_checkpoint), str(useless)],
        lambda model: parse_recipe(yaml.safe_load(write(model))),
        data,
        deadline=perf_counter() + 1000,
    )
    assert [entry.model for entry in ranking.ranked] == [str(timm_checkpoint)]
    assert ranking.refused == {str(useless): choose.NO_TIME}

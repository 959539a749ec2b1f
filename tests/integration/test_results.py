"""Results of a run: intervals, baselines, calibration, folds; and the test split is used at the end only."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from run_helpers import Stop, changed, metrics_of, quick_run, refusal, tiny_text_recipe, weights_of
from transformers import pipeline

from hf_finetune.cache.cache_dir import list_cache
from hf_finetune.data.recipe_data import load_data
from hf_finetune.evaluation.compare import compare_runs
from hf_finetune.evaluation.predict import predict
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.recipe.load import load_recipe, parse_recipe


def with_evaluation(recipe, **fields):
    content = recipe.model_dump(mode="json")
    content["evaluation"].update(fields)
    return parse_recipe(content)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_primary_metrics_have_intervals_and_baselines(request, kind):
    content = metrics_of(request.getfixturevalue(f"{kind}_run")[1].folder)
    for name in ("accuracy", "f1_macro"):
        low, high = content["test_interval"][name]
        assert low <= content["test"][name] <= high
        without_checkpoint = {"tf_idf"} if kind == "text" else set()
        assert set(content["baselines"]) == {"majority", "linear_probe"} | without_checkpoint
        assert all(0 <= each[name] <= 1 for each in content["baselines"].values())
    assert 0 <= content["test_calibration"]["ece"] <= 1
    assert sum(each["count"] for each in content["test_calibration"]["bins"]) > 0
    before, after = (content["calibration"]["validation"][when]["log_loss"] for when in ("before", "after"))
    assert after <= before + 1e-6 and content["calibration"]["applied"] is None


def test_the_baseline_uses_the_cache_of_a_stage(tmp_path, image_recipe, monkeypatch):
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "cache"))
    content = image_recipe(evaluation={}).model_dump(mode="json")
    content["data"]["augment"] = "none"
    content["speed"]["prefix_cache"] = {"views": 1}
    content["stages"] = content["stages"][:1]
    recipe = parse_recipe(content)
    quick_run(recipe, tmp_path / "run")
    data = load_data(recipe)
    counts = [len(split) for split in (data.train, data.validation, data.test)]
    assert sorted(entry.examples for entry in list_cache(tmp_path / "cache")) == sorted(counts)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_calibrated_model_gives_calibrated_probabilities_in_any_library(request, tmp_path, kind):
    recipe, plain = request.getfixturevalue(f"{kind}_run")
    done = quick_run(with_evaluation(recipe, calibrate=True), tmp_path / "run")
    content = metrics_of(done.folder)
    temperature = content["calibration"]["temperature"]
    assert content["calibration"]["applied"] == "head"
    assert content["test"]["accuracy"] == metrics_of(plain.folder)["test"]["accuracy"]
    before, after = (
        read_predictions(folder / "predictions.parquet") for folder in (plain.folder, done.folder)
    )
    again = np.log(before.scores) / temperature
    again = np.exp(again) / np.exp(again).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after.scores, again, rtol=1e-4)
    moved = changed(weights_of(plain.folder), weights_of(done.folder))
    assert len({name.rpartition(".")[0] for name in moved}) == 1


def test_thresholds_are_chosen_on_validation_and_heeded_by_predict(tmp_path, bert_checkpoint):
    lines = [
        json.dumps({"text": f"the {' '.join(words)} film {index}", "label": words})
        for index in range(60)
        for words in [[word for word, number in (("good", 2), ("bad", 3)) if index % number == 0]]
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = tiny_text_recipe(tmp_path / "rows.jsonl", bert_checkpoint)
    done = quick_run(with_evaluation(recipe, thresholds=True), tmp_path / "run")
    content = metrics_of(done.folder)
    config = json.loads((done.folder / "model" / "config.json").read_text(encoding="utf-8"))
    assert list(content["thresholds"].values()) == config["decision_thresholds"]
    assert set(content["thresholds"]) == {"good", "bad"}
    pipe = pipeline("text-classification", model=str(done.folder / "model"), top_k=None)
    (plain,) = pipe(["the good film"])
    (heeding,) = predict(str(done.folder / "model"), ["the good film"])
    likely = {each["label"]: each["score"] for each in plain}
    above = {name for name, score in likely.items() if score >= content["thresholds"][name]}
    assert set(heeding.label) == above


def tagged_texts(path):
    """Write texts with 0 to 3 of three labels, each of which is a word of the text."""
    lines = [
        json.dumps({"text": f"the {' '.join(words)} film {index}", "label": words})
        for index in range(60)
        for words in [
            [word for word, number in (("good", 2), ("bad", 3), ("long", 5)) if index % number == 0]
        ]
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_most_probable_classes_are_decided_by_run_predict_and_baselines(tmp_path, bert_checkpoint):
    recipe = tiny_text_recipe(tagged_texts(tmp_path / "rows.jsonl"), bert_checkpoint)
    recipe = with_evaluation(recipe, top_k=2, linear_probe=10_000)
    done = quick_run(recipe.model_copy(update={"metrics": ("precision_at_2", "jaccard")}), tmp_path / "run")
    content = metrics_of(done.folder)
    assert content["test"]["precision_micro"] == pytest.approx(content["test"]["precision_at_2"])
    tables = [done.folder / "predictions.parquet", *(done.folder / "baselines").glob("*.parquet")]
    assert {path.stem for path in tables} == {
        *("predictions", "majority", "tf_idf", "nearest_neighbors", "linear_probe")
    }
    for path in tables:
        assert {len(row) for row in pq.read_table(path)["prediction"].to_pylist()} == {2}, path.stem
    config = json.loads((done.folder / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["decision_top_k"] == 2
    comparison = compare_runs([done.folder, done.folder / "baselines" / "tf_idf.parquet"], ["jaccard"])
    (difference,) = comparison[0].differences
    expected = content["baseline_differences"]["tf_idf"]["jaccard"]["difference"]
    assert difference.value - difference.first == pytest.approx(-expected)
    assert "predicts the 2 most probable classes" in (done.folder / "model" / "README.md").read_text("utf-8")
    assert "The 2 most probable classes are predicted" in (done.folder / "report.html").read_text("utf-8")
    pipe = pipeline("text-classification", model=str(done.folder / "model"), top_k=2)
    (plain,) = pipe(["the good film"])
    (heeding,) = predict(str(done.folder / "model"), ["the good film"])
    assert set(heeding.label) == {each["label"] for each in plain}
    for stage in content["stages"]:
        assert "jaccard" in stage["validation"]


def test_a_common_threshold_is_one_number_for_all_classes(tmp_path, bert_checkpoint):
    recipe = tiny_text_recipe(tagged_texts(tmp_path / "rows.jsonl"), bert_checkpoint)
    done = quick_run(with_evaluation(recipe, thresholds="common"), tmp_path / "run")
    thresholds = metrics_of(done.folder)["thresholds"]
    assert set(thresholds) == {"good", "bad", "long"} and len(set(thresholds.values())) == 1


def test_the_test_split_is_not_looked_at_before_the_end(tmp_path, text_recipe, monkeypatch):
    """Other test labels change the test metrics, but no training, choice or fit."""
    from hf_finetune.runs import run as run_module

    real = run_module.prepare_run

    def turned(*args, **kwargs):
        prepared = real(*args, **kwargs)
        test = prepared.data.test
        other = test.remove_columns("label").add_column(
            "label", [1 - label for label in test["label"]], feature=test.features["label"]
        )
        return replace(prepared, data=replace(prepared.data, test=other))

    recipe = with_evaluation(text_recipe(), calibrate=True)
    quick_run(recipe, tmp_path / "one")
    monkeypatch.setattr(run_module, "prepare_run", turned)
    quick_run(recipe, tmp_path / "other")
    assert changed(weights_of(tmp_path / "one"), weights_of(tmp_path / "other")) == set()
    one, other = metrics_of(tmp_path / "one"), metrics_of(tmp_path / "other")
    assert one["calibration"] == other["calibration"] and one["test"] != other["test"]
    for before, after in zip(one["stages"], other["stages"], strict=True):
        assert before["validation"] == after["validation"] and before["best_step"] == after["best_step"]


def test_folds_are_run_and_summarized(tmp_path, text_recipe):
    done = quick_run(with_evaluation(text_recipe(), folds=3), tmp_path / "run")
    found = metrics_of(done.folder)["cross_validation"]
    parts = [metrics_of(tmp_path / "run" / "folds" / f"{number}-of-3") for number in (1, 2, 3)]
    values = [part["test"]["accuracy"] for part in parts]
    assert found["folds"] == 3 and found["metrics"]["accuracy"]["values"] == values
    assert found["metrics"]["accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert found["metrics"]["accuracy"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert not (tmp_path / "run" / "folds" / "1-of-3" / "model").exists()
    ids = [
        read_predictions(tmp_path / "run" / "folds" / f"{number}-of-3" / "predictions.parquet").ids
        for number in (1, 2, 3)
    ]
    assert len(set().union(*ids)) == sum(map(len, ids))


@pytest.mark.parametrize("kind", ["image", "text"])
def test_interrupted_folds_end_the_same(tmp_path, request, kind):
    recipe = with_evaluation(request.getfixturevalue(f"{kind}_recipe")(), folds=2)
    quick_run(recipe, tmp_path / "through")
    with pytest.raises(KeyboardInterrupt):
        quick_run(recipe, tmp_path / "run", callbacks=[StopInFold("1-of-2", "all", 3)])
    quick_run(recipe, tmp_path / "run", resume=True)
    one, other = metrics_of(tmp_path / "through"), metrics_of(tmp_path / "run")
    assert one["cross_validation"] == other["cross_validation"] and one["test"] == other["test"]


class StopInFold(Stop):
    """Stop at a step of a stage of a fold."""

    def __init__(self, fold, stage, step):
        super().__init__(stage, step, "ctrl-c")
        self.fold = fold

    def happens(self, moment, args, state):
        return f"/{self.fold}/" in args.output_dir and super().happens(moment, args, state)


def test_a_fold_can_be_run_on_its_own(tmp_path, text_recipe):
    quick_run(with_evaluation(text_recipe(), folds=2), tmp_path / "run")
    place = tmp_path / "run" / "folds" / "2-of-2"
    quick_run(load_recipe(place / "recipe.yaml"), tmp_path / "alone")
    assert metrics_of(tmp_path / "alone")["test"] == metrics_of(place)["test"]


def test_folds_share_cached_outputs_of_frozen_layers(tmp_path, image_recipe, monkeypatch):
    monkeypatch.setenv("HF_FINETUNE_CACHE", str(tmp_path / "cache"))
    content = image_recipe().model_dump(mode="json")
    content["speed"]["prefix_cache"] = {"views": 1}
    content["evaluation"].update(folds=2)
    content["stages"] = content["stages"][:1]
    quick_run(parse_recipe(content), tmp_path / "run")
    # training and validation examples of the run, and for both folds all examples, augmented and not
    assert len(list_cache(tmp_path / "cache")) == 4
    used = [
        metrics_of(tmp_path / "run" / "folds" / f"{n}-of-2")["stages"][0]["prefix_cache"]["used"]
        for n in (1, 2)
    ]
    assert used == [True, True]


def test_curves_are_shown_live(tmp_path, text_recipe):
    """TensorBoard writes next to the stage's log, and the training does not depend on it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    quick_run(text_recipe(), tmp_path / "quiet")
    quick_run(text_recipe(track=["tensorboard"]), tmp_path / "shown")
    assert changed(weights_of(tmp_path / "quiet"), weights_of(tmp_path / "shown")) == set()
    assert not list((tmp_path / "quiet").rglob("events.*"))
    for stage in ("01-head", "02-all"):
        (events,) = (tmp_path / "shown" / "stages" / stage).rglob("events.*")
        shown = EventAccumulator(str(events.parent)).Reload()
        logged = [
            json.loads(line)
            for line in (tmp_path / "shown" / "stages" / stage / "log.jsonl").read_text().splitlines()
        ]
        losses = [each["loss"] for each in logged if "loss" in each]
        assert [each.value for each in shown.Scalars("train/loss")] == pytest.approx(losses)
        assert [each.step for each in shown.Scalars("eval/loss")] == [0, 4, 8]


def test_a_missing_tracker_is_reported(tmp_path, text_recipe):
    told = refusal(lambda: quick_run(text_recipe(track=["tensorbord"]), tmp_path / "run"))
    assert told.startswith("track[0] must be an installed tracker. Got 'tensorbord'. Installed: ")
    assert not (tmp_path / "run").exists()

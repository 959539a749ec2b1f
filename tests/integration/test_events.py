"""Histories of events from a table with one row per event to predictions: a new model, baselines, and what is refused."""

# ruff: noqa: E501 (error texts are tested whole)

import csv
import json
import random
from datetime import date, timedelta

import pytest
import transformers
from run_helpers import Stop, changed, interrupt, quick_run, weights_of

from hf_finetune.data.recipe_data import load_data
from hf_finetune.errors import InputError
from hf_finetune.evaluation.evaluate_run import evaluate
from hf_finetune.evaluation.predict import predict
from hf_finetune.recipe.load import dump_recipe, load_recipe, parse_recipe
from hf_finetune.report.page import write_report
from hf_finetune.runs.prepare import plan_stages

START, SPLIT = date(2024, 1, 1), "2024-07-01"
STAGE = {"name": "all", "train": "all", "epochs": 4.0, "lr": 3e-3, "batch_size": 16}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_FINETUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def purchases(tmp_path_factory):
    """Write a year of purchases: some customers buy often, others once; and views, which do not count."""
    path, chance = tmp_path_factory.mktemp("events") / "purchases.csv", random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["client", "date", "what", "price"])
        for number in range(150):
            day, often = chance.randint(0, 60), number % 2 == 0
            while day < 330:
                rows.writerow([f"c{number}", START + timedelta(day), "buy", chance.randint(1, 90)])
                day += chance.randint(5, 40) if often else chance.randint(150, 400)
            rows.writerow([f"c{number}", START + timedelta(chance.randint(61, 365)), "view", ""])
    return path


def recipe(path, **changes):
    content = {
        "task": "event-classification",
        "model": {"new": {"layers": 1, "hidden": 32}},
        "data": {
            "path": str(path),
            "columns": {"customer": "client", "time": "date", "kind": "what", "amount": "price"},
            "outcome": {"weeks": 8, "kind": "buy"},
            "buckets": 4,
            "split": {"time": SPLIT, "validation": 0.2},
        },
        "stages": [STAGE],
        "metrics": ["roc_auc", "log_loss"],
    }
    return parse_recipe({**content, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory, purchases):
    return quick_run(recipe(purchases), tmp_path_factory.mktemp("run") / "run")


def test_it_learns_who_buys_and_is_compared_with_simple_models(finished):
    assert finished.metrics["test"]["roc_auc"] > 0.85
    assert list(finished.metrics["baselines"]) == ["majority", "rfm", "rfm_boosting"]
    assert finished.metrics["baselines"]["rfm"]["roc_auc"] > 0.9
    assert finished.metrics["baselines"]["rfm_boosting"]["roc_auc"] > 0.9


def test_the_report_and_the_card_say_that_nothing_is_pretrained(finished):
    page = write_report(finished.folder).read_text(encoding="utf-8")
    assert "a new model of 1 layers and hidden size 32" in page
    assert "Nothing is pretrained here: the model began with random weights." in page
    assert "recency, frequency and amount (logistic regression)" in page
    assert "recency, frequency and amount (gradient boosting)" in page
    card = (finished.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "base_model" not in card and "pipeline_tag: text-classification" in card
    assert "A new model of 1 layers and hidden size 32, trained for event-classification" in card
    assert "Nothing is pretrained here" in card


def test_the_plan_says_so_too(purchases):
    notes = plan_stages(recipe(purchases)).notes
    assert any(note.startswith("Nothing is pretrained: the model has random weights") for note in notes)


def test_the_recipe_of_the_run_names_no_folder_of_the_cache(finished):
    loaded = load_recipe(finished.folder / "recipe.yaml")
    assert loaded.model.path == "" and loaded.model.new.layers == 1
    assert "new-model-" not in dump_recipe(loaded)


def test_no_training_label_is_from_after_the_date_of_the_test(purchases):
    data = load_data(recipe(purchases))
    events = list(csv.reader(purchases.open(encoding="utf-8")))[1:]
    bought = {
        (client, time) for client, time, kind, _ in events if kind == "buy" and "2024-05-06" <= time < SPLIT
    }
    buyers = {client for client, _ in bought}
    known = {client for client, time, _, _ in events if time < "2024-05-06"}
    labels = [*data.train["label"], *data.validation["label"]]
    assert len(labels) == len(known) and sum(labels) == len(buyers & known)


def test_plain_transformers_reads_the_text_form(finished):
    pipe = transformers.pipeline("text-classification", model=str(finished.folder / "model"))
    often = "since=2 buy amount=10 gap=10 buy amount=12 gap=20 buy amount=80 gap=9 buy amount=1"
    once = "since=120 buy amount=10"
    scores = [
        {entry["label"]: entry["score"] for entry in pipe(text, top_k=None)}["yes"] for text in (often, once)
    ]
    assert scores[0] > scores[1]


def test_rows_of_events_are_predicted_per_customer(finished, purchases, tmp_path):
    predictions = list(predict(finished.folder, [str(purchases)]))
    assert {prediction.id for prediction in predictions} == {f"c{number}" for number in range(150)}
    assert {prediction.label for prediction in predictions} == {"no", "yes"}
    lists = tmp_path / "lists.jsonl"
    rows = [
        {"id": "a", "events": [{"kind": "buy", "days": 3, "amount": 20}, {"kind": "buy", "days": 1}]},
        {"id": "b", "events": "since=200 buy"},
        {"id": "c", "events": "since=never"},
    ]
    lists.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    first, second, third = predict(finished.folder, [str(lists)])
    assert (first.id, first.error, second.error) == ("a", None, None)
    assert third.error == "The history is one whose since is no number: 'never'."


def test_it_is_evaluated_again(finished):
    again = evaluate(finished.folder)
    assert again.metrics["roc_auc"] == pytest.approx(finished.metrics["test"]["roc_auc"])


def test_an_interrupted_run_is_resumed_bit_for_bit(tmp_path, purchases, finished):
    folder = tmp_path / "run"
    interrupt(recipe(purchases), folder, Stop("all", 10, "begin"))
    quick_run(recipe(purchases), folder, resume=True)
    assert changed(weights_of(folder), weights_of(finished.folder)) == set()


def test_a_model_of_a_run_is_trained_further(tmp_path, purchases, finished):
    result = quick_run(
        recipe(purchases, model=str(finished.folder / "model"), stages=[{**STAGE, "epochs": 1.0}]),
        tmp_path / "run",
    )
    assert result.metrics["test"]["roc_auc"] > 0.85
    assert "linear_probe" in result.metrics["baselines"]


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"model": {}}, ["model.path must be set. Checkpoint: a Hub id (timm/... for timm's) or a local folder; required unless new is set."]),
        ({"model": {"new": {}, "path": "p"}}, ["model must not have both path and new. Got 'p'. Remove path, or set new to null."]),
        ({"model": {"new": {"hidden": 40}}}, ["model.new.hidden must be a multiple of 16. Got 40."]),
        ({"model": {"new": {}, "revision": "main"}}, ["model.revision must not be set when model.new is set. Got 'main'."]),
        ({"task": "text-classification", "data": "d"}, ["model.new must not be set when the task is text-classification. Only models for histories, histories of items, windows of time series are built without a checkpoint."]),
    ],
)  # fmt: skip
def test_an_invalid_recipe_is_an_error(purchases, changes, messages):
    with pytest.raises(InputError) as caught:
        recipe(purchases, **changes)
    assert [str(problem) for problem in caught.value.problems] == messages


def test_a_label_is_computed_from_rows_only(purchases):
    with pytest.raises(InputError) as caught:
        load_data(recipe(purchases, data={"path": str(purchases), "outcome": 8}))
    assert [str(problem) for problem in caught.value.problems] == [
        "data.columns.customer must be set with data.outcome: a label is computed from a table with one row per event."
    ]

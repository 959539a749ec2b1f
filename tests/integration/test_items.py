"""Recommendation from a table with one row per event to predictions: a new model, baselines, and what is refused."""

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
from hf_finetune.publishing.space import write_space
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.report.page import write_report

START, SPLIT = date(2024, 1, 1), "2024-03-01"
ITEMS = [f"film {number}" for number in range(12)]
STAGE = {
    "name": "all",
    "train": "all",
    "epochs": 60.0,
    "lr": 4e-3,
    "warmup": 0.1,
    "batch_size": 16,
    "best": {"metric": "loss"},
}
BASELINES = ["majority", "popularity", "markov_chain", "item_knn", "ease"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_FINETUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    """Write views of films: each customer watches them in their order, from a random one on; one film is new in March."""
    path, chance = tmp_path_factory.mktemp("items") / "views.csv", random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["who", "date", "film"])
        for number in range(240):
            first, late = chance.randrange(12), number % 2 * 60
            for place in range(chance.randint(4, 7)):
                film = ITEMS[(first + place) % 12]
                rows.writerow([f"c{number}", START + timedelta(late + place), film])
        rows.writerow(["c1", START + timedelta(90), "a new film"])
    return path


def recipe(path, **changes):
    content = {
        "task": "next-item",
        "model": {"new": {"layers": 1, "hidden": 32}},
        "data": {
            "path": str(path),
            "columns": {"customer": "who", "time": "date", "item": "film"},
            "max_items": 8,
            "exclude_seen": True,
            "split": {"time": SPLIT},
        },
        "stages": [STAGE],
        "metrics": ["hit_rate_at_1", "ndcg_at_5", "mrr"],
        "evaluation": {"slices": ["new_item"]},
    }
    return parse_recipe({**content, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory, views):
    return quick_run(recipe(views), tmp_path_factory.mktemp("run") / "run")


def test_it_learns_the_order_and_is_compared_with_other_recommenders(finished):
    test, baselines = finished.metrics["test"], finished.metrics["baselines"]
    assert list(baselines) == BASELINES
    assert test["hit_rate_at_1"] > 0.7 > 0.5 > baselines["popularity"]["hit_rate_at_1"]
    assert baselines["markov_chain"]["hit_rate_at_1"] > 0.85


def test_new_items_are_reported_apart_and_count_as_misses(finished):
    slices = {row["name"]: row for row in finished.metrics["slices"]["new_item"]["slices"]}
    assert slices["yes"]["examples"] == 1 and slices["yes"]["metrics"]["hit_rate_at_1"] == 0
    assert slices["no"]["metrics"]["hit_rate_at_1"] > finished.metrics["test"]["hit_rate_at_1"]


def test_the_report_and_the_card_name_the_recommenders(finished):
    page = write_report(finished.folder).read_text(encoding="utf-8")
    for title in ("popularity", "Markov chain", "nearest items (kNN)", "linear model of items (EASE)"):
        assert title in page
    card = (finished.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: fill-mask" in card and "item-3 item-7 [MASK]" in card


def test_no_training_item_is_from_after_the_date(views):
    data = load_data(recipe(views))
    early = [row for row in csv.reader(views.open(encoding="utf-8")) if row[1] < SPLIT]
    words = sum(len(text.split()) + 1 for text in data.train["items"])
    assert words == len(early) - len(data.validation)
    assert [len(set(data.test["id"])), len(data.test)] == [120, 120]


def test_plain_transformers_predicts_the_same(finished):
    pipe = transformers.pipeline("fill-mask", model=str(finished.folder / "model"), top_k=13)
    history = ["film_3", "film_4", "film_5"]
    answer = {entry["token_str"]: entry["score"] for entry in pipe(f"{' '.join(history)} [MASK]")}
    (prediction,) = predict(finished.folder, [" ".join(history)])
    unseen = {name: answer.get(name, 0.0) for name in prediction.scores if name not in history}
    assert prediction.label == max(unseen, key=unseen.get) == "film_6"
    total = sum(unseen.values())
    for name, score in unseen.items():
        assert prediction.scores[name] == pytest.approx(score / total, abs=1e-6)
    assert all(prediction.scores[name] < 1e-12 for name in (*history, "a_new_film"))


def test_rows_of_events_are_predicted_per_customer(finished, views, tmp_path):
    predictions = list(predict(finished.folder, [str(views)]))
    assert {prediction.id for prediction in predictions} == {f"c{number}" for number in range(240)}
    lists = tmp_path / "lists.jsonl"
    rows = [
        {"id": "a", "items": ["film 1", "film 2"]},
        {"id": "b", "items": "film_7 film_8"},
        {"id": "c", "items": []},
    ]
    lists.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    first, second, third = predict(finished.folder, [str(lists)])
    assert (first.id, first.label, second.label) == ("a", "film_3", "film_9")
    assert third.error == "The history is empty."


def test_it_is_evaluated_again(finished):
    again = evaluate(finished.folder)
    assert again.metrics["mrr"] == pytest.approx(finished.metrics["test"]["mrr"])


def test_an_interrupted_run_is_resumed_bit_for_bit(tmp_path, views, finished):
    folder = tmp_path / "run"
    interrupt(recipe(views), folder, Stop("all", 10, "begin"))
    quick_run(recipe(views), folder, resume=True)
    assert changed(weights_of(folder), weights_of(finished.folder)) == set()


def test_a_model_of_a_run_is_trained_further(tmp_path, views, finished):
    result = quick_run(
        recipe(views, model=str(finished.folder / "model"), stages=[{**STAGE, "epochs": 1.0}]),
        tmp_path / "run",
    )
    assert result.metrics["stages"][0]["start"]["hit_rate_at_1"] > 0.7


def test_a_space_is_refused(tmp_path, finished):
    with pytest.raises(InputError) as caught:
        write_space(finished.folder, tmp_path / "space")
    assert [str(problem) for problem in caught.value.problems] == [
        "--space is not supported for next-item models: the page shows the labels of a head."
    ]


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"model": {"new": {}, "head": "mlp"}}, ["model.head must not be set when the task is next-item, whose models have no head of the labels. Got 'mlp'."]),
        ({"stages": [{**STAGE, "balance": "class_weights"}]}, ["stages[0].balance must not be set when the task is next-item, whose models have no head of the labels. Got 'class_weights'."]),
        ({"stages": [{**STAGE, "regularize": {"r_drop": 1.0}}]}, ["stages[0].regularize.r_drop must not be set when the task is next-item, whose models have no head of the labels. Got 1.0."]),
    ],
)  # fmt: skip
def test_an_invalid_recipe_is_an_error(views, changes, messages):
    with pytest.raises(InputError) as caught:
        recipe(views, **changes)
    assert [str(problem) for problem in caught.value.problems] == messages


def test_other_label_types_are_refused(views, tmp_path):
    rows = [{"items": "a b", "label": ["c"]}, {"items": "b c", "label": ["a"]}] * 20
    table = tmp_path / "table.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    other = {"data": {"path": str(table), "target": "multi_label"}, "evaluation": {}, "metrics": []}
    with pytest.raises(InputError) as caught:
        recipe(views, **other)
    assert [str(problem) for problem in caught.value.problems] == [
        "data.target must be single_label when the task is next-item. Got 'multi_label'."
    ]

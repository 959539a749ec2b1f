"""Queries with candidates: their columns, groups, inputs as pairs and lists, and the model that scores them."""

import json
import math
import random

import pytest
import torch
import transformers
from datasets import Dataset, List, Value
from run_helpers import Stop, assert_equal_runs, interrupt, quick_run

from hf_finetune.data.model_inputs import prepare_inputs
from hf_finetune.data.recipe_data import load_data
from hf_finetune.doctor.check_suite import check_suites, run_check
from hf_finetune.errors import InputError
from hf_finetune.evaluation.predict import predict
from hf_finetune.recipe.load import load_recipe, parse_recipe
from hf_finetune.runs.prepare import plan_stages
from hf_finetune.runs.preview import preview
from hf_finetune.search.inspect_data import inspect_data
from hf_finetune.tasks import MODALITIES, TASKS
from hf_finetune.tasks.examples import ExampleError
from hf_finetune.tasks.ranking.inputs import prepare_pairs, rows_of_queries
from hf_finetune.tasks.seeded_augmentation import set_epoch

MODALITY = MODALITIES["ranking"]
WORDS = ("good", "great", "fine", "bad", "poor", "dull")
QUERIES = 10


def rows_of(queries=QUERIES, candidates=5, grade=1):
    """Return pairs in which the candidate that repeats the query is relevant."""
    rng = random.Random(0)
    rows = []
    for number in range(queries):
        query = f"{WORDS[number % 6]} {number}"
        for place in range(candidates):
            text = query if place == number % candidates else " ".join(rng.choices(WORDS, k=2))
            rows.append({"query": query, "candidate": text, "label": grade * int(text == query)})
    return rows


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    MODALITY.save_tiny_checkpoint(folder)
    return folder


@pytest.fixture
def recipe(tmp_path, checkpoint):
    """Return a function of rows and fields of ``data`` that returns a recipe."""

    def build(rows=None, stages=None, **fields):
        table = tmp_path / "pairs.jsonl"
        table.write_text("".join(f"{json.dumps(row)}\n" for row in rows or rows_of()), encoding="utf-8")
        data = {"path": str(table), "split": {"validation": 0.2, "test": 0.2}, **fields}
        stage = {"name": "all", "train": "all", "epochs": 2.0, "batch_size": 2, "lr": 0.01}
        content = {"task": "text-ranking", "model": str(checkpoint), "data": data}
        return parse_recipe({**content, "stages": stages or [stage]})

    return build


def tokenizer_of(checkpoint):
    return transformers.AutoTokenizer.from_pretrained(checkpoint)


def split_of(rows):
    return Dataset.from_list([{**row, "label": float(row["label"])} for row in rows])


class Splits:
    def __init__(self, train, validation=None):
        self.train, self.validation = train, validation


# --- Data ------------------------------------------------------------------------------------------


def test_the_pairs_of_a_query_stay_in_one_split(recipe):
    data = load_data(recipe())
    queries = [set(split["query"][:]) for split in (data.train, data.validation, data.test)]
    assert data.target == "relevance"
    assert [len(names) for names in queries] == [6, 2, 2]
    assert len(set().union(*queries)) == QUERIES
    assert data.test["group:query"][:] == data.test["query"][:]


def test_other_groups_than_the_queries_are_refused(recipe):
    rows = [{**row, "shop": "a"} for row in rows_of()]
    with pytest.raises(InputError) as error:
        load_data(recipe(rows, split={"validation": 0.2, "group": "shop"}))
    assert str(error.value) == (
        "data.split.group must be the column of data.columns.query, 'query', or null. Got 'shop'."
    )


def test_a_query_in_two_splits_is_refused(tmp_path, recipe):
    folder = tmp_path / "splits"
    folder.mkdir()
    for name in ("train", "test"):
        rows = [{**row, "candidate": f"{row['candidate']} {name}"} for row in rows_of(2)]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_data(recipe(path=str(folder), split={"validation": 0}))
    assert str(error.value) == (
        "The data must not have the same group in train and test. Got 'good 0', 'great 1'. "
        "Remove those rows from train."
    )


def test_lists_of_candidates_are_split_into_pairs(recipe):
    pairs = rows_of()
    by_query = {}
    for row in pairs:
        entry = by_query.setdefault(row["query"], {"query": row["query"], "texts": [], "labels": []})
        entry["texts"].append(row["candidate"])
        entry["labels"].append(row["label"])
    data, expected = load_data(recipe(list(by_query.values()))), load_data(recipe(pairs))
    assert data.train["candidate"][:] == expected.train["candidate"][:]
    assert data.train["label"][:] == expected.train["label"][:]
    assert "10 queries of train with lists: 50 pairs." in data.notes


def test_a_list_without_a_label_for_each_candidate_is_refused(recipe):
    rows = [{"query": "good", "candidates": ["bad", "poor"], "labels": [1]}]
    with pytest.raises(InputError) as error:
        load_data(recipe(rows))
    assert str(error.value) == (
        "data.columns.label must be a list with a label for each candidate. "
        "Got 1 label for 2 candidates in train:0."
    )


def test_columns_are_found_by_their_usual_names():
    features = {name: Value("string") for name in ("id", "question", "passage", "source")}
    found, problems = MODALITY.find_columns(features, {}, [])
    assert (found, problems) == ({"query": "question", "candidate": "passage"}, [])
    lists = {"query": Value("string"), "docs": List(Value("string"))}
    assert MODALITY.find_columns(lists, {}, [])[0] == {"query": "query", "candidate": "docs"}


def test_a_prediction_needs_both_texts():
    assert MODALITY.read_example({"query": "a", "candidate": "b"})[0] == {"text": "a", "text_pair": "b"}
    for cells in ({"query": "a"}, {"query": " ", "candidate": "b"}, {"query": "a", "candidate": ["b"]}):
        with pytest.raises(ExampleError):
            MODALITY.read_example(cells)


# --- Inputs -----------------------------------------------------------------------------------------


def test_pairs_have_the_label_and_its_share_of_the_highest_one(recipe, checkpoint):
    splits = Splits(split_of(rows_of(grade=4)), split_of(rows_of(1, grade=8)))
    inputs = prepare_pairs(splits, tokenizer_of(checkpoint), recipe().data, 0)
    assert len(inputs.train) == 50
    assert inputs.train[0]["labels"] == [4.0, 1.0]
    assert inputs.train[1]["labels"] == [0.0, 0.0]
    assert inputs.validation[0]["labels"] == [8.0, 1.0]
    batch = inputs.collate([inputs.train[0], inputs.train[1]])
    assert batch["labels"].tolist() == [[4.0, 1.0], [0.0, 0.0]]


def test_lists_hold_all_candidates_of_short_queries_in_their_order(recipe, checkpoint):
    rows = [*rows_of(2, 3), {"query": "x", "candidate": "bad", "label": 1}]
    inputs = prepare_pairs(Splits(split_of(rows)), tokenizer_of(checkpoint), recipe(list_size=4).data, 0)
    assert inputs.rows == [[0, 1, 2], [3, 4, 5], [6]]
    batch = inputs.collate([inputs.train[0], inputs.train[2]])
    assert batch["input_ids"].shape[0] == 6
    assert batch["labels"].shape == (2, 3, 2)
    assert batch["labels"][0, :, 0].tolist() == [1, 0, 0]
    assert batch["labels"][1, :, 1].isnan().tolist() == [False, True, True]


def test_lists_draw_other_candidates_in_each_epoch_but_always_a_relevant_one(recipe, checkpoint):
    data = recipe(list_size=3).data
    train = split_of(rows_of(2, 12))
    drawn = []
    for seed in (0, 0, 1):
        inputs = prepare_pairs(Splits(train), tokenizer_of(checkpoint), data, seed)
        epochs = []
        for epoch in range(4):
            set_epoch(inputs.train, epoch)
            epochs.append(inputs.train[0])
        drawn.append(epochs)
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({str(example["input_ids"]) for example in drawn[0]}) > 1
    for example in drawn[0]:
        assert len(example["labels"]) == 3
        assert [1.0, 1.0] in example["labels"]


def test_the_folds_of_lists_are_those_of_their_rows(recipe, checkpoint):
    content = recipe(list_size=3, split={"validation": 0, "test": 0.2, "fold": "1/4"})
    data = load_data(content)
    processor = tokenizer_of(checkpoint)
    inputs = prepare_inputs(TASKS["text-ranking"], data, processor, content.data, 0)
    rows = rows_of_queries(data.train)
    assert len(inputs.train) == len(rows) < len(rows_of_queries(data.pool.dataset))
    tokens = {tuple(map(tuple, example["input_ids"])) for example in inputs.train}
    assert len(tokens) == len(rows)
    for example, query in zip(inputs.train, dict.fromkeys(data.train["query"][:]), strict=True):
        assert processor.decode(example["input_ids"][0]).startswith(f"[CLS] {query.split()[0]}")


def test_weights_are_refused(recipe):
    rows = [{**row, "times": 2} for row in rows_of()]
    content = recipe(rows, columns={"weight": "times"})
    with pytest.raises(InputError, match="weight must not be set"):
        plan_stages(content)


# --- Runs -------------------------------------------------------------------------------------------


def listwise_stages():
    common = {"epochs": 3.0, "batch_size": 2, "lr": 0.05, "accumulation": 2, "optimizer": "sgd"}
    return [
        {"name": "head", "train": "head", **common, "best": None},
        {"name": "all", "train": "all", **common, "best": {"metric": "ndcg_at_10"}},
    ]


def test_an_epoch_of_lists_has_a_step_for_each_batch_of_queries(recipe):
    pairs, lists = (plan_stages(recipe(list_size=size)).plan.stages[0].steps for size in (None, 3))
    assert (pairs, lists) == (2 * math.ceil(30 / 2), 2 * math.ceil(6 / 2))


def test_a_listwise_run_is_resumed_bit_for_bit_and_predicts_what_the_plain_pipeline_does(tmp_path, recipe):
    content = recipe(list_size=3, stages=listwise_stages())
    straight = quick_run(content, tmp_path / "straight")
    interrupt(content, tmp_path / "resumed", Stop("all", 3, "begin"))
    quick_run(content, tmp_path / "resumed", resume=True)
    assert_equal_runs(straight.folder, tmp_path / "resumed")
    assert not straight.metrics["stages"][0]["prefix_cache"]["used"]
    assert set(straight.metrics["baselines"]) >= {"bm25", "tf_idf_cosine", "word_overlap", "embeddings"}
    table = tmp_path / "some.jsonl"
    some = rows_of(2)
    table.write_text("".join(f"{json.dumps(row)}\n" for row in some), encoding="utf-8")
    predicted = [prediction.label for prediction in predict(straight.folder, [str(table)])]
    pipe = transformers.pipeline("text-classification", model=str(straight.folder / "model"))
    plain = [
        pipe({"text": row["query"], "text_pair": row["candidate"]}, function_to_apply="none")["score"]
        for row in some
    ]
    assert predicted == pytest.approx(plain, abs=1e-5)
    assert len({round(score, 6) for score in plain}) > 1


def test_the_doctor_and_the_preview_take_lists(tmp_path, recipe):
    content = recipe(list_size=3)
    (suite,) = check_suites(content, tmp_path)
    assert [result for check in suite.checks if (result := run_check(check, tmp_path)).state == "fail"] == []
    page = preview(content, tmp_path / "page.html", examples=2, views=2).read_text(encoding="utf-8")
    assert page.count("[SEP]") >= 2 * 2 * 3


def test_the_shipped_recipe_states_lists():
    assert load_recipe("ranking/dishes-by-text").data.list_size >= 2


@pytest.mark.parametrize(
    ("names", "task"),
    [
        (("query", "document", "label"), "text-ranking"),
        (("question", "answer", "label"), "text-classification"),
    ],
)
def test_a_table_with_clear_names_is_one_of_rankings(names, task, tmp_path):
    lines = [",".join([row["query"], row["candidate"], str(row["label"])]) for row in rows_of()]
    (tmp_path / "pairs.csv").write_text("\n".join([",".join(names), *lines]), encoding="utf-8")
    assert inspect_data(str(tmp_path / "pairs.csv")).task.name == task

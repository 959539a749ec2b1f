"""Histories of events: their text form, buckets, tokenizer, joined tables and simple features."""

# ruff: noqa: E501 (error texts are tested whole)

import random
import re
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest
import transformers
from datasets import Dataset
from transformers import AutoTokenizer

from hf_finetune.errors import InputError
from hf_finetune.tasks import MODALITIES, TASKS
from hf_finetune.tasks.events.buckets import at_least, bucket_edges, format_number, replacements
from hf_finetune.tasks.events.history import Event, parse_history, read_history, write_history
from hf_finetune.tasks.events.inputs import HistoryCounter, ShortenedHistories, configure_histories
from hf_finetune.tasks.events.new_model import save_new_model
from hf_finetune.tasks.events.rfm import rfm_features
from hf_finetune.tasks.events.tokenizer import build_tokenizer
from hf_finetune.tasks.examples import ExampleError

EVENTS = MODALITIES["events"]
TEXT = "since=30 buy amount=11.77 gap=26 buy amount=29.33"

# --- Buckets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [0.0001, 0.09, 0.5, 1, 5, 9, 9.99, 10, 11.77, 19.9, 99, 100, 123.45, 1000])
def test_a_pattern_matches_exactly_the_numbers_from_an_edge_on(edge):
    chance, pattern = random.Random(0), re.compile(at_least(edge))
    numbers = [edge, edge - 0.0001, edge + 0.0001, 0, 9, 10, 99.9999, 100, 1e6]
    numbers += [round(chance.uniform(0, 3 * edge), chance.randint(0, 4)) for _ in range(2000)]
    texts = [format_number(abs(number)) for number in numbers]
    wrong = [text for text in texts if bool(pattern.fullmatch(text)) != (float(text) >= edge)]
    assert wrong == []


def test_buckets_have_equal_numbers_of_values():
    values = np.arange(1, 101)
    edges = bucket_edges(values, 4)
    assert np.bincount(np.searchsorted(edges, values, side="right")).tolist() == [25, 25, 25, 25]


def test_equal_quantiles_are_one_bucket():
    assert bucket_edges([0, 0, 0, 0, 0, 0, 7, 9], 4) == [1.75]
    assert bucket_edges([], 4) == []


def test_numbers_have_no_exponent():
    assert [format_number(number) for number in (1e-7, 0.00005, 11.770, 1e7, -0.00001, -3)] == [
        *("0", "0.0001", "11.77", "10000000", "0", "-3")
    ]


def test_negative_amounts_have_a_bucket_of_their_own():
    patterns = list(replacements("amount", [5.0]))
    assert [token for _, token in patterns] == ["amount-negative", "amount-1", "amount-0"]
    assert re.search(patterns[0][0], "return amount=-3.5 buy") and not re.search(patterns[0][0], "amount=3.5")


# --- Text form ----------------------------------------------------------------------------------------------------


def test_the_newest_event_is_written_first():
    events = [Event("buy", 56, 29.33), Event("buy", 30, 11.77)]
    assert write_history(events) == TEXT
    assert parse_history(TEXT) == [Event("buy", 30, 11.77), Event("buy", 56, 29.33)]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (TEXT, TEXT),
        (["view", "cart", "buy"], "buy cart view"),
        ('["view", "buy it"]', "buy_it view"),
        ([{"kind": "a", "days": 3}, {"kind": "b", "days": 1, "amount": 2}], "since=1 b amount=2 gap=2 a"),
        (
            [{"time": "2024-01-01"}, {"time": "2024-01-03T12:00", "amount": -1}],
            "since=0 event amount=-1 gap=2.5 event",
        ),
        ([{"kind": "a", "time": datetime(2024, 1, 1)}], "since=0 a"),
        ([{"kind": "a=b c"}], "a_b_c"),
        ([{"kind": 0}, "  ", {"kind": None, "amount": 1}], "event amount=1 event 0"),
    ],
)
def test_stored_forms_become_texts(cell, text):
    assert read_history(cell) == text
    assert read_history(text) == text


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        (None, "empty"),
        ([], "empty"),
        ("", "empty"),
        (3, "no list of events: 3"),
        ("since=3 buy weight=2", "one with 'weight=2', where since, gap, amount are known"),
        ("amount=3 buy", "one with an amount that does not follow its event"),
        ("buy amount=3 amount=4", "one with an amount that does not follow its event"),
        ("buy since=3", "one with 'since=3' in a wrong place or below 0"),
        ("gap=3 buy", "one with 'gap=3' in a wrong place or below 0"),
        ("since=-3 buy", "one with 'since=-3' in a wrong place or below 0"),
        ("since=3 since=4 buy", "one with 'since=4' in a wrong place or below 0"),
        ("buy gap=3 buy", "one with 'gap=3' but no since before its newest event"),
        ("buy [PAD]", "one with the kind '[PAD]'; reserved are [PAD], [UNK], [CLS], [SEP], [MASK]"),
        (["buy", {"kind": "x[SEP]"}], "one with the kind 'x[SEP]'; reserved are [PAD], [UNK], [CLS], [SEP], [MASK]"),
        ("since=soon buy", "one whose since is no number: 'soon'"),
        ("buy amount=nan", "one whose amount is no number: 'nan'"),
        ([3], "a list with 3; known keys of an event: kind, time, days, amount"),
        ([{"price": 3}], "a list with 'price'; known keys of an event: kind, time, days, amount"),
        ([{"kind": "a", "days": -1}], "a list with negative days"),
        ([{"days": 1}, {"kind": "a"}], "a list in which some events have no time, or days instead of a time"),
        ([{"days": 1, "time": "2024-01-01"}], "a list in which some events have no time, or days instead of a time"),
        ([{"time": "yesterday"}], "a list with a time that is no date ('yesterday')"),
        ("[1, ", "a damaged JSON list (Expecting value: line 1 column 4 (char 3))"),
    ],
)  # fmt: skip
def test_an_unusable_history_is_described(cell, error):
    with pytest.raises(ExampleError) as caught:
        read_history(cell)
    assert str(caught.value) == error


# --- Tokenizer and model ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new") / "model"
    train = Dataset.from_dict(
        {"events": [TEXT, "since=1 view gap=100 buy amount=500", "since=90 buy amount=20"]}
    )
    save_new_model(folder, train, layers=1, hidden=32, buckets=2, max_events=3, seed=0)
    return folder


def test_plain_transformers_reads_numbers_as_buckets(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    ids = tokenizer("since=31 buy amount=25 gap=63.5 return amount=0.5 gap=0")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [
        *("[CLS]", "since-1", "buy", "amount-1", "gap-1", "[UNK]", "amount-0", "gap-0", "[SEP]")
    ]
    assert tokenizer.model_max_length == 11


def test_a_new_model_has_the_requested_size_and_depends_on_the_seed(checkpoint, tmp_path):
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (1, 32, 2)
    assert config.max_position_embeddings == 11
    train = Dataset.from_dict({"events": [TEXT]})
    settings = {"layers": 1, "hidden": 16, "buckets": 2, "max_events": None}
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_new_model(tmp_path / name, train, seed=seed, **settings)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_the_vocabulary_comes_from_the_given_histories_only():
    tokenizer = build_tokenizer(["since=2 buy amount=1 gap=3 view"], 10, 64)
    words = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    assert {word for word in words if "-" not in word} == {"buy", "view"}
    assert words > {"since-1", "gap-1", "amount-1", "amount-negative"}


def test_a_longer_history_loses_its_oldest_events(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    skeleton = transformers.AutoModelForSequenceClassification.from_config(config)
    assert configure_histories(tokenizer, config, SimpleNamespace(max_events=1), skeleton) == ()
    tokens = tokenizer(TEXT, truncation=True)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(tokens) == ["[CLS]", "since-1", "buy", "amount-0", "[SEP]"]
    tokenizer.model_max_length = 11
    with pytest.raises(InputError) as caught:
        configure_histories(tokenizer, config, SimpleNamespace(max_events=4), skeleton)
    assert str(caught.value.problems[0]) == (
        "data.max_events must be at most 3. Got 4. The model reads 11 tokens: 3 per event and 2 special ones."
    )


def test_shortened_histories_are_reported():
    cut = {"train": np.array([True, False, True]), "validation": np.array([False])}
    shortened = ShortenedHistories(cut, 32)
    assert shortened.note() == (
        "Histories of more than 32 tokens lose their oldest events: 2 of 3 in train. A new model with a larger data.max_events reads them."
    )
    assert shortened.of_rows({"train": [1], "validation": [0]}).note() is None
    counter = HistoryCounter()
    counter.count, counter.total, counter.length = 2, 5, 32
    assert counter.sentences() == [
        "2 of 5 histories lost their oldest events: the model reads at most 32 tokens."
    ]


# --- Baseline and registration ------------------------------------------------------------------------------------


def test_features_are_recency_frequency_and_amount():
    train = Dataset.from_dict({"events": [TEXT, "view"]})
    first, second = rfm_features(train, train)
    np.testing.assert_allclose(first[0][:7], [30, 56, 26, 2, 41.1, 20.55, 11.77])
    np.testing.assert_allclose(first[0][7:14], np.log1p(first[0][:7]))
    assert first[0][14:].tolist() == [2, 0] and first[1][14:].tolist() == [0, 1]
    assert first[1][:7].tolist() == [0, 0, 0, 1, 0, 0, 0]
    np.testing.assert_array_equal(first, second)


def test_it_is_served_as_a_classifier_of_texts():
    task = TASKS["event-classification"]
    assert (task.pipeline_name, TASKS["text-classification"].pipeline_name) == ("text-classification",) * 2
    assert EVENTS.simple_features.boosting and EVENTS.simple_features.boosting_name == "rfm_boosting"


def test_lists_in_a_table_become_texts_and_faults_keep_their_reason():
    events = [[{"kind": "a", "days": 2}], [{"kind": "b", "days": 1, "amount": 3}], [{"price": 3}], None]
    stored = EVENTS.stored_form(Dataset.from_dict({"events": events}))
    assert stored["events"][:2] == ["since=2 a", "since=1 b amount=3"]
    assert EVENTS.check().faults(stored, list("abcd")) == [
        *(None, None, "a list with 'price'; known keys of an event: kind, time, days, amount", "empty")
    ]


def test_equal_histories_of_several_customers_are_no_copies():
    contents, keys = EVENTS.hashes(Dataset.from_dict({"events": [TEXT, TEXT]}))
    assert contents[0] == contents[1] and keys == [None, None]

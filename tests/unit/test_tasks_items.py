"""Histories of items: their text form, the model that reads them, its inputs, and its config."""

import random

import numpy as np
import pytest
import torch
import transformers
from datasets import ClassLabel, Dataset, Features, Value

from hf_finetune.doctor.check_target import synthetic_data
from hf_finetune.errors import InputError
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.targets.losses import IGNORE_INDEX, label_weights, loss_for
from hf_finetune.tasks import MODALITIES, TASKS
from hf_finetune.tasks.examples import ExampleError
from hf_finetune.tasks.items.history import item_word, read_items, with_mask
from hf_finetune.tasks.items.inputs import HistoryCounter, configure_items, prepare_items
from hf_finetune.tasks.items.model import FLOOR, adapt_to_items
from hf_finetune.tasks.items.new_model import item_vocabulary, save_new_model

NAMES = ("a", "b", "c", "d", "new")
"""Classes of the data; the last one is not in the vocabulary."""
MODALITY = MODALITIES["items"]


def data_of(**fields):
    content = {"task": "next-item", "model": {"new": {}}, "data": {"path": "p", **fields}}
    return parse_recipe({**content, "stages": [{"name": "all", "train": "all", "epochs": 1}]}).data


def split(histories, labels):
    features = Features({"items": Value("string"), "label": ClassLabel(names=list(NAMES))})
    return Dataset.from_dict({"items": histories, "label": labels}, features=features)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    save_new_model(path, NAMES[:4], NAMES, layers=1, hidden=16, max_items=6, seed=0)
    return path


@pytest.fixture
def ready(folder):
    """Return a function of ``data`` that returns the tokenizer and the adapted model."""

    def build(data):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
        configure_items(tokenizer, model.config, data, model)
        return tokenizer, adapt_to_items(model)

    return build


# --- Text form ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("a b c", "a b c"),
        (" a  b [MASK] ", "a b"),
        (["Toy Story (1995)", 7, 8.0], "Toy_Story_(1995) 7 8"),
        ('["x y", 3]', "x_y 3"),
    ],
)
def test_lists_and_texts_have_one_form(cell, text):
    assert read_items(cell) == text
    assert with_mask(text) == f"{text} [MASK]"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, "empty"),
        ([], "empty"),
        ("", "empty"),
        ("[MASK]", "a damaged JSON list (Expecting value: line 1 column 2 (char 1))"),
        (7, "no list of items: 7"),
        (["a", None], "one with None in place of an item"),
        (["a", " "], "one with an item without a name"),
        (["[PAD]"], "one with the item '[PAD]'; reserved are [PAD], [UNK], [CLS], [SEP], [MASK]"),
    ],
)
def test_what_is_no_history_is_described(cell, message):
    with pytest.raises(ExampleError) as caught:
        read_items(cell)
    assert str(caught.value) == message


def test_numbers_are_names():
    assert [item_word(value) for value in (7, 7.0, 7.5, " a  b ")] == ["7", "7", "7.5", "a_b"]


# --- Model -------------------------------------------------------------------------------------------------------


def test_the_logits_are_those_of_the_plain_model_at_the_mask(ready):
    tokenizer, model = ready(data_of(max_items=6))
    batch = tokenizer(["a b [MASK]", "a b c d [MASK]"], padding=True, return_tensors="pt")
    logits = model(**batch).logits
    plain = transformers.BertForMaskedLM.forward(model, **batch).logits
    for row, place in enumerate((2, 4)):
        tokens = tokenizer.convert_tokens_to_ids(list(NAMES[:4]))
        torch.testing.assert_close(logits[row, :4], plain[row, place, tokens])
    assert logits.shape == (2, 5) and (logits[:, 4] == FLOOR).all()


def test_seen_items_are_excluded_on_request(ready):
    tokenizer, model = ready(data_of(max_items=6, exclude_seen=True))
    batch = tokenizer(["a b [MASK]", "d [MASK]"], padding=True, return_tensors="pt")
    excluded = model(**batch).logits == FLOOR
    assert excluded.tolist() == [[True, True, False, False, True], [False, False, False, True, True]]
    # what is masked in training may occur elsewhere in its history
    places = torch.tensor([[2, 0], [1, 0]])
    assert (model(**batch, places=places).logits[..., :4] > FLOOR).all()


def test_plain_pipelines_give_special_tokens_no_probability(folder, ready):
    tokenizer, model = ready(data_of(max_items=6))
    pipe = transformers.pipeline("fill-mask", model=str(folder), tokenizer=tokenizer, top_k=9)
    answer = {entry["token_str"]: entry["score"] for entry in pipe("a b [MASK]")}
    assert sum(answer[name] for name in NAMES[:4]) == pytest.approx(1.0)
    logits = model(**tokenizer("a b [MASK]", return_tensors="pt")).logits
    expected = logits[0, :4].softmax(-1)
    assert [answer[name] for name in NAMES[:4]] == pytest.approx(expected.tolist(), abs=1e-6)


def test_only_bert_is_adapted():
    config = transformers.DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=16, vocab_size=9)
    with pytest.raises(InputError) as caught:
        adapt_to_items(transformers.DistilBertForMaskedLM(config))
    assert str(caught.value.problems[0]) == (
        "model.path must be a BERT with a token for each item, as model.new and earlier runs build it. Got a "
        "'distilbert' model."
    )


def test_the_vocabulary_is_that_of_the_training_split():
    assert item_vocabulary(split(["a b", "c"], [3, 0])) == ["a", "b", "c", "d"]


# --- Config ------------------------------------------------------------------------------------------------------


def test_new_items_are_named(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    notes = configure_items(tokenizer, model.config, data_of(max_items=4, exclude_seen=True), model)
    assert notes == (
        "1 of 5 items are not in the training split and can never be predicted: 'new'. As labels of other examples "
        "they count as misses.",
    )
    assert model.config.label_tokens == [5, 6, 7, 8, tokenizer.unk_token_id]
    assert (tokenizer.model_max_length, tokenizer.truncation_side) == (5, "left")


@pytest.mark.parametrize(
    ("fields", "names", "message"),
    [
        ({"max_items": 9}, NAMES, "data.max_items must be at most 6, the number of items that the model reads. Got 9."),
        (
            {"max_items": 6},
            ("x", "y"),
            "model.path must have a token for the items of the data. Got no token for 'x', 'y'. Set model.new, or "
            "use a model of these items.",
        ),
        (
            {"max_items": 6, "columns": {"weight": "w"}},
            NAMES,
            "data.columns.weight must not be set: the items of a history are masked at random. Got 'w'.",
        ),
    ],
)  # fmt: skip
def test_a_checkpoint_that_does_not_fit_is_an_error(folder, fields, names, message):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    model.config.id2label = dict(enumerate(names))
    with pytest.raises(InputError) as caught:
        configure_items(tokenizer, model.config, data_of(**fields), model)
    assert [str(problem) for problem in caught.value.problems] == [message]


# --- Inputs ------------------------------------------------------------------------------------------------------


def prepared(ready, data, train, validation=None):
    tokenizer, _ = ready(data)
    splits = type("Splits", (), {"train": train, "validation": validation})
    return tokenizer, prepare_items(splits, tokenizer, data, 0, augmented=MODALITY.is_augmented(data))


def test_without_masking_the_next_item_is_predicted_after_the_last_ones(ready):
    data = data_of(max_items=3, augment={"masked_items": 0.0, "next_only": 0.0})
    train = split(["a b c d", "a"], [0, 4])
    tokenizer, inputs = prepared(ready, data, train, train)
    mask = tokenizer.mask_token_id
    assert inputs.train[0] == {"input_ids": [6, 7, 8, mask], "attention_mask": [1] * 4, "labels": 0}
    # a label without a token teaches nothing, but counts in the validation split
    assert (inputs.train[1]["labels"], inputs.validation[1]["labels"]) == (IGNORE_INDEX, 4)


def test_training_histories_are_masked_at_random_places(ready):
    data = data_of(max_items=4, augment={"masked_items": 0.5, "next_only": 0.0})
    history = ["a", "b", "c", "d", "a", "b", "c"]
    tokenizer, inputs = prepared(ready, data, split([" ".join(history)], [3]))
    sequence = tokenizer.convert_tokens_to_ids([*history, "d"])
    windows = {tuple(sequence[begin : begin + 5]) for begin in range(4)}
    counts = set()
    for epoch in range(60):
        inputs.train.set_epoch(epoch)
        example = inputs.train[0]
        assert len(example["places"]) == len(example["labels"]) == 5
        masked = [
            place for place, token in enumerate(example["input_ids"]) if token == tokenizer.mask_token_id
        ]
        pairs = [
            pair for pair in zip(example["places"], example["labels"], strict=True) if pair[1] != IGNORE_INDEX
        ]
        assert [place for place, _ in pairs] == masked
        restored = list(example["input_ids"])
        for place, label in pairs:
            restored[place] = 5 + label
        assert tuple(restored) in windows
        counts.add(len(masked))
    assert {1, 2, 3} <= counts


def test_next_only_ends_a_history_at_a_random_place(ready):
    data = data_of(max_items=2, augment={"masked_items": 0.5, "next_only": 1.0})
    tokenizer, inputs = prepared(ready, data, split(["a b c"], [3]))
    found = set()
    for epoch in range(40):
        inputs.train.set_epoch(epoch)
        example = inputs.train[0]
        assert example["input_ids"][-1] == tokenizer.mask_token_id
        assert example["places"][0] == len(example["input_ids"]) - 1
        found.add((tokenizer.decode(example["input_ids"][:-1]), NAMES[example["labels"][0]]))
    assert found == {("a", "b"), ("a b", "c"), ("b c", "d")}


def test_batches_are_padded_and_mixed_ones_have_one_mask(ready):
    data = data_of(max_items=6)
    _, inputs = prepared(ready, data, split(["a b c", "d"], [3, 0]), split(["a"], [1]))
    batch = inputs.collate([inputs.train[0], inputs.train[1]])
    assert batch["labels"].shape == batch["places"].shape == (2, len(inputs.train[0]["places"]))
    mixed = inputs.collate([inputs.train[0], inputs.validation[0]])
    assert "places" not in mixed and mixed["labels"].shape == (2,)


def test_the_loss_of_several_places_is_their_mean():
    logits = torch.randn(2, 3, 4)
    labels = torch.tensor([[1, 2, IGNORE_INDEX], [0, IGNORE_INDEX, IGNORE_INDEX]])
    loss = loss_for("single_label")((logits,), labels)
    kept = labels != IGNORE_INDEX
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[kept], labels[kept]))
    assert label_weights(labels, "single_label").sum() == 3


def test_shortened_histories_are_counted(ready):
    tokenizer, model = ready(data_of(max_items=3))
    pipe = TASKS["next-item"].build_pipeline(model, MODALITY.pipeline_settings(tokenizer, model))
    counter = HistoryCounter()
    texts = iter([with_mask("a b c d a"), with_mask("a")])
    batch = MODALITY.read_batch(pipe, texts, 8, counter)
    assert batch["input_ids"][0].tolist() == [7, 8, 5, tokenizer.mask_token_id]
    assert counter.sentences() == ["1 of 2 histories lost their oldest items: the model reads the last 3."]
    assert MODALITY.read_batch(pipe, texts, 8, counter) is None
    with pytest.raises(ValueError, match=r"a history must end with \[MASK\], as 'a b' does"):
        MODALITY.read_batch(pipe, iter(["a b"]), 8)


def test_synthetic_histories_have_the_classes_of_the_tiny_checkpoint():
    data = synthetic_data(MODALITY, "single_label", MODALITY.synthetic_classes)
    words = {word for text in data.train["items"] for word in text.split()}
    assert words == set(MODALITY.synthetic_classes)
    lengths = [len(text.split()) for text in MODALITY.synthetic_examples(9, random.Random(0))["items"]]
    assert lengths[0] == 16 and np.min(lengths) >= 4

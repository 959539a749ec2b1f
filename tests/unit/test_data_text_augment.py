from collections import Counter

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from hf_finetune.errors import InputError
from hf_finetune.tasks.seeded_augmentation import SeededExamples
from hf_finetune.tasks.text.augment import WORDS, AugmentedTexts, TextNoise, text_noise
from hf_finetune.tasks.text.tokenization import tokenize

CLS, SEP, MASK, UNK = 2, 3, 4, 1
EXAMPLE = {
    "input_ids": [CLS, 5, 6, 7, 8, SEP],
    "attention_mask": [1, 1, 1, 1, 1, 1],
    WORDS: [-1, 0, 0, 1, 2, -1],
    "labels": 1,
}


def noise(mask=0.0, drop=0.0):
    return TextNoise(mask, drop, MASK, frozenset({0, CLS, SEP, MASK}))


def draws(numbers):
    """Return a replacement of torch.rand that returns these numbers in order."""
    left = list(numbers)

    def rand(size):
        return torch.tensor([left.pop(0) for _ in range(size)])

    return rand


def test_masked_are_the_tokens_whose_number_is_below_the_probability(monkeypatch):
    monkeypatch.setattr(torch, "rand", draws([0.0, 0.1, 0.5, 0.19, 0.2, 0.0]))
    made = noise(mask=0.2)(EXAMPLE)
    assert made == {"input_ids": [CLS, MASK, 6, MASK, 8, SEP], "attention_mask": [1] * 6, "labels": 1}


def test_a_word_is_dropped_with_all_its_tokens_and_their_features(monkeypatch):
    monkeypatch.setattr(torch, "rand", draws([0.1, 0.9, 0.9]))
    made = noise(drop=0.2)({**EXAMPLE, "token_type_ids": [0, 0, 0, 1, 1, 1]})
    assert made == {
        "input_ids": [CLS, 7, 8, SEP],
        "attention_mask": [1] * 4,
        "token_type_ids": [0, 1, 1, 1],
        "labels": 1,
    }


def test_words_are_left_out_before_tokens_are_masked(monkeypatch):
    monkeypatch.setattr(torch, "rand", draws([0.1, 0.9, 0.9, 0.0, 0.0, 0.0, 0.0, 0.9, 0.0]))
    assert noise(mask=0.2, drop=0.2)(EXAMPLE)["input_ids"] == [CLS, MASK, 8, SEP]


def test_an_example_that_would_become_empty_keeps_every_word(monkeypatch):
    monkeypatch.setattr(torch, "rand", draws([0.0, 0.0, 0.0]))
    assert noise(drop=0.2)(EXAMPLE)["input_ids"] == EXAMPLE["input_ids"]


def test_special_tokens_stay_even_where_they_are_part_of_the_text(monkeypatch):
    monkeypatch.setattr(torch, "rand", draws([0.0] * 9))
    example = {"input_ids": [CLS, 5, SEP, SEP], WORDS: [-1, 0, 1, -1], "attention_mask": [1] * 4}
    assert noise(mask=0.5)(example)["input_ids"] == [CLS, MASK, SEP, SEP]


def test_a_list_of_labels_as_long_as_the_text_is_no_list_of_tokens(monkeypatch):
    monkeypatch.setattr(torch, "rand", draws([0.0, 0.9, 0.9]))
    assert noise(drop=0.2)({**EXAMPLE, "labels": [1.0] * 6})["labels"] == [1.0] * 6


def test_the_shares_are_those_requested():
    torch.manual_seed(0)
    long = {"input_ids": [CLS, *[5] * 1000, SEP], WORDS: [-1, *range(1000), -1], "attention_mask": [1] * 1002}
    counts = Counter(noise(mask=0.3, drop=0.1)(long)["input_ids"])
    assert counts[CLS] == counts[SEP] == 1
    assert 870 < counts[5] + counts[MASK] < 930
    assert 0.27 < counts[MASK] / (counts[5] + counts[MASK]) < 0.33


def test_a_text_is_the_same_for_the_same_seed_epoch_and_index():
    rows = [{**EXAMPLE, "input_ids": [CLS, 5, 6, 7, 8, SEP]} for _ in range(20)]
    one, other = (SeededExamples(AugmentedTexts(rows, noise(0.3, 0.3)), seed) for seed in (3, 3))
    state = torch.get_rng_state()
    assert [one[index] for index in range(20)] == [other[index] for index in reversed(range(20))][::-1]
    assert torch.equal(torch.get_rng_state(), state)
    first = [one[index]["input_ids"] for index in range(20)]
    one.set_epoch(1)
    assert [one[index]["input_ids"] for index in range(20)] != first


@pytest.fixture
def tokenizer(bert_checkpoint):
    return AutoTokenizer.from_pretrained(bert_checkpoint)


def test_words_are_numbered_through_both_texts_of_a_pair(tokenizer):
    data = Dataset.from_dict({"text": ["good film"], "text_pair": ["the strange film"]})
    row = tokenize(data, tokenizer, words=True)[0]
    assert tokenizer.convert_ids_to_tokens(row["input_ids"]) == [
        *("[CLS]", "good", "film", "[SEP]", "the", "[UNK]", "film", "[SEP]")
    ]
    assert row[WORDS] == [-1, 0, 1, -1, 2, 3, 4, -1]
    assert WORDS not in tokenize(data, tokenizer).column_names


def test_tokens_that_are_never_dropped(tokenizer):
    made = text_noise(tokenizer, 0.1, 0.2)
    assert made == TextNoise(0.1, 0.2, MASK, frozenset({0, CLS, SEP, MASK}))
    assert UNK not in made.protected_ids


def test_a_tokenizer_without_a_mask_token_masks_nothing(tokenizer):
    tokenizer.mask_token = None
    with pytest.raises(InputError) as caught:
        text_noise(tokenizer, 0.1, 0.0)
    assert str(caught.value) == (
        "data.augment.mask must be 0 for a tokenizer without a mask token. Got 0.1. Use data.augment.drop "
        "instead."
    )
    assert text_noise(tokenizer, 0.0, 0.1).mask_id == -1

"""Rankings by words, on data whose best answer is known."""

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from torch.nn import functional

from hf_finetune.tasks import MODALITIES
from hf_finetune.tasks.ranking import baselines
from hf_finetune.tasks.ranking.baselines import fit_rankings
from hf_finetune.tasks.ranking.embeddings import cosines, embeddings
from hf_finetune.tasks.ranking.titles import TITLES

BY_WORDS = [name for name in TITLES if name != "embeddings"]


def split(*pairs):
    return Dataset.from_list(
        [{"query": query, "candidate": text, "label": float(label)} for query, text, label in pairs]
    )


TRAIN = split(("soup", "bean soup", 1), ("soup", "apple pie", 0), ("pie", "the pie", 1))
TEST = split(
    ("soup of beans", "Soup, beans!", 1),
    ("soup of beans", "a pie of apples", 0),
    ("soup of beans", "bread", 0),
)


@pytest.mark.parametrize("name", BY_WORDS)
def test_the_candidate_with_the_words_of_the_query_is_first(name):
    scores = fit_rankings(TRAIN, None, TEST)[name][0]
    assert scores.shape == (3,)
    assert scores[0] > scores[1] > scores[2] == 0


def test_bm25_is_that_of_the_paper():
    (scores, settings) = fit_rankings(TRAIN, None, TEST)["bm25"]
    assert settings == {"k1": 1.2, "b": 0.75}
    # six texts, of 2, 2, 2, 2, 4 and 1 words: bean soup, apple pie, the pie, Soup beans, a pie of apples, bread
    lengths = np.array([2, 2, 2, 2, 4, 1])

    def part(frequency, length):
        rarity = np.log(1 + (6 - frequency + 0.5) / (frequency + 0.5))
        return rarity * 2.2 / (1 + 1.2 * (0.25 + 0.75 * length / lengths.mean()))

    assert scores[0] == pytest.approx(part(2, 2) + part(1, 2))
    assert scores[1] == pytest.approx(part(1, 4))


def test_word_overlap_counts_each_word_once():
    test = split(("soup soup bean", "soup soup", 1), ("soup soup bean", "bean soup", 0))
    assert fit_rankings(TRAIN, None, test)["word_overlap"][0].tolist() == [1.0, 2.0]


def test_the_cosine_does_not_depend_on_the_length_of_the_texts():
    test = split(("bean soup", "bean soup", 1), ("bean soup", "bean soup bean soup", 0))
    scores = fit_rankings(TRAIN, None, test)["tf_idf_cosine"][0]
    assert scores == pytest.approx([1.0, 1.0])


def test_labels_of_the_test_split_are_not_used():
    flipped = TEST.map(lambda row: {"label": 1 - row["label"]})
    first, second = (fit_rankings(TRAIN, TRAIN, test) for test in (TEST, flipped))
    assert all(np.array_equal(first[name][0], second[name][0]) for name in BY_WORDS)


def test_the_validation_split_chooses_the_settings_of_bm25(monkeypatch):
    monkeypatch.setattr(baselines, "_K1", (0.0, 2.0))
    monkeypatch.setattr(baselines, "_B", (0.0,))
    # only a k1 above 0 counts how often a word is in a text
    validation = split(("soup", "soup and", 0), ("soup", "soup soup soup", 1))
    assert fit_rankings(TRAIN, validation, TEST)["bm25"][1] == {"k1": 2.0, "b": 0.0}
    swapped = split(("soup", "soup and", 1), ("soup", "soup soup soup", 0))
    assert fit_rankings(TRAIN, swapped, TEST)["bm25"][1] == {"k1": 0.0, "b": 0.0}


def test_embeddings_are_the_means_of_the_tokens_of_each_text_alone(tmp_path):
    MODALITIES["ranking"].save_tiny_checkpoint(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    texts = ["good film", "bad", "a poor plot the film"]
    with torch.no_grad():
        alone = [
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0) for text in texts
        ]
    expected = functional.normalize(torch.stack(alone), dim=1).numpy()
    assert embeddings(model, tokenizer, texts) == pytest.approx(expected, abs=1e-5)
    pairs = split(("bad", "good film", 1), ("bad", "bad", 0))
    assert cosines(model, tokenizer, pairs) == pytest.approx([expected[1] @ expected[0], 1], abs=1e-5)

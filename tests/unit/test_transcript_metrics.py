"""Error rates of transcripts agree with counts by hand; the normalizers do what their names promise."""

import math
import sys

import numpy as np
import pytest

from hf_finetune.errors import InputError
from hf_finetune.targets.transcript_metrics import (
    NORMALIZERS,
    ErrorCounts,
    error_counts,
    error_rate,
    resampled_error_rates,
    sentences_in_training,
    text_normalizer,
)


def word_error_rate(counts, weights=None):
    return error_rate(counts.word_errors, counts.words, weights)


def character_error_rate(counts, weights=None):
    return error_rate(counts.character_errors, counts.characters, weights)


@pytest.mark.parametrize(
    ("name", "text", "normalized"),
    [
        ("basic", "  Wat is DIT,\tvoor\nschip?! ", "wat is dit voor schip"),
        ("basic", "Eén zo'n auto-ongeluk op 2,5 km", "eén zo n auto ongeluk op 2 5 km"),
        ("basic", "re\u0301sume\u0301", "résumé"),
        ("basic", "Ja [muziek] (lacht) nee", "ja nee"),
        ("basic", "Příliš žluťoučký kůň", "příliš žluťoučký kůň"),
        ("basic", "...", ""),
        ("none", " It's  Mr. Smith!\n", "It's Mr. Smith!"),
    ],
)
def test_normalizers(name, text, normalized):
    assert text_normalizer(name)(text) == normalized


def test_an_unknown_normalizer_is_an_error():
    with pytest.raises(InputError) as error:
        text_normalizer("bsic", "evaluation.normalizer")
    assert str(error.value) == (
        "evaluation.normalizer must be the name of a text normalizer. Got 'bsic'. Nearest: 'basic'."
    )
    with pytest.raises(InputError, match=r"Known: 'basic', 'none'."):
        error_counts(["a"], ["a"], "whisper")


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("a b c", "a b c", (0, 3, 0, 5)),
        ("a b c", "a x c", (1, 3, 1, 5)),  # substitution
        ("a b c", "a c", (1, 3, 2, 5)),  # deletion, in characters of b and a space
        ("a c", "a b c d", (2, 2, 4, 3)),  # two insertions
        ("one", "two three four", (3, 1, 12, 3)),  # only o and e match: 14 - 2 character errors
        ("", "a bc", (2, 0, 4, 0)),  # empty reference: insertions only
        ("?!", "a", (1, 0, 1, 0)),  # empty after normalization
        ("a bc", "", (2, 2, 4, 4)),
        ("", "", (0, 0, 0, 0)),
        ("Kitten, Sitting!", "sitting kitten", (2, 2, 6, 14)),  # two words of three edits each
    ],
)
def test_errors_of_one_example(reference, hypothesis, expected):
    counts = error_counts([reference], [hypothesis], "basic")
    assert tuple(int(values[0]) for values in counts) == expected


def test_counts_are_arrays_in_the_order_of_the_examples():
    counts = error_counts(["Wat is dit?", "", "Ja."], ["wat was dat", "o", "Ja."], "basic")
    assert [values.tolist() for values in counts] == [[2, 1, 0], [3, 0, 1], [3, 1, 0], [10, 0, 2]]
    assert {values.dtype for values in counts} == {np.dtype("int64")}
    assert counts.word_errors is counts[0]
    assert [values.tolist() for values in error_counts(["Ja."], ["ja"], "none")] == [[1], [1], [2], [3]]
    empty = error_counts([], [], "basic")
    assert [(values.shape, values.dtype) for values in empty] == [((0,), np.dtype("int64"))] * 4
    assert math.isnan(word_error_rate(empty)) and math.isnan(character_error_rate(empty))


def test_the_numbers_of_references_and_hypotheses_must_agree():
    message = "^Each reference must have one hypothesis. Got 2 references and 1 hypotheses.$"
    with pytest.raises(ValueError, match=message):
        error_counts(["a", "b"], ["a"], "basic")


def test_rates_are_of_the_corpus_and_not_means_of_the_examples():
    counts = error_counts(["a b c d", "e", ""], ["a b c x", "f", "g"], "basic")
    assert word_error_rate(counts) == pytest.approx(3 / 5)
    assert character_error_rate(counts) == pytest.approx(3 / 8)
    assert word_error_rate(counts, np.array([2, 0, 1])) == pytest.approx(3 / 8)
    assert character_error_rate(counts, np.array([0.5, 1, 0])) == pytest.approx(1.5 / 4.5)
    assert math.isnan(word_error_rate(counts, np.array([0, 0, 5])))


def test_rates_of_resamples_equal_those_of_the_drawn_examples():
    errors, lengths = np.array([1, 1, 1]), np.array([4, 1, 0])
    drawn = [[0, 0, 1], [2, 2, 2], [1, 2, 1]]
    counts = np.array([np.bincount(rows, minlength=3) for rows in drawn])
    rates = resampled_error_rates(errors, lengths, counts)
    direct = [error_rate(errors[rows], lengths[rows]) for rows in drawn]
    np.testing.assert_allclose(rates, direct)
    np.testing.assert_allclose(rates, [3 / 9, math.nan, 3 / 2])


def test_counts_agree_with_the_rates_of_jiwer():
    import jiwer

    rng = np.random.default_rng(0)
    texts = [
        " ".join(rng.choice(["een", "twee", "drie", "vier"], size=rng.integers(1, 9))) for _ in range(40)
    ]
    references, hypotheses = texts[:20], texts[20:]
    counts = error_counts(references, hypotheses, "none")
    assert word_error_rate(counts) == pytest.approx(jiwer.wer(references, hypotheses))
    assert character_error_rate(counts) == pytest.approx(jiwer.cer(references, hypotheses))


def test_without_jiwer_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(InputError) as error:
        error_counts(["a"], ["a"], "basic")
    assert str(error.value) == (
        "The word error rate must be computed with the package jiwer, which is not installed. "
        "Run pip install 'hf-finetune[speech]'."
    )


def test_test_sentences_are_found_among_the_training_transcripts():
    test, train = ["Wat?", "Goed idee.", "Nee", "..."], ["WAT!", "goed  idee", "!"]
    assert sentences_in_training(test, train, "basic").tolist() == [True, True, False, False]
    assert sentences_in_training(test, train, "none").tolist() == [False] * 4
    assert sentences_in_training([], train, "basic").dtype == bool


def test_all_normalizers_keep_separated_words_and_are_documented():
    documentation = text_normalizer.__doc__
    for name in NORMALIZERS:
        assert f"``{name}``" in documentation
        assert text_normalizer(name)("twee  schepen") == "twee schepen"
    assert ErrorCounts._fields == ("word_errors", "words", "character_errors", "characters")

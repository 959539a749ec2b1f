"""Inputs of similar length share a batch, and the outputs keep the order of the inputs."""

import random

import numpy as np
import pytest
from evaluation_helpers import save_bert

from hf_finetune.evaluation import similar_lengths
from hf_finetune.evaluation.classifier import iter_logits, load_classifier
from hf_finetune.evaluation.similar_lengths import WINDOW, in_similar_batches


def batches(inputs, batch_size, outputs=2):
    """Return the lengths in each computed batch, and the returned outputs: of an input, its number and length."""
    computed = []

    def compute(stream):
        items = list(stream)
        for start in range(0, len(items), batch_size):
            batch = items[start : start + batch_size]
            computed.append([length for _, length in batch])
            yield np.array(batch)

    found = list(in_similar_batches(compute, iter(inputs), lambda item: item[1], batch_size, outputs))
    return computed, found


@pytest.mark.parametrize("count", [0, 1, 4, 5, 4 * WINDOW, 4 * WINDOW + 3])
def test_outputs_are_in_the_order_of_the_inputs(count):
    draws = random.Random(0)
    inputs = [(number, draws.randrange(100)) for number in range(count)]
    _, found = batches(inputs, 4)
    assert [tuple(row) for batch in found for row in batch.tolist()] == inputs
    assert [len(batch) for batch in found] == [min(4, count - start) for start in range(0, count, 4)]


def test_a_batch_has_inputs_of_similar_length():
    computed, _ = batches(list(enumerate([1, 9, 2, 8, 3, 7])), 2)
    assert computed == [[9, 8], [7, 3], [2, 1]]


def test_only_a_window_is_read_at_a_time():
    stream = iter(enumerate(range(10 * WINDOW)))
    found = in_similar_batches(lambda items: iter([np.array(list(items))]), stream, len, 2, 2)
    next(found)
    assert next(stream)[0] == 2 * WINDOW


def test_the_window_is_smaller_with_many_outputs(monkeypatch):
    monkeypatch.setattr(similar_lengths, "MAX_VALUES", 16)
    computed, _ = batches(list(enumerate([1, 9, 2, 8, 3, 7])), 2, outputs=4)
    assert computed == [[9, 8], [2, 1], [7, 3]]
    computed, _ = batches(list(enumerate([1, 9, 2, 8])), 2, outputs=100)
    assert computed == [[9, 1], [8, 2]]


def test_texts_of_similar_length_are_predicted_in_one_batch(tmp_path, monkeypatch):
    save_bert(tmp_path)
    texts = ["good film", "bad " * 9, "bad", "good " * 10, "film", "good " * 8]
    classifier = load_classifier(tmp_path, batch_size=2)
    forward, shapes = classifier.pipe.forward, []

    def record(inputs, **options):
        shapes.append(tuple(inputs["input_ids"].shape))
        return forward(inputs, **options)

    monkeypatch.setattr(classifier.pipe, "forward", record)
    found = np.stack(list(iter_logits(classifier, [{"text": text} for text in texts])))
    assert [columns for _, columns in shapes] == [12, 11, 3]
    alone = load_classifier(tmp_path, batch_size=1)
    expected = [next(iter_logits(alone, [{"text": text}])) for text in texts]
    assert found == pytest.approx(np.stack(expected), abs=1e-5)


def test_a_forward_pass_on_the_cpu_has_few_texts(tmp_path, monkeypatch):
    save_bert(tmp_path)
    classifier = load_classifier(tmp_path, batch_size=64)
    forward, sizes = classifier.pipe.forward, []

    def record(inputs, **options):
        sizes.append(len(inputs["input_ids"]))
        return forward(inputs, **options)

    monkeypatch.setattr(classifier.pipe, "forward", record)
    texts = [{"text": "good " * (1 + row % 10)} for row in range(20)]
    found = np.stack(list(iter_logits(classifier, texts)))
    assert sizes == [8, 8, 4]
    alone = load_classifier(tmp_path, batch_size=1)
    assert found == pytest.approx(np.stack(list(iter_logits(alone, texts))), abs=1e-5)

"""Texts pooled in several ways: values by hand, comparison of poolings, and no effect of padding."""

import numpy as np
import pytest
import torch
from head_helpers import HEADS, built, save

from hf_finetune.cache.feature_kinds import ForwardSettings
from hf_finetune.cache.pooled_texts import PooledRunner, pool_texts, poolings_for, share_texts
from hf_finetune.cache.prefix_cache import CacheSettings
from hf_finetune.cache.writer import PrefixWriter
from hf_finetune.models.find_head import head_names
from hf_finetune.tasks import Inputs

EVERY = ("own", "cls", "mean", "max", "weightedmean", "mean_sqrt_len")


class Texts(torch.utils.data.Dataset):
    def __init__(self, lengths):
        generator = torch.Generator().manual_seed(0)
        self.rows = [torch.randint(4, 15, (length,), generator=generator) for length in lengths]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {"input_ids": self.rows[index], "labels": torch.tensor(0)}


def padded(examples):
    width = max(len(example["input_ids"]) for example in examples)
    ids, mask = torch.zeros(len(examples), width, dtype=torch.long), torch.zeros(len(examples), width)
    for row, example in enumerate(examples):
        ids[row, : len(example["input_ids"])] = example["input_ids"]
        mask[row, : len(example["input_ids"])] = 1
    return {"input_ids": ids, "attention_mask": mask.long(), "labels": torch.zeros(len(examples))}


def test_each_pooling_is_that_of_the_text_without_its_padding(tmp_path, tiny_model):
    model, texts = tiny_model("bert").eval(), Texts([3, 9, 5, 2])
    settings = CacheSettings(tmp_path, 1, None, 10**9, {"train": "test"})
    forward = ForwardSettings(4, torch.device("cpu"))
    found = pool_texts(model, {"train": texts}, padded, settings, EVERY, forward)
    for row, ids in enumerate(texts.rows):
        with torch.no_grad():
            output = model.base_model(input_ids=ids[None])
        tokens = output[0][0].double().numpy()
        places = np.arange(1, len(tokens) + 1)[:, None]
        expected = {
            "own": output.pooler_output[0].numpy(),
            "cls": tokens[0],
            "mean": tokens.mean(axis=0),
            "max": tokens.max(axis=0),
            "weightedmean": (tokens * places).sum(axis=0) / places.sum(),
            "mean_sqrt_len": tokens.sum(axis=0) / np.sqrt(len(tokens)),
        }
        for name in EVERY:
            assert found[name]["train"][row] == pytest.approx(expected[name], abs=1e-5), name
    kept = {path.name for path in tmp_path.iterdir()}
    again = pool_texts(model, {"train": texts}, padded, settings, EVERY, forward)
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert all(np.array_equal(again[name]["train"], found[name]["train"]) for name in EVERY)
    assert len(head_names(model)) == 2


@pytest.mark.parametrize("declared", ["cls", "mean", "max", None])
def test_the_architectures_own_pooling_is_compared_with_those_of_a_head_and_the_declared_one(
    declared, tiny_model
):
    names = poolings_for(tiny_model("bert").config, declared)
    assert names[0] == "own" and set(names) == {"own", "cls", "mean", *filter(None, [declared])}


def test_vectors_are_computed_once_whatever_head_the_model_has(tmp_path, tiny_model, monkeypatch):
    """A model with the head of this package has the tokens of the one that has its own, with the same weights."""
    checkpoint = save(tiny_model("bert"), tmp_path / "checkpoint")
    own, mean = (built(checkpoint, "text", head) for head in (None, HEADS["mean"]))
    texts = Texts([3, 9, 5, 2])
    settings = CacheSettings(tmp_path / "cache", 1, None, 10**9, {"train": "test"}, text_pooling="mean")
    forward = ForwardSettings(4, torch.device("cpu"))
    computed = []
    compute = PrefixWriter.compute
    monkeypatch.setattr(
        PrefixWriter,
        "compute",
        lambda self, examples: computed.append(self.runner.kinds) or compute(self, examples),
    )
    first = pool_texts(own, {"train": texts}, padded, settings, ("own", "cls", "mean"), forward)
    second = pool_texts(mean, {"train": texts}, padded, settings, ("cls", "mean", "max"), forward)
    assert computed == [("own", "cls", "mean"), ("max",)]
    assert all(np.array_equal(first[name]["train"], second[name]["train"]) for name in ("cls", "mean"))
    inputs = Inputs(texts, None, padded)
    rows = [share_texts(model, head_names(model), inputs, settings, forward) for model in (own, mean)]
    assert rows[0].key == rows[1].key
    next(own.base_model.encoder.parameters()).data += 1
    assert share_texts(own, head_names(own), inputs, settings, forward).key != rows[0].key


def test_texts_of_similar_length_are_computed_together_and_stored_in_their_order(
    tmp_path, tiny_model, monkeypatch
):
    model, texts = tiny_model("bert").eval(), Texts([9, 2, 8, 3, 7, 4])
    settings = CacheSettings(tmp_path, 1, None, 10**9, {"train": "test"})
    widths = []
    collect = PooledRunner.collect
    monkeypatch.setattr(
        PooledRunner,
        "collect",
        lambda self, batch: widths.append(batch["input_ids"].shape[1]) or collect(self, batch),
    )
    forward = ForwardSettings(2, torch.device("cpu"))
    found = pool_texts(model, {"train": texts}, padded, settings, ("mean",), forward)["mean"]["train"]
    assert widths[-3:] == [3, 7, 9]
    for row, ids in enumerate(texts.rows):
        with torch.no_grad():
            expected = model.base_model(input_ids=ids[None])[0][0].mean(dim=0).numpy()
        assert found[row] == pytest.approx(expected, abs=1e-5)


def test_a_model_with_quantized_weights_shares_its_texts(tmp_path, tiny_model):
    """Integer weights cannot require gradients, and the vectors may depend on them."""
    model = tiny_model("bert").eval()
    codes = torch.nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
    model.base_model.register_parameter("codes", codes)
    settings = CacheSettings(tmp_path, 1, None, 10**9, {"train": "test"}, text_pooling="mean")
    forward = ForwardSettings(4, torch.device("cpu"))
    inputs = Inputs(Texts([3, 9, 5, 2]), None, padded)
    before = share_texts(model, head_names(model), inputs, settings, forward).key
    codes += 1
    assert share_texts(model, head_names(model), inputs, settings, forward).key != before
    assert not codes.requires_grad

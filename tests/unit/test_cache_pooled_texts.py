"""Texts pooled in several ways: values by hand, comparison of poolings, and no effect of padding."""

import numpy as np
import pytest
import torch

from hf_finetune.cache.pooled_texts import pool_texts, poolings_for
from hf_finetune.cache.prefix_cache import CacheSettings
from hf_finetune.models.find_head import head_names

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
    settings = CacheSettings(tmp_path, 1, None, 10**9, "test")
    how = {"batch_size": 4, "device": torch.device("cpu")}
    found = pool_texts(model, {"train": texts}, padded, settings, EVERY, **how).vectors
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
    again = pool_texts(model, {"train": texts}, padded, settings, EVERY, **how).vectors
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert all(np.array_equal(again[name]["train"], found[name]["train"]) for name in EVERY)
    assert len(head_names(model)) == 2


@pytest.mark.parametrize("declared", ["cls", "mean", "max", None])
def test_the_architectures_own_pooling_is_compared_with_those_of_a_head_and_the_declared_one(
    declared, tiny_model
):
    names = poolings_for(tiny_model("bert").config, declared)
    assert names[0] == "own" and set(names) == {"own", "cls", "mean", *filter(None, [declared])}

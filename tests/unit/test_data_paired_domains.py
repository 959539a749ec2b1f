"""Examples paired with an input of another domain: which one, in which epoch, and in one batch."""

from collections import Counter

import pytest
import torch
from torch.utils.data import Subset

from hf_finetune.data.distributed_sampling import PaddedDataset
from hf_finetune.data.paired_domains import TARGET, PairedCollate, PairedExamples
from hf_finetune.tasks.seeded_augmentation import SeededExamples, set_epoch


def rows(count, start=0, labels=True):
    return [{"value": start + index, **({"labels": index % 2} if labels else {})} for index in range(count)]


def second_column_names(paired):
    return [paired[index][TARGET]["value"] for index in range(len(paired))]


def test_each_input_comes_as_often_as_any_other_or_once_more():
    paired = PairedExamples(rows(10), rows(4, 100, labels=False), seed=3)
    assert len(paired) == 10
    counts = Counter(second_column_names(paired))
    assert sorted(counts) == [100, 101, 102, 103] and sorted(counts.values()) == [2, 2, 3, 3]
    assert len(set(second_column_names(PairedExamples(rows(3), rows(8, 100, labels=False), seed=3)))) == 3


@pytest.mark.defends(
    "hf_finetune.data.paired_domains:PairedExamples.set_epoch",
    why="Each epoch pairs the examples with other inputs of the other domain",
)
def test_the_input_depends_on_seed_epoch_and_example_only():
    one, other = (PairedExamples(rows(9), rows(5, 100, labels=False), seed=3) for _ in range(2))
    first = second_column_names(one)
    torch.rand(3)
    assert [other[index][TARGET]["value"] for index in reversed(range(9))] == first[::-1]
    set_epoch(one, 1)
    assert second_column_names(one) != first
    set_epoch(one, 0)
    assert second_column_names(one) == first
    assert second_column_names(PairedExamples(rows(9), rows(5, 100, labels=False), seed=4)) != first


@pytest.mark.defends("hf_finetune.data.paired_domains:PairedExamples.set_epoch")
def test_the_epoch_reaches_the_examples_of_both_domains():
    source, target = (SeededExamples(rows(4), seed=0) for _ in range(2))
    set_epoch(PairedExamples(Subset(source, [0, 2]), target, seed=0), 5)
    assert source.epoch == target.epoch == 5


def test_a_batch_contains_the_labelled_examples_first_and_only_their_labels():
    def collate(examples):
        assert all(TARGET not in one for one in examples)
        return {name: torch.tensor([one[name] for one in examples]) for name in examples[0]}

    paired = PairedExamples(rows(3), rows(4, 100, labels=False), seed=0)
    batch = PairedCollate(collate)([paired[0], paired[2]])
    assert batch["value"].tolist() == [0, 2, *(second_column_names(paired)[index] for index in (0, 2))]
    assert batch["labels"].tolist() == [0, 0]
    plain = PairedCollate(collate)(rows(3))
    assert plain["value"].tolist() == [0, 1, 2] and plain["labels"].tolist() == [0, 1, 0]


def test_a_filler_has_a_paired_input_but_no_label_that_counts():
    paired = PaddedDataset(PairedExamples(rows(3), rows(4, 100, labels=False), seed=0))
    filler = paired[4]
    assert filler["labels"] == -100 and filler[TARGET] == paired[1][TARGET]

"""Sampling for several processes: each example once, fillers that do not count, exact counts of labels."""

import math

import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler
from transformers import TrainingArguments

from hf_finetune.data.distributed_sampling import (
    DistributedBatchSampler,
    LengthGroupedSampler,
    PaddedDataset,
    count_labels,
    split_into_batches,
)
from hf_finetune.targets.losses import loss_for, valid_labels
from hf_finetune.training.trainer import SingleStageTrainer


@pytest.mark.parametrize("processes", [2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 24, 25])
def test_each_example_is_dealt_once_and_each_process_gets_as_many_batches(size, batch_size, processes):
    order = [(7 * index + 3) % size for index in range(size)] if size % 7 else list(range(size))
    batches = list(split_into_batches(order, size, batch_size, processes))
    rounds = math.ceil(size / (batch_size * processes))
    assert len(batches) == len(DistributedBatchSampler(SequentialSampler(order), batch_size, processes))
    assert len(batches) == rounds * processes
    assert [index for batch in batches for index in batch if index < size] == order
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert {len(batch) for batch in batches[: (rounds - 1) * processes]} <= {batch_size}
    last = batches[-processes:]
    real = [sum(index < size for index in batch) for batch in last]
    assert max(real) - min(real) <= 1 and real[0] >= 1
    # a filler stands alone in its batch
    assert all(len(batch) == 1 for batch in last if max(batch) >= size)


def test_a_step_has_the_same_examples_on_any_number_of_processes():
    order = torch.randperm(29, generator=torch.Generator().manual_seed(0)).tolist()

    def steps(batch_size, accumulation, processes):
        batches = list(split_into_batches(order, 29, batch_size, processes))
        at_once = accumulation * processes
        return [
            sorted(index for batch in batches[start : start + at_once] for index in batch if index < 29)
            for start in range(0, len(batches), at_once)
        ]

    alone = steps(12, 1, 1)
    assert [len(step) for step in alone] == [12, 12, 5]
    for other in [(6, 1, 2), (3, 2, 2), (4, 1, 3), (2, 2, 3), (1, 4, 3), (4, 3, 1)]:
        assert steps(*other) == alone


def padded(order, lengths, size):
    """Return the number of tokens of all batches, including padding."""
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)


def test_examples_of_about_one_length_are_together():
    lengths = torch.randint(5, 100, (1000,), generator=torch.Generator().manual_seed(0)).tolist()
    sampler = LengthGroupedSampler(lengths, 8, seed=3)
    order = list(sampler)
    assert sorted(order) == list(range(1000)) and len(sampler) == 1000
    assert padded(order, lengths, 8) < 1.15 * sum(lengths) < padded(list(range(1000)), lengths, 8)


def test_the_order_by_length_depends_on_seed_and_epoch_only():
    lengths = [index % 7 for index in range(50)]
    one, other = (LengthGroupedSampler(lengths, 4, seed=3) for _ in range(2))
    torch.manual_seed(1)
    first = list(one)
    torch.manual_seed(2)
    assert list(other) == first
    for sampler in (one, other):
        sampler.set_epoch(1)
    assert list(one) == list(other) != first
    assert list(LengthGroupedSampler(lengths, 4, seed=4)) != first


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer._get_train_sampler",
    why="Batches hold texts of similar length",
)
def test_a_trainer_with_lengths_makes_batches_of_about_one_length(tmp_path, tiny_model):
    lengths = [3 + index % 5 for index in range(600)]
    orders = []
    for given in (lengths, None):
        trainer = SingleStageTrainer(
            groups=(),
            lengths=given,
            model=tiny_model("bert"),
            args=TrainingArguments(
                tmp_path, per_device_train_batch_size=6, gradient_accumulation_steps=2, report_to="none"
            ),
            train_dataset=Numbers(lengths),
        )
        orders.append(list(trainer._get_train_sampler()))
    grouped, drawn = orders
    assert padded(grouped, lengths, 12) < padded(drawn, lengths, 12)
    assert sorted(grouped) == sorted(drawn) == list(range(600))


class Numbers(torch.utils.data.Dataset):
    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"x": index, "labels": self.labels[index]}


def loaders(labels, batch_size, processes, wrap=True):
    """Return the loader of each process as the Trainer makes it: ours, or accelerate's own."""
    for process in range(processes):
        if wrap:
            sampler = RandomSampler(range(len(labels)))
            batches = DistributedBatchSampler(sampler, batch_size, processes)
            loader = DataLoader(PaddedDataset(Numbers(labels)), batch_sampler=batches)
        else:
            loader = DataLoader(Numbers(labels), batch_size=batch_size, shuffle=True)
        yield prepare_data_loader(
            loader, num_processes=processes, process_index=process, use_seedable_sampler=True, data_seed=5
        )


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("size", [5, 7, 12, 13])
def test_accelerate_gives_each_process_its_own_batches_in_an_order_that_all_agree_on(size, processes):
    made = list(loaders(list(range(size)), 2, processes))
    epochs = []
    for epoch in (0, 1):
        for loader in made:
            loader.set_epoch(epoch)
        seen = [[batch["x"].tolist() for batch in loader] for loader in made]
        assert len({len(batches) for batches in seen}) == 1 == len({len(loader) for loader in made})
        labels = [batch["labels"] for loader in made for batch in loader]
        assert count_labels([{"labels": label} for label in labels], lambda number: number[None]) == size
        epochs.append([index for batches in seen for batch in batches for index in batch if index < size])
        assert sorted(set(epochs[-1])) == list(range(size))
    assert epochs[0] != epochs[1]


def test_accelerate_alone_still_counts_some_examples_twice():
    """When this fails, accelerate distributes uneven epochs exactly, and ``DistributedBatchSampler`` can be removed."""
    seen = [
        index for loader in loaders(range(7), 2, 2, wrap=False) for batch in loader for index in batch["x"]
    ]
    assert len(seen) == 8 > len({int(index) for index in seen}) == 7


@pytest.mark.parametrize(
    ("labels", "filler"),
    [
        ([3, 1], -100),
        ([0.5, -100.0], math.nan),
        ([[0.0, 1.0], [1.0, 1.0]], [math.nan, math.nan]),
        ([torch.tensor(2), torch.tensor(0)], torch.tensor(-100)),
        ([torch.tensor([1.0]), torch.tensor([0.0])], torch.tensor([math.nan])),
    ],
)
def test_beyond_the_end_examples_come_again_without_their_labels(labels, filler):
    examples = PaddedDataset(Numbers(labels))
    assert len(examples) == 2
    assert examples[1] == {"x": 1, "labels": labels[1]}
    found = examples[2]
    assert found["x"] == 0
    torch.testing.assert_close(
        torch.as_tensor(found["labels"]), torch.as_tensor(filler), equal_nan=True, rtol=0, atol=0
    )


def test_a_continuous_target_of_minus_100_counts():
    """transformers 5.23 does not count it in the number of labels that divides the loss."""
    assert valid_labels(torch.tensor([-100.0, 3.0, math.nan])).tolist() == [True, True, False]
    assert valid_labels(torch.tensor([-100, 3])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("target", "labels", "filler"),
    [
        ("single_label", torch.tensor([0, 2, 1]), torch.tensor([-100])),
        ("multi_label", torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1]]), torch.full((1, 3), math.nan)),
        ("regression", torch.tensor([0.5, -100.0, 2.0]), torch.tensor([math.nan])),
    ],
)
def test_a_filler_changes_neither_loss_nor_gradient(target, labels, filler):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 1 if target == "regression" else 3, generator=generator)
    loss = loss_for(target, 0.1 if target == "single_label" else 0.0)

    def value_and_gradient(logits, labels, items):
        leaf = logits.clone().requires_grad_()
        value = loss({"logits": leaf}, labels, items)
        value.backward()
        return value.detach(), leaf.grad

    with_filler, gradient = value_and_gradient(logits, torch.cat([labels, filler]), labels.numel())
    without, expected = value_and_gradient(logits[:3], labels, labels.numel())
    assert torch.equal(with_filler, without)
    assert torch.equal(gradient[:3], expected) and torch.equal(gradient[3:], torch.zeros_like(gradient[3:]))
    alone, gradient = value_and_gradient(logits[3:], filler, labels.numel())
    assert alone == 0 and not gradient.any()
    assert torch.equal(
        loss({"logits": logits}, torch.cat([labels, filler])), loss({"logits": logits[:3]}, labels)
    )


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer._get_num_items_in_batch",
    why="The labels of a step are counted exactly: targets of -100 count, padding does not",
)
def test_the_trainer_counts_continuous_targets_exactly(tmp_path, tiny_model):
    """The stock Trainer ignores every label of -100, also a continuous one, and counts missing values."""
    options = TrainingArguments(output_dir=str(tmp_path), report_to="none")
    trainer = SingleStageTrainer(
        groups=(), compute_loss_func=loss_for("regression"), model=tiny_model("bert"), args=options
    )
    batches = [{"labels": torch.tensor([0.5, -100.0])}, {"labels": torch.tensor([-100.0, math.nan])}]
    assert trainer._get_num_items_in_batch(batches, torch.device("cpu")) == 3

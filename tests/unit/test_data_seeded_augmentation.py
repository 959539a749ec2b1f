"""Augmentation depends only on the seed, the epoch and the example."""

import pytest
import torch
from removals import unseeded

from hf_finetune.tasks.seeded_augmentation import SeededExamples


class Chances:
    """Each example is two draws from torch's global generator."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.rand(2)


def drawn(seed=3, epoch=0, order=range(4)):
    examples = SeededExamples(Chances(), seed)
    examples.set_epoch(epoch)
    return {index: examples[index].tolist() for index in order}


@pytest.mark.defends(
    "hf_finetune.tasks.seeded_augmentation:SeededExamples.__getitem__",
    why="Augmentation follows from seed, epoch and example",
    by=unseeded,
)
def test_an_example_is_the_same_in_any_order_and_at_any_time():
    torch.manual_seed(1)
    forwards = drawn()
    torch.manual_seed(2)
    assert drawn(order=(3, 0, 2, 1)) == forwards
    assert drawn(order=(2,)) == {2: forwards[2]}


def test_random_numbers_depend_on_example_epoch_and_seed():
    values = [tuple(value) for seed in (3, 4) for epoch in (0, 1) for value in drawn(seed, epoch).values()]
    assert len(set(values)) == 2 * 2 * 4


def test_the_global_generator_is_left_where_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    drawn()
    assert torch.equal(torch.rand(3), expected)


def test_other_examples_get_the_same_chances():
    examples = SeededExamples(Chances(), 3)
    examples.set_epoch(2)
    other = examples.over(Chances())
    assert all(torch.equal(other[index], examples[index]) for index in range(4))
    other.set_epoch(0)
    assert other[1].tolist() == drawn()[1] != examples[1].tolist()

"""Batches of images are computed in micro-batches on the CPU: completely, in order, and none too large."""

import pytest
import torch

from hf_finetune.cache.micro_batches import MAX_PIXELS, iter_micro_batches


@pytest.mark.parametrize(
    ("count", "side", "expected"),
    [
        (32, 160, [32]),
        (32, 224, [16, 16]),
        (33, 224, [17, 16]),
        (64, 384, [7] * 9 + [1]),
        (3, 2_000, [1, 1, 1]),
        (1, 224, [1]),
    ],
)
def test_a_batch_of_images_is_divided_evenly(count, side, expected):
    images = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, side, side)
    batch = {"pixel_values": images, "labels": torch.arange(count)}
    pieces = list(iter_micro_batches(batch, torch.device("cpu")))
    assert [len(piece["labels"]) for piece in pieces] == expected
    assert torch.equal(
        torch.cat([piece["pixel_values"][:, 0, 0, 0] for piece in pieces]), torch.arange(count).float()
    )
    assert all(
        len(piece["labels"]) == 1 or len(piece["labels"]) * side * side <= 1.1 * MAX_PIXELS
        for piece in pieces
    )


@pytest.mark.parametrize(
    ("batch", "device"),
    [
        ({"input_ids": torch.zeros(4, 9), "attention_mask": torch.ones(4, 9)}, "cpu"),
        ({"pixel_values": torch.empty(64, 3, 384, 384, device="meta")}, "cuda"),
    ],
)
def test_texts_and_images_on_an_accelerator_stay_whole(batch, device):
    (piece,) = iter_micro_batches(batch, torch.device(device))
    assert piece.keys() == batch.keys() and all(piece[name] is batch[name] for name in batch)

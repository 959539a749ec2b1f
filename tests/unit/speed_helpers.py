"""Execution modes and batches for their tests."""

from dataclasses import replace

import torch

from hf_finetune.performance.execution_modes import ExecutionMode
from hf_finetune.targets.losses import loss_for

__all__ = [
    "BF16",
    "BF16_LAST",
    "COMPILED",
    "CPU",
    "FP32",
    "LAST",
    "LOSS",
    "MODES",
    "image_batch",
    "text_batch",
]

FP32, LAST = ExecutionMode(), ExecutionMode("fp32", "channels_last")
BF16, BF16_LAST = ExecutionMode("bf16"), ExecutionMode("bf16", "channels_last")
MODES = [FP32, LAST, BF16, BF16_LAST]
COMPILED = [replace(mode, compile=True) for mode in MODES]
CPU = torch.device("cpu")
LOSS = loss_for("single_label")


def image_batch(count=8):
    chance = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    return {"pixel_values": torch.randn(count, 3, 32, 32, generator=chance), "labels": labels}


def text_batch(count=8):
    tokens = torch.arange(count * 12).view(count, 12) % 10 + 5
    labels = torch.arange(count) % 3
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}

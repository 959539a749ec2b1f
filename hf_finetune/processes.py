"""The processes that ``accelerate launch`` started, or the one that there is."""

import os

import torch
from accelerate import PartialState

__all__ = ["is_sharded", "start_processes"]


def start_processes() -> PartialState:
    """Join the processes of a launch. Without an accelerator they compute on the CPU, and still know each other.

    accelerate 1.15 takes several processes for one each unless both of them, ``PartialState`` and the Trainer's own
    state, are told that it is the CPU that is used.
    """
    if torch.accelerator.is_available():
        return PartialState()
    os.environ["ACCELERATE_USE_CPU"] = "true"
    return PartialState(cpu=True)


def is_sharded() -> bool:
    """Say whether each process is to hold a part of the model only: under FSDP or DeepSpeed, as accelerate tells."""
    return "true" in (os.environ.get("ACCELERATE_USE_FSDP"), os.environ.get("ACCELERATE_USE_DEEPSPEED"))

"""The check of precision: which one is fastest here, and whether it computes the same loss."""

import copy
from dataclasses import dataclass

import torch

from hf_finetune.distributed import start_processes
from hf_finetune.doctor.check_target import CheckTarget, made_up_data
from hf_finetune.doctor.gradients import widest_stage
from hf_finetune.doctor.result import CheckResult
from hf_finetune.performance.execution_modes import (
    ExecutionMode,
    MemoryFormat,
    Precision,
    benchmark_steps,
    milliseconds,
    time_in_turn,
)
from hf_finetune.targets.losses import loss_for
from hf_finetune.training.freezing import freeze_all_but

__all__ = ["Timing", "check_precision", "judge"]

PRECISION = "precision"
AGREES = 0.02
"""Largest difference of a loss from fp32's, as a share of it. bf16 keeps 8 bits: a single rounding is 0.4 %."""
WORTH_IT = 1.1
"""Least gain that is suggested: on a busy machine the times of equal steps differ by some percent."""
STEPS = 3
WORDS = 64


@dataclass(frozen=True)
class Timing:
    """A way to compute, measured.

    Attributes:
        precision: ``fp32``, ``bf16`` or ``fp16``.
        memory_format: ``contiguous`` or ``channels_last``.
        seconds: Of one step, forward and backward; the fastest of several.
        loss: Of one batch, in eval mode.
    """

    precision: Precision
    memory_format: MemoryFormat
    seconds: float
    loss: float

    @property
    def title(self) -> str:
        """Name it."""
        return ExecutionMode(self.precision, self.memory_format).title


def check_precision(subject: CheckTarget) -> CheckResult:
    """Time a step of the widest stage in each precision and memory layout, and compare the losses."""
    ready, index = subject.ready, widest_stage(subject)
    device = start_processes().device
    if device.type not in ("cpu", "cuda"):
        return CheckResult(
            PRECISION, "skipped", f"It is measured on cpu and cuda only, not on {device.type}."
        )
    data = made_up_data(
        ready.task.modality,
        ready.data.target,
        ready.data.label_names,
        words=WORDS,
        pair=ready.recipe.data.columns.text_pair is not None,
    )
    inputs = ready.task.prepare(data, ready.processor, ready.recipe.data, ready.recipe.seed)
    size = ready.recipe.stages[index].batch_size if device.type == "cuda" else len(subject.examples)
    batch = inputs.collate([inputs.train[number % len(data.train)] for number in range(size)])
    batch = {name: value.to(device) for name, value in batch.items()}
    layouts: tuple[MemoryFormat, ...] = ("contiguous",)
    if ready.task.modality == "image":
        layouts = ("contiguous", "channels_last")
    model = copy.deepcopy(subject.model).to(device)
    trainable = ready.plan.stages[index].trainable
    freeze_all_but(model, trainable)
    ways = [ExecutionMode(precision, layout) for precision in _precisions(device) for layout in layouts]
    with benchmark_steps(model, batch, loss_for(ready.data.target), trainable) as bench:
        losses = [bench.numbers(way).loss for way in ways]  # also the first, slow, use of each kernel
        seconds = time_in_turn(bench, ways, STEPS)
    timings = [
        Timing(way.precision, way.memory_format, min(seconds[way]), loss)
        for way, loss in zip(ways, losses, strict=True)
    ]
    speed = ready.recipe.speed
    return judge(timings, size, speed.precision, speed.memory_format if len(layouts) > 1 else "contiguous")


def judge(timings: list[Timing], size: int, precision: str, memory_format: str) -> CheckResult:
    """Say what the times and losses mean for a recipe.

    Args:
        timings: The first one is fp32, contiguous: what the others are compared with.
        size: Examples per step.
        precision: The recipe's.
        memory_format: The recipe's.
    """
    plain = timings[0]
    ours = next((t for t in timings if (t.precision, t.memory_format) == (precision, memory_format)), None)
    shown = ", ".join(
        f"{timing.title} {milliseconds(timing.seconds)}{' (the recipe)' if timing is ours else ''}"
        for timing in timings
    )
    measured = f"A step of {size}: {shown}."
    if ours is None:
        return CheckResult(
            PRECISION,
            "fail",
            f"{measured} This device does not compute in {precision}, which the recipe asks for.",
            "Set speed.precision=fp32.",
        )
    if not _agrees(ours, plain):
        found = f"With {ours.title} the loss is {ours.loss:.4g}, with fp32 {plain.loss:.4g}."
        return CheckResult(PRECISION, "fail", f"{measured} {found}", "Set speed.precision=fp32.")
    rejected = [timing.title for timing in timings if not _agrees(timing, plain)]
    if rejected:
        measured += f" The loss of {' and '.join(rejected)} is not that of fp32."
    best = min((timing for timing in timings if _agrees(timing, plain)), key=lambda timing: timing.seconds)
    gain = ours.seconds / best.seconds
    if best is ours or gain < WORTH_IT:
        return CheckResult(PRECISION, "pass", f"{measured} None is much faster than the recipe's.")
    fields = {"precision": best.precision, "memory_format": best.memory_format}
    current = {"precision": precision, "memory_format": memory_format}
    changes = " ".join(f"speed.{name}={value}" for name, value in fields.items() if value != current[name])
    return CheckResult(
        PRECISION,
        "pass",
        measured,
        f"{changes} is {gain:.1f} times as fast; its loss agrees with fp32 ({best.loss:.4g}, {plain.loss:.4g}).",
    )


def _precisions(device: torch.device) -> list[Precision]:
    if device.type == "cpu":
        return ["fp32", "bf16"]
    return ["fp32", "bf16", "fp16"] if torch.cuda.is_bf16_supported() else ["fp32", "fp16"]


def _agrees(timing: Timing, plain: Timing) -> bool:
    return abs(timing.loss - plain.loss) <= AGREES * abs(plain.loss)

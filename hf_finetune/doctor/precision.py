"""Check of the precision: the loss agrees with fp32, and no other precision or memory format is much faster."""

import copy
from dataclasses import dataclass
from itertools import product

import torch

from hf_finetune.distributed import start_processes
from hf_finetune.doctor.check_target import CheckTarget, sets_optional_column, synthetic_data
from hf_finetune.doctor.gradients import widest_stage
from hf_finetune.doctor.result import CheckResult
from hf_finetune.performance.execution_modes import (
    ExecutionMode,
    MemoryFormat,
    Precision,
    benchmark_steps,
    milliseconds,
    time_interleaved,
)
from hf_finetune.training.freezing import freeze_all_but
from hf_finetune.training.sequence_validation import label_loss

__all__ = ["Timing", "check_precision", "precision_result"]

PRECISION = "precision"
LOSS_TOLERANCE = 0.02
"""Largest difference from the fp32 loss, as a fraction of it. bf16 has 8 bits of precision: one rounding is 0.4 %."""
MIN_SPEEDUP = 1.1
"""Smallest speedup to suggest; on a busy machine the times of equal steps differ by a few percent."""
STEPS = 3
"""Number of timed steps of each execution mode."""
TEXT_WORDS = 64
"""Number of words of the longest synthetic text."""


@dataclass(frozen=True)
class Timing:
    """Benchmark of an execution mode.

    Attributes:
        precision: ``fp32``, ``bf16`` or ``fp16``.
        memory_format: ``contiguous`` or ``channels_last``.
        seconds: Time of one step (forward and backward pass), the fastest of several.
        loss: Loss of one batch in eval mode.
    """

    precision: Precision
    memory_format: MemoryFormat
    seconds: float
    loss: float

    @property
    def title(self) -> str:
        """Title of the execution mode."""
        return ExecutionMode(self.precision, self.memory_format).title


def check_precision(subject: CheckTarget) -> CheckResult:
    """Time a step of the stage with the most parameters in each precision and memory format, and compare the losses."""
    prepared, index = subject.prepared, widest_stage(subject)
    device = start_processes().device
    if device.type not in ("cpu", "cuda"):
        reason = f"It is measured on cpu and cuda only, not on {device.type}."
        return CheckResult(PRECISION, "skipped", reason)
    data = synthetic_data(
        prepared.task.modality,
        prepared.data.target,
        prepared.data.label_names,
        words=TEXT_WORDS,
        pair=sets_optional_column(prepared.recipe),
    )
    inputs = prepared.task.prepare(data, prepared.processor, prepared.recipe.data, prepared.recipe.seed)
    size = prepared.recipe.stages[index].batch_size if device.type == "cuda" else len(subject.examples)
    batch = inputs.collate([inputs.train[number % len(inputs.train)] for number in range(size)])
    batch = {name: value.to(device) for name, value in batch.items()}
    spatial = prepared.task.modality.is_spatial
    memory_formats: tuple[MemoryFormat, ...] = ("contiguous", "channels_last") if spatial else ("contiguous",)
    model = copy.deepcopy(subject.model).to(device)
    trainable = prepared.plan.stages[index].trainable
    freeze_all_but(model, trainable)
    pairs = product(_precisions(device), memory_formats)
    modes = [ExecutionMode(precision, memory_format) for precision, memory_format in pairs]
    loss = label_loss(prepared.data.target, inputs.sequences)
    with benchmark_steps(model, batch, loss, trainable) as bench:
        losses = [
            bench.compute_outputs(mode).loss for mode in modes
        ]  # also warms up the kernels for the timing
        seconds = time_interleaved(bench, modes, STEPS)
    timings = [
        Timing(mode.precision, mode.memory_format, min(seconds[mode]), loss)
        for mode, loss in zip(modes, losses, strict=True)
    ]
    speed = prepared.recipe.speed
    return precision_result(timings, size, speed.precision, speed.memory_format if spatial else "contiguous")


def precision_result(timings: list[Timing], size: int, precision: str, memory_format: str) -> CheckResult:
    """Return the result of the check for given benchmarks.

    Args:
        timings: Benchmarks of the execution modes. The first one is fp32 and contiguous, the reference for the losses.
        size: Examples per step.
        precision: Precision of the recipe.
        memory_format: Memory format of the recipe.

    Returns:
        A failure if the device lacks the recipe's precision, or its loss does not agree with fp32; otherwise a pass,
        with a suggestion if another mode is at least ``MIN_SPEEDUP`` times as fast and its loss agrees with fp32. A
        recipe that leaves the choice to the run (``auto``) passes.
    """
    reference = timings[0]
    requested = next(
        (t for t in timings if (t.precision, t.memory_format) == (precision, memory_format)), None
    )
    modes = ", ".join(
        f"{timing.title} {milliseconds(timing.seconds)}{' (the recipe)' if timing is requested else ''}"
        for timing in timings
    )
    measured = f"A step of {size}: {modes}."
    if "auto" in (precision, memory_format) and any(
        precision in (timing.precision, "auto") and memory_format in (timing.memory_format, "auto")
        for timing in timings
    ):
        return CheckResult(PRECISION, "pass", f"{measured} A run measures them and chooses one (auto).")
    if requested is None:
        reason = f"The recipe sets precision {precision}, which this device does not support."
        return CheckResult(PRECISION, "fail", f"{measured} {reason}", "Set speed.precision=fp32.")
    if not _agrees(requested, reference):
        difference = (
            f"With {requested.title} the loss is {requested.loss:.4g}, with fp32 {reference.loss:.4g}."
        )
        return CheckResult(PRECISION, "fail", f"{measured} {difference}", "Set speed.precision=fp32.")
    rejected = [timing.title for timing in timings if not _agrees(timing, reference)]
    if rejected:
        measured += f" The loss of {' and '.join(rejected)} differs from that of fp32."
    best = min(
        (timing for timing in timings if _agrees(timing, reference)), key=lambda timing: timing.seconds
    )
    gain = requested.seconds / best.seconds
    if best is requested or gain < MIN_SPEEDUP:
        return CheckResult(
            PRECISION, "pass", f"{measured} No other mode is much faster than that of the recipe."
        )
    fields = {"precision": best.precision, "memory_format": best.memory_format}
    current = {"precision": precision, "memory_format": memory_format}
    changes = " ".join(f"speed.{name}={value}" for name, value in fields.items() if value != current[name])
    losses = f"{best.loss:.4g}, {reference.loss:.4g}"
    suggestion = f"{changes} is {gain:.1f} times as fast; its loss agrees with fp32 ({losses})."
    return CheckResult(PRECISION, "pass", measured, suggestion)


def _precisions(device: torch.device) -> list[Precision]:
    if device.type == "cpu":
        return ["fp32", "bf16"]
    return ["fp32", "bf16", "fp16"] if torch.cuda.is_bf16_supported() else ["fp32", "fp16"]


def _agrees(timing: Timing, reference: Timing) -> bool:
    return abs(timing.loss - reference.loss) <= LOSS_TOLERANCE * abs(reference.loss)

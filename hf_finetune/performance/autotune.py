"""``speed: auto``: choose the fastest execution mode of a stage whose results agree with fp32, by measuring."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from hf_finetune.performance.autotune_history import (
    Measurement,
    load_measurement,
    save_measurement,
    speed_key,
)
from hf_finetune.performance.execution_modes import (
    SLOW_RATIO,
    ExecutionMode,
    StepBenchmark,
    StepOutputs,
    benchmark_steps,
    milliseconds,
    relative_difference,
    time_interleaved,
)

__all__ = ["Choice", "choose_mode", "decide", "measure"]

FP32_MODE = ExecutionMode()
TOO_SHORT = "the stage is too short to benchmark other modes"
NO_TIME = "no time was left for it"
BUDGET_SHARE = 0.05
"""Maximum share of the time of the steps that measuring may take."""
MIN_SPEEDUP = 1.1
"""Minimum speedup to choose another mode: on a busy machine the times of equal steps differ by some percent."""
MAX_LOGITS_DIFFERENCE = 0.15
"""Maximum difference of the logits from those of fp32, relative to their norm.

bf16 keeps 8 bits: one rounding error is up to 0.4 %, and the errors add up with the depth. Measured: 0.8 % in MiniLM
(6 layers) and 5 % in EfficientNet-lite0 (50 layers); 0.0001 % for fp32 in another memory layout.
"""
MAX_GRADIENT_DIFFERENCE = 0.85
"""Maximum difference of the gradient from that of fp32, relative to its norm.

Measured for bf16: 1 % in MiniLM, and 63 to 68 % in EfficientNet-lite0 in training mode on a batch of 32 drawings (82 %
on 8). For the latter, even fp32 in another memory layout, whose logits differ by 0.0001 %, gave 3 %: rounding moves
values across the kinks of ReLU6, and every BatchNorm amplifies the difference. From one batch to the next the gradient
differs far more, by 142 %, so that rounding is small noise in comparison: 75 training steps in each precision ended
at a loss on other drawings of 1.57 (bf16) and 1.61 (fp32). An uninformative gradient is off by 100 % or more; one
within this limit points less than 60 degrees away from that of fp32.
"""
MAX_JITTER = 1.5
"""Maximum ratio of the slowest to the fastest step of a mode for a measurement to be saved."""
NUM_ROUNDS = 5
"""Maximum number of timed steps per mode."""
MEASURING_COST_STEPS = 5.0
"""Minimum cost of measuring a mode, in steps: two to time, and a little less than three to compare its outputs."""
FORWARD_COST_STEPS = 3.0
"""The same if a step is only a forward pass: two to time, and one to compare the logits."""
WARM_COMPARISON_STEPS = 3.0
"""Cost of a comparison with warm kernels, in steps. Further time of the first comparison is the first use of kernels,
which is not charged to the budget."""
MIN_EXAMPLES = 8
"""Minimum number of examples to measure with, on a CPU, where time grows with their number; on a GPU it hardly does."""
COMPILE_SECONDS = {"cpu": 120.0, "cuda": 30.0}
"""Minimum time budget (seconds) for which compilation is tried, by device type: measuring compiles the model three
times, and the run compiles it again. Three compilations took 250 s for EfficientNet-lite0 on two shared CPU cores."""


@dataclass(frozen=True)
class Choice:
    """Choice of the execution mode of a stage.

    Attributes:
        mode: Chosen execution mode.
        reason: Reason for the choice, in one line for the user.
        seconds: Seconds per step of each measured mode, by title.
        remembered: Whether the measurement is from an earlier run.
    """

    mode: ExecutionMode
    reason: str
    seconds: dict[str, float] = field(default_factory=dict)
    remembered: bool = False


def choose_mode(
    model: nn.Module,
    batch: Mapping[str, torch.Tensor],
    loss: Callable[..., torch.Tensor],
    trainable: Collection[str],
    candidates: Sequence[ExecutionMode],
    *,
    steps: int,
    forward_only: bool = False,
    overhead_seconds: float = 0.0,
    notes_file: Path | None = None,
    clock: Callable[[], float] = perf_counter,
) -> Choice:
    """Return the fastest execution mode whose outputs agree with fp32, measured in a small share of the run's time.

    If time is short, a CPU measures with fewer examples; if that is still too long, nothing is measured. A measurement
    on a machine that is busy with other programs may be wrong, and is not saved. The model and the random number
    generators are restored afterwards. With several processes, one of them calls this function while the others wait.

    Args:
        model: Model on its device, in which all parameters that the stage does not train are frozen.
        batch: Batch with labels, on the device, of the stage's batch size.
        loss: Function that computes the loss from the model's outputs and the labels.
        trainable: Names of the trained parameters.
        candidates: Execution modes, the reference first, see ``candidate_modes``. If the user has set compilation,
            they are compared uncompiled.
        steps: Number of steps of the stage, or of forward passes if ``forward_only``, which determines the time budget.
        forward_only: Whether the expensive part is a forward pass without gradients, as through a frozen prefix.
        overhead_seconds: Additional seconds of the run per step, for example to prepare its batch.
        notes_file: File of saved measurements, by machine and architecture; None to save none.
        clock: Function that returns the time in seconds.
    """
    reference, device, size = candidates[0], batch["labels"].device, len(batch["labels"])
    if len(candidates) == 1:
        return Choice(reference, f"{reference.title}: the only candidate")
    key = speed_key(model, batch, trainable, candidates, forward_only)
    measurement = load_measurement(notes_file, key, _measured_as(reference, reference))
    budget_steps = steps * BUDGET_SHARE
    if measurement is not None:
        time = budget_steps * _full_step(measurement, reference, size)
        if not _should_remeasure(measurement, time, device):
            return decide(
                candidates,
                measurement,
                size=size,
                compiles=time >= _compile_seconds(device),
                from_history=True,
            )
    plain = {replace(mode, compile=False) for mode in candidates}
    passes = FORWARD_COST_STEPS if forward_only else MEASURING_COST_STEPS
    examples = _examples(size, len(plain), passes, budget_steps, device)
    if not examples:
        return Choice(reference, f"{reference.title}: {TOO_SHORT}")
    part = {name: value[:examples] for name, value in batch.items()}
    try:
        with benchmark_steps(model, part, loss, trainable, forward_only=forward_only, clock=clock) as bench:
            measurement = measure(
                bench, candidates, budget_steps * size / examples, examples, budget_steps * overhead_seconds
            )
    except torch.OutOfMemoryError:  # fp32 needs more than a half precision that the user set
        return Choice(reference, f"{reference.title}: too little memory to compare it with fp32")
    if notes_file is not None and measurement.steady:
        save_measurement(notes_file, key, measurement)
    compiles = budget_steps * _full_step(measurement, reference, size) >= _compile_seconds(device)
    return decide(candidates, measurement, size=size, compiles=compiles)


def measure(
    bench: StepBenchmark,
    candidates: Sequence[ExecutionMode],
    budget_steps: float,
    examples: int,
    seconds: float = 0.0,
) -> Measurement:
    """Return the step times of the candidates whose outputs agree with fp32.

    Args:
        bench: Benchmark that runs the steps.
        candidates: Execution modes, the reference first.
        budget_steps: Time budget, in steps of the reference.
        examples: Number of examples in the batch of the benchmark.
        seconds: Additional time budget in seconds.
    """
    start = bench.now()
    reference, *others = dict.fromkeys(replace(mode, compile=False) for mode in candidates)
    fp32_outputs = bench.compute_outputs(FP32_MODE)
    if reference != FP32_MODE:
        bench.step(reference)  # the first use of its kernels is slow
    step = bench.step(reference)
    first_use = max(
        0.0, fp32_outputs.seconds - WARM_COMPARISON_STEPS * step
    )  # the run would take this time anyway
    end = start + first_use + budget_steps * step + seconds
    usable, left_out = _usable_modes(bench, [reference, *others], fp32_outputs, step, end)
    timed = time_interleaved(bench, usable, NUM_ROUNDS, until=end) if len(usable) > 1 else {reference: [step]}
    compiled = replace(min(timed, key=lambda mode: min(timed[mode])), compile=True)
    if not candidates[0].compile and compiled in candidates:
        try:
            if end - bench.now() < _compile_seconds(bench.device):
                left_out[compiled.title] = NO_TIME
            else:
                timed |= _time_compiled(bench, compiled, left_out)
        except RuntimeError as error:
            left_out[compiled.title] = _failure_reason(bench, error)
    fastest = {mode.title: min(times) for mode, times in timed.items()}
    steady = all(max(times) <= MAX_JITTER * min(times) for times in timed.values())
    spent = bench.now() - start
    return Measurement(fastest, left_out, examples, spent, steady, date.today().isoformat())


def _usable_modes(
    bench: StepBenchmark,
    modes: Sequence[ExecutionMode],
    fp32_outputs: StepOutputs,
    step: float,
    end: float,
) -> tuple[list[ExecutionMode], dict[str, str]]:
    """Return the first mode and those that agree with fp32 and are not far slower, and why others are left out.

    Args:
        bench: Benchmark that runs the steps.
        modes: Uncompiled modes, the reference first.
        fp32_outputs: Outputs of a step in fp32.
        step: Seconds of a step of the reference.
        end: Time at which measuring must end.
    """
    usable, left_out = [modes[0]], {}
    fastest_seconds = fp32_outputs.seconds
    for mode in modes[1:]:
        if bench.now() + fp32_outputs.seconds + 2 * step * (len(usable) + 1) > end:
            left_out[mode.title] = NO_TIME
            continue
        try:
            outputs = bench.compute_outputs(mode)
        except RuntimeError as error:
            left_out[mode.title] = _failure_reason(bench, error)
            continue
        if objection := _objection(outputs, fp32_outputs):
            left_out[mode.title] = objection
        elif outputs.seconds > SLOW_RATIO * fastest_seconds:
            left_out[mode.title] = "far slower"
        else:
            usable.append(mode)
        fastest_seconds = min(fastest_seconds, outputs.seconds)
    return usable, left_out


def decide(
    candidates: Sequence[ExecutionMode],
    measurement: Measurement,
    *,
    size: int,
    compiles: bool,
    from_history: bool = False,
) -> Choice:
    """Return the fastest mode of a measurement, or the reference if no mode is much faster.

    Args:
        candidates: Execution modes, the reference first.
        measurement: Measurement of the modes.
        size: Number of examples in the stage's batch.
        compiles: Whether the run is long enough for compilation.
        from_history: Whether the measurement is from an earlier run.
    """
    reference = candidates[0]
    seconds = {mode: measurement.seconds.get(_measured_as(mode, reference).title) for mode in candidates}
    usable = {
        mode: spent
        for mode, spent in seconds.items()
        if spent is not None and (compiles or mode.compile == reference.compile)
    }
    best = min(usable, key=lambda mode: usable[mode])
    unit = "per step" if measurement.examples == size else f"per step of {measurement.examples} examples"
    busy = "" if measurement.steady else "; timings varied, so they are not saved"
    when = (
        f"measured on {measurement.date}" if from_history else f"measured in {measurement.spent:.1f} s{busy}"
    )
    plain = milliseconds(usable[reference])
    if usable[reference] < MIN_SPEEDUP * usable[best]:
        best, summary = reference, f"{reference.title}: {plain} {unit}, and no other mode is much faster"
    else:
        summary = f"{best.title}: {milliseconds(usable[best])} {unit}, {reference.title} {plain}"
    exclusions = [
        f"{title}: {why}"
        for title, why in measurement.left_out.items()
        if not title.endswith("compiled") or compiles
    ]
    reason = f"{summary} ({'; '.join([when, *exclusions])})"
    return Choice(best, reason, dict(measurement.seconds), from_history)


def _objection(outputs: StepOutputs, fp32_outputs: StepOutputs) -> str:
    """Return how outputs differ from those of fp32; empty if they agree. Non-finite outputs differ."""
    deviation = relative_difference([outputs.logits], [fp32_outputs.logits])
    if not deviation <= MAX_LOGITS_DIFFERENCE:
        return f"its logits differ by {deviation:.0%}"
    deviation = relative_difference(outputs.gradient, fp32_outputs.gradient)
    return "" if deviation <= MAX_GRADIENT_DIFFERENCE else f"its gradient differs by {deviation:.0%}"


def _time_compiled(
    bench: StepBenchmark, mode: ExecutionMode, left_out: dict[str, str]
) -> dict[ExecutionMode, list[float]]:
    fp32_outputs = bench.compute_outputs(FP32_MODE, training=False)
    with bench.compiling():
        if objection := _objection(bench.compute_outputs(mode, training=False), fp32_outputs):
            left_out[mode.title] = objection
            return {}
        bench.step(mode)
        return time_interleaved(bench, [mode], NUM_ROUNDS, until=bench.now())


def _failure_reason(bench: StepBenchmark, error: RuntimeError) -> str:
    bench.clear()
    lines = str(error).strip().splitlines()
    return f"it cannot run here: {lines[0] if lines else type(error).__name__}"


def _measured_as(mode: ExecutionMode, reference: ExecutionMode) -> ExecutionMode:
    """Return the mode to measure: without compilation that the user set, which would take longer than all else."""
    return replace(mode, compile=False) if reference.compile else mode


def _compile_seconds(device: torch.device) -> float:
    return COMPILE_SECONDS.get(device.type, float("inf"))


def _full_step(measurement: Measurement, reference: ExecutionMode, size: int) -> float:
    """Return the seconds that a step of the reference takes with the stage's whole batch."""
    return measurement.seconds[_measured_as(reference, reference).title] * size / measurement.examples


def _should_remeasure(measurement: Measurement, time: float, device: torch.device) -> bool:
    """Return whether this run has the time to measure the modes that an earlier run had no time for."""
    short = [title for title, why in measurement.left_out.items() if why == NO_TIME]
    needed = (
        _compile_seconds(device) if all(title.endswith("compiled") for title in short) else measurement.spent
    )
    return bool(short) and time >= measurement.spent + needed


def _examples(size: int, modes: int, passes: float, budget_steps: float, device: torch.device) -> int:
    """Return the number of examples of a batch to measure with, so that the budget in steps suffices; 0 if none does.

    This is the largest number with which every mode can be measured; if there is none, the smallest one, so that as
    many modes as possible can be measured.
    """
    sizes = [size]
    if device.type == "cpu":
        sizes += [part for part in (size // 2, size // 4) if part >= MIN_EXAMPLES]
    fitting = [part for part in sizes if passes * modes * part <= budget_steps * size]
    if fitting:
        return fitting[0]
    return sizes[-1] if passes * min(modes, 2) * sizes[-1] <= budget_steps * size else 0

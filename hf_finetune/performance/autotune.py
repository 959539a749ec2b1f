"""``speed: auto``: a stage is computed in the way that was measured to be fastest, and that computes the same."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from hf_finetune.performance.autotune_history import Measured, load_measurement, save_measurement, speed_key
from hf_finetune.performance.execution_modes import (
    FAR_SLOWER,
    ExecutionMode,
    StepBenchmark,
    StepOutputs,
    benchmark_steps,
    difference,
    milliseconds,
    time_in_turn,
)

__all__ = ["Choice", "choose_mode", "decide", "measure"]

PLAIN = ExecutionMode()
TOO_SHORT = "the stage is too short for it to pay to measure other modes"
NO_TIME = "no time was left for it"
BUDGET_SHARE = 0.05
WORTH_IT = 1.1
"""Least gain that is taken: on a busy machine the times of equal steps differ by some percent."""
LOGITS_AGREE = 0.15
"""Largest difference of the logits from fp32's, as a share of their norm.

bf16 keeps 8 bits: one rounding is up to 0.4 %, and they add up with the depth. It gave 0.8 % in MiniLM (6 layers) and
5 % in EfficientNet-lite0 (50 layers); another layout of fp32 gave 0.0001 %.
"""
GRADIENT_AGREES = 0.85
"""Largest difference of the gradient from fp32's, as a share of its norm.

bf16 gave 1 % in MiniLM, and 63 to 68 % in EfficientNet-lite0 in training mode with 32 drawings (82 % with 8), where
even another layout of fp32, 0.0001 % apart in its logits, gave 3 %: rounding moves values over the edges of ReLU6, and
every BatchNorm enlarges it. Other examples make a far greater difference, 142 % from one batch to the next, so that
this is noise among noise: 75 steps in each ended at a loss of 1.57 (bf16) and 1.61 (fp32) on other drawings. A gradient
that says nothing is 100 % off or more; one within this limit points less than 60 degrees away from fp32's.
"""
STEADY = 1.5
"""Times of the fastest step that the slowest of the same way may take, for what was measured to be remembered."""
ROUNDS = 5
PASSES = 5.0
"""Steps that one way costs at least: two that are timed, and a little less than three to compare its numbers."""
FORWARD_PASSES = 3.0
"""The same where a step is a forward pass: two that are timed, and one to compare the logits."""
WARM = 3.0
"""Steps that comparing costs at most once a way's kernels have been used; what the first comparison takes longer is not
counted as measuring."""
FEWEST = 8
"""Examples to measure with, on a CPU, where time goes with their number. A GPU takes about as long for a few."""
COMPILE_SECONDS = {"cpu": 120.0, "cuda": 30.0}
"""Seconds to measure from which on compilation is tried: comparing and timing compile the model three times over, and
the run then does it again. All three took 250 s for EfficientNet-lite0, on two CPU cores that others used as well."""


@dataclass(frozen=True)
class Choice:
    """How a stage is to be computed.

    Attributes:
        way: In this way.
        reason: Why, in one line for the person.
        seconds: Of a step in each way that was measured, by title.
        remembered: Whether it was measured in an earlier run.
    """

    way: ExecutionMode
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
    beside: float = 0.0,
    budget_share: float = BUDGET_SHARE,
    notes_file: Path | None = None,
    clock: Callable[[], float] = perf_counter,
) -> Choice:
    """Choose the fastest way whose numbers agree with fp32, by measuring in a small share of the run's time.

    Where the time is short, a CPU measures with fewer examples; where it does not suffice for that either, nothing is
    measured. What is measured while other programs keep the machine busy may be wrong, and is not remembered. Model
    and random numbers are afterwards as before. With several processes one of them chooses, while the others wait.

    Args:
        model: On its device, frozen but for what the stage trains.
        batch: A batch with labels, on the device, of the stage's size.
        loss: Gives the loss from the model's outputs and the labels.
        trainable: Names of the parameters that are trained.
        candidates: The reference first, see ``candidate_modes``. If they are compiled by the person's wish, they are
            compared uncompiled.
        steps: Steps by whose time the share is counted; if ``forward_only``, forward passes.
        forward_only: Whether what costs is a forward pass without gradients, as that of a frozen prefix.
        beside: Seconds that the run takes for each step besides it, such as to prepare its batch.
        budget_share: Largest share of the estimated time of the steps that measuring may take.
        notes_file: Where what was measured is remembered, by machine and architecture; None for nowhere.
        clock: Tells the time in seconds.
    """
    reference, device, size = candidates[0], batch["labels"].device, len(batch["labels"])
    if len(candidates) == 1:
        return Choice(reference, f"{reference.title}: there is no other to choose")
    key = speed_key(model, batch, trainable, candidates, forward_only)
    found = load_measurement(notes_file, key, _measured_as(reference, reference))
    allowed = steps * budget_share
    if found is not None:
        time = allowed * _full_step(found, reference, size)
        if not _worth_again(found, time, device):
            return decide(candidates, found, size=size, compiles=time >= _compile_seconds(device), again=True)
    plain = {replace(way, compile=False) for way in candidates}
    passes = FORWARD_PASSES if forward_only else PASSES
    examples = _examples(size, len(plain), passes, allowed, device)
    if not examples:
        return Choice(reference, f"{reference.title}: {TOO_SHORT}")
    part = {name: value[:examples] for name, value in batch.items()}
    try:
        with benchmark_steps(model, part, loss, trainable, forward_only=forward_only, clock=clock) as bench:
            found = measure(bench, candidates, allowed * size / examples, examples, allowed * beside)
    except torch.OutOfMemoryError:  # fp32 takes more of it than a half precision that the person set
        return Choice(reference, f"{reference.title}: there is too little memory to compare it with fp32")
    if notes_file is not None and found.steady:
        save_measurement(notes_file, key, found)
    compiles = allowed * _full_step(found, reference, size) >= _compile_seconds(device)
    return decide(candidates, found, size=size, compiles=compiles)


def measure(
    bench: StepBenchmark,
    candidates: Sequence[ExecutionMode],
    allowed: float,
    examples: int,
    seconds: float = 0.0,
) -> Measured:
    """Time the candidates whose numbers agree with fp32.

    Args:
        bench: What computes them.
        candidates: The reference first.
        allowed: How many steps of the reference the measuring may take.
        examples: Of the bench's batch.
        seconds: How many more seconds it may take.
    """
    begun = bench.now()
    reference, *others = dict.fromkeys(replace(way, compile=False) for way in candidates)
    truth = bench.numbers(PLAIN)
    if reference != PLAIN:
        bench.step(reference)  # the first, slow, use of its kernels
    step = bench.step(reference)
    first_use = max(0.0, truth.seconds - WARM * step)  # the run would meet it anyway
    end = begun + first_use + allowed * step + seconds
    usable, left_out = [reference], {}
    quickest = truth.seconds
    for way in others:
        if bench.now() + truth.seconds + 2 * step * (len(usable) + 1) > end:
            left_out[way.title] = NO_TIME
            continue
        try:
            found = bench.numbers(way)
        except RuntimeError as error:
            left_out[way.title] = _cannot(bench, error)
            continue
        if objection := _objection(found, truth):
            left_out[way.title] = objection
        elif found.seconds > FAR_SLOWER * quickest:
            left_out[way.title] = "far slower"
        else:
            usable.append(way)
        quickest = min(quickest, found.seconds)
    timed = time_in_turn(bench, usable, ROUNDS, until=end) if len(usable) > 1 else {reference: [step]}
    compiled = replace(min(timed, key=lambda way: min(timed[way])), compile=True)
    if not candidates[0].compile and compiled in candidates:
        try:
            if end - bench.now() < _compile_seconds(bench.device):
                left_out[compiled.title] = NO_TIME
            else:
                timed |= _time_compiled(bench, compiled, left_out)
        except RuntimeError as error:
            left_out[compiled.title] = _cannot(bench, error)
    fastest = {way.title: min(times) for way, times in timed.items()}
    steady = all(max(times) <= STEADY * min(times) for times in timed.values())
    spent = bench.now() - begun
    return Measured(fastest, left_out, examples, spent, steady, date.today().isoformat())


def decide(
    candidates: Sequence[ExecutionMode], found: Measured, *, size: int, compiles: bool, again: bool = False
) -> Choice:
    """Choose from what was measured.

    Args:
        candidates: The reference first.
        found: What was measured.
        size: Examples of the stage's batch.
        compiles: Whether the run is long enough for compilation.
        again: Whether it was measured in an earlier run.
    """
    reference = candidates[0]
    seconds = {way: found.seconds.get(_measured_as(way, reference).title) for way in candidates}
    usable = {
        way: spent
        for way, spent in seconds.items()
        if spent is not None and (compiles or way.compile == reference.compile)
    }
    best = min(usable, key=lambda way: usable[way])
    unit = "a step" if found.examples == size else f"a step of {found.examples} examples"
    busy = "" if found.steady else ", on a busy machine: the next run measures again"
    when = f"remembered from {found.date}" if again else f"measured in {found.spent:.1f} s{busy}"
    plain = milliseconds(usable[reference])
    if usable[reference] < WORTH_IT * usable[best]:
        best, said = reference, f"{reference.title}: {plain} {unit}, and no other way is much faster"
    else:
        said = f"{best.title}: {milliseconds(usable[best])} {unit}, {reference.title} {plain}"
    told = [
        f"{title}: {why}"
        for title, why in found.left_out.items()
        if not title.endswith("compiled") or compiles
    ]
    reason = f"{said} ({'; '.join([when, *told])})"
    return Choice(best, reason, dict(found.seconds), again)


def _objection(found: StepOutputs, truth: StepOutputs) -> str:
    """Say in which respect numbers are not those of fp32; what is not finite is not."""
    apart = difference([found.logits], [truth.logits])
    if not apart <= LOGITS_AGREE:
        return f"its logits are {apart:.0%} off"
    apart = difference(found.gradient, truth.gradient)
    return "" if apart <= GRADIENT_AGREES else f"its gradient is {apart:.0%} off"


def _time_compiled(
    bench: StepBenchmark, way: ExecutionMode, left_out: dict[str, str]
) -> dict[ExecutionMode, list[float]]:
    truth = bench.numbers(PLAIN, training=False)
    with bench.compiling():
        if objection := _objection(bench.numbers(way, training=False), truth):
            left_out[way.title] = objection
            return {}
        bench.step(way)
        return time_in_turn(bench, [way], ROUNDS, until=bench.now())


def _cannot(bench: StepBenchmark, error: RuntimeError) -> str:
    bench.clear()
    said = str(error).strip().splitlines()
    return f"it cannot be computed here: {said[0] if said else type(error).__name__}"


def _measured_as(way: ExecutionMode, reference: ExecutionMode) -> ExecutionMode:
    """Compilation that the person set is not measured: it would take longer than all else."""
    return replace(way, compile=False) if reference.compile else way


def _compile_seconds(device: torch.device) -> float:
    return COMPILE_SECONDS.get(device.type, float("inf"))


def _full_step(found: Measured, reference: ExecutionMode, size: int) -> float:
    """Give the seconds of a step of the reference with the stage's batch."""
    return found.seconds[_measured_as(reference, reference).title] * size / found.examples


def _worth_again(found: Measured, time: float, device: torch.device) -> bool:
    """Say whether this run has the time for what an earlier one left out."""
    short = [title for title, why in found.left_out.items() if why == NO_TIME]
    needed = _compile_seconds(device) if all(title.endswith("compiled") for title in short) else found.spent
    return bool(short) and time >= found.spent + needed


def _examples(size: int, ways: int, passes: float, allowed: float, device: torch.device) -> int:
    """Give with how many examples of a batch to measure, so that it takes no more steps than allowed; 0 if none do.

    Prefers all of them, if every way can then be measured; then as few as possible, for as many ways as possible.
    """
    sizes = [size]
    if device.type == "cpu":
        sizes += [part for part in (size // 2, size // 4) if part >= FEWEST]
    fitting = [part for part in sizes if passes * ways * part <= allowed * size]
    if fitting:
        return fitting[0]
    return sizes[-1] if passes * min(ways, 2) * sizes[-1] <= allowed * size else 0

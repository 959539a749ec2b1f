"""Execution modes of a training step (precision, memory layout, compilation), and the benchmark of their steps."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import torch
from torch import nn

from hf_finetune.tasks import spatial_input

__all__ = [
    "ExecutionMode",
    "MemoryFormat",
    "Precision",
    "StepBenchmark",
    "StepOutputs",
    "benchmark_steps",
    "candidate_modes",
    "milliseconds",
    "relative_difference",
    "time_interleaved",
]

Precision = Literal["fp32", "bf16", "fp16"]
MemoryFormat = Literal["contiguous", "channels_last"]

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SLOW_RATIO = 2.0
"""Ratio to the time of the fastest mode above which a mode is not timed again."""
FP16_LOSS_SCALE = 1024.0
"""Loss scale in fp16, in which the smallest gradients would underflow; in training, the gradient scaler sets it."""


@dataclass(frozen=True)
class ExecutionMode:
    """Precision, memory layout and compilation of a step.

    Attributes:
        precision: Precision of the operations that autocast covers; weights stay in fp32.
        memory_format: Order of the dimensions of image tensors in memory.
        compile: Whether torch.compile is used.
    """

    precision: Precision = "fp32"
    memory_format: MemoryFormat = "contiguous"
    compile: bool = False

    @property
    def title(self) -> str:
        """Title of the mode: ``bf16 channels_last compiled``."""
        layout = "" if self.memory_format == "contiguous" else f" {self.memory_format}"
        return f"{self.precision}{layout}{' compiled' if self.compile else ''}"


@dataclass(frozen=True)
class StepOutputs:
    """Outputs of one batch in an execution mode.

    Attributes:
        loss: Loss in eval mode.
        logits: Float32 logits in eval mode, ``[batch, labels]``.
        gradient: Gradient of each trained parameter; empty if a step is only a forward pass.
        seconds: Seconds that the computation took, including the first use of each kernel.
    """

    loss: float
    logits: torch.Tensor
    gradient: tuple[torch.Tensor, ...]
    seconds: float


def candidate_modes(
    model: nn.Module,
    batch: Mapping[str, torch.Tensor],
    device: torch.device,
    *,
    precision: Precision | Literal["auto"] = "auto",
    memory_format: MemoryFormat | Literal["auto"] = "auto",
    compile: bool | Literal["auto"] = "auto",
) -> list[ExecutionMode]:
    """Return the execution modes that can be faster for a model, the reference first.

    The reference is fp32, contiguous and not compiled, unless an argument sets another value. After it come the most
    promising modes, since time may not suffice for all: half precision and channels_last together, then each of them.
    Compiled modes are last.

    bf16 is included if the processor has the instructions that torch's bf16 kernels need. That does not make it fast:
    without avx512_bf16 they widen every number, which can be slower than fp32. channels_last is included for images in
    a model of several convolutions; a single one that cuts an image into patches gains nothing. Compilation is included
    for images only: texts vary in length, and torch recompiles for new lengths.

    Args:
        model: Model to train.
        batch: Batch of the stage.
        device: Device on which the model is trained.
        precision: Precision of all modes; ``auto`` tries several.
        memory_format: Memory layout of all modes; ``auto`` tries several.
        compile: Whether all modes are compiled; ``auto`` tries both.
    """
    images = spatial_input(batch) is not None
    convolutions = images and sum(weight.ndim == 4 for weight in model.parameters()) > 1
    known = device.type in ("cpu", "cuda")
    precisions: tuple[Precision, ...] = ("fp32", *(_halves(device) if known else ()))
    layouts: tuple[MemoryFormat, ...] = ("contiguous",)
    if convolutions and known:
        layouts = ("contiguous", "channels_last")
    compiled = (False, True) if images and known else (False,)
    reference, *alternatives = [
        ExecutionMode(step_precision, layout, compiling)
        for compiling in (compiled if compile == "auto" else (compile,))
        for step_precision in (precisions if precision == "auto" else (precision,))
        for layout in (layouts if memory_format == "auto" else (memory_format,))
    ]

    def priority(mode: ExecutionMode) -> tuple[bool, int]:
        same = (mode.precision == reference.precision) + (mode.memory_format == reference.memory_format)
        return mode.compile != reference.compile, same

    return [reference, *sorted(alternatives, key=priority)]


def _halves(device: torch.device) -> tuple[Precision, ...]:
    if device.type == "cuda":
        return ("bf16",) if torch.cuda.is_bf16_supported(including_emulation=False) else ("fp16",)
    supports_bf16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return ("bf16",) if supports_bf16 else ()


class StepBenchmark:
    """Runs steps of a model in several execution modes. Created by ``benchmark_steps``.

    Args:
        model: Model on its device, in which all parameters but ``trainable`` are frozen.
        batch: Batch with labels, on the device.
        loss: Function that computes the loss from the model's outputs and the labels.
        trainable: Names of the parameters whose gradients are compared.
        forward_only: Whether a step is only a forward pass without gradients.
        clock: Function that returns the time in seconds.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Mapping[str, torch.Tensor],
        loss: Callable[..., torch.Tensor],
        trainable: Collection[str],
        *,
        forward_only: bool = False,
        clock: Callable[[], float] = perf_counter,
    ):
        self.model, self.loss, self.forward_only, self.clock = model, loss, forward_only, clock
        self.inputs = {name: value for name, value in batch.items() if name != "labels"}
        self.labels = batch["labels"]
        self.device = self.labels.device
        parameters = dict(model.named_parameters())
        self.trained = [parameters[name] for name in trainable]
        self.runner: Callable[..., Any] = model
        self.buffers = [
            (module._buffers, name, buffer, buffer.clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Compile the model within the block.

        torch 2.15 recompiles whenever the set of trained parameters changes, and after the eighth time runs
        uncompiled: so its compilation caches are cleared before and after the block.
        """
        torch.compiler.reset()
        self.runner = torch.compile(self.model)
        try:
            yield
        finally:
            self.runner = self.model
            torch.compiler.reset()

    def step(self, mode: ExecutionMode) -> float:
        """Run one step, forward and backward or only forward, and return its duration in seconds."""
        self._set_memory_format(mode)
        self.model.train(not self.forward_only)  # a frozen prefix runs in eval mode
        start = self.now()
        if self.forward_only:
            with torch.no_grad():
                self._outputs(mode)
        else:
            self._loss(mode)[0].backward()
        seconds = self.now() - start
        self.clear()
        return seconds

    def compute_outputs(self, mode: ExecutionMode, *, training: bool = True) -> StepOutputs:
        """Return the outputs of a mode, without gradients if a step is only a forward pass.

        Equal calls use the same dropout masks.

        Args:
            mode: Execution mode.
            training: Whether to compute gradients in training mode. Compiled dropout draws other masks than
                uncompiled dropout, so that compiled gradients are compared in eval mode.
        """
        self.restore_buffers()  # every step changes BatchNorm's statistics
        self._set_memory_format(mode)
        start = self.now()
        self.model.eval()
        with torch.no_grad():
            loss, logits = self._loss(mode)
        if self.forward_only:
            return StepOutputs(loss.item(), logits.float(), (), self.now() - start)
        torch.manual_seed(0)
        self.model.train(training)
        scale = FP16_LOSS_SCALE if mode.precision == "fp16" else 1.0
        (scale * self._loss(mode)[0]).backward()
        gradient = tuple(
            torch.zeros_like(weight) if weight.grad is None else weight.grad.div_(scale)
            for weight in self.trained
        )
        self.clear()
        return StepOutputs(loss.item(), logits.float(), gradient, self.now() - start)

    def now(self) -> float:
        """Return the time in seconds, after waiting for the GPU to finish."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()

    def restore_buffers(self) -> None:
        """Restore the model's buffers, which steps change."""
        for owner, name, buffer, values in self.buffers:
            owner[name] = buffer.copy_(values)

    def clear(self) -> None:
        """Drop all gradients."""
        for weight in self.model.parameters():
            weight.grad = None

    def _outputs(self, mode: ExecutionMode) -> Any:
        dtype = DTYPES[mode.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            return self.runner(**self.inputs)

    def _loss(self, mode: ExecutionMode) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self._outputs(mode)
        return self.loss(outputs, self.labels), outputs["logits"] if isinstance(outputs, dict) else outputs[0]

    def _set_memory_format(self, mode: ExecutionMode) -> None:
        self.model.to(memory_format=MEMORY_FORMATS[mode.memory_format])


@contextmanager
def benchmark_steps(model: nn.Module, *args: Any, **kwargs: Any) -> Iterator[StepBenchmark]:
    """Yield a ``StepBenchmark`` of a model; restore the model and the random number generators afterwards."""
    bench = StepBenchmark(model, *args, **kwargs)
    weights = [(weight, weight.data, weight.grad) for weight in model.parameters()]
    training_flags = [(module, module.training) for module in model.modules()]
    bench.clear()
    devices = [bench.device] if bench.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            yield bench
        finally:
            for weight, data, grad in weights:  # the same tensors: another layout is a copy of them
                weight.data, weight.grad = data, grad
            bench.restore_buffers()
            for module, training in training_flags:
                module.training = training


def time_interleaved(
    bench: StepBenchmark, modes: Sequence[ExecutionMode], rounds: int, *, until: float = math.inf
) -> dict[ExecutionMode, list[float]]:
    """Return the step times of several modes, timed in turn so that a busy moment of the machine affects all of them.

    Args:
        bench: Benchmark that runs the steps.
        modes: Execution modes whose kernels have been used before, since the first use is slower.
        rounds: Maximum number of steps per mode; a mode that is far slower than the fastest is not timed again.
        until: Time on the benchmark's clock by which the last round should end; there are at least two rounds.

    Returns:
        Seconds of each step, by mode.
    """
    seconds: dict[ExecutionMode, list[float]] = {mode: [] for mode in modes}
    for number in range(rounds):
        start = bench.now()
        for mode in modes:
            fastest = min((min(times) for times in seconds.values() if times), default=math.inf)
            if number and min(seconds[mode]) > SLOW_RATIO * fastest:
                continue
            seconds[mode].append(bench.step(mode))
        if number and bench.now() + (bench.now() - start) > until:
            break
    return seconds


def relative_difference(actual: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Return the norm of the difference relative to that of ``expected``, with all tensors joined into one vector."""
    if not expected:
        return 0.0
    differences = [first.float() - second.float() for first, second in zip(actual, expected, strict=True)]
    difference_norm, expected_norm = _norm(differences), _norm(expected)
    if expected_norm == 0:
        return 0.0 if difference_norm == 0 else math.inf
    return difference_norm / expected_norm


def milliseconds(seconds: float) -> str:
    """Return a duration as text: ``76 ms``, ``1.20 s``."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    norms = [torch.linalg.vector_norm(tensor.float()) for tensor in tensors]
    return torch.stack(norms).double().norm().item()

"""Ways to compute a training step: their precision, memory layout and compilation; each timed, its numbers compared."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import torch
from torch import nn

__all__ = [
    "ExecutionMode",
    "MemoryFormat",
    "Precision",
    "StepBenchmark",
    "StepOutputs",
    "benchmark_steps",
    "candidate_modes",
    "difference",
    "milliseconds",
    "time_in_turn",
]

Precision = Literal["fp32", "bf16", "fp16"]
MemoryFormat = Literal["contiguous", "channels_last"]

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
FAR_SLOWER = 2.0
"""Times as slow as the fastest, from which on a way is not repeated."""
SCALE = 1024.0
"""Of the loss in fp16, whose smallest gradients would be lost; in training the gradient scaler sees to that."""


@dataclass(frozen=True)
class ExecutionMode:
    """A way to compute.

    Attributes:
        precision: Of the operations that autocast rounds; weights are kept in fp32.
        memory_format: Order of the dimensions of image tensors in memory.
        compile: Whether torch.compile is used.
    """

    precision: Precision = "fp32"
    memory_format: MemoryFormat = "contiguous"
    compile: bool = False

    @property
    def title(self) -> str:
        """Name it: ``bf16 channels_last compiled``."""
        layout = "" if self.memory_format == "contiguous" else f" {self.memory_format}"
        return f"{self.precision}{layout}{' compiled' if self.compile else ''}"


@dataclass(frozen=True)
class StepOutputs:
    """What a way computes for one batch.

    Attributes:
        loss: In eval mode.
        logits: In eval mode, [examples, labels].
        gradient: Of each trained parameter.
        seconds: That it took, the first use of each kernel included.
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
    """List the ways that can be faster for a model, the reference first: in fp32, contiguous, not compiled.

    Behind it come those that promise most, since time may not suffice for all: half precision and channels_last
    together, then each of them.

    bf16 is listed where the processor has the instructions that torch's bf16 kernels need. That does not make it
    fast: without avx512_bf16 they widen every number, which can be slower than fp32. channels_last is listed for
    images in a model of several convolutions; the lone one that cuts an image into patches gains nothing. Compilation
    is listed for images: texts vary in length, and torch compiles anew for new lengths.

    Args:
        model: The model.
        batch: A batch; ``pixel_values`` are images.
        device: Where the model is trained.
        precision: What every way has; ``auto`` leaves it open. The same goes for the others.
        memory_format: See ``precision``.
        compile: See ``precision``.
    """
    images = "pixel_values" in batch
    convolutions = images and sum(weight.ndim == 4 for weight in model.parameters()) > 1
    known = device.type in ("cpu", "cuda")
    precisions: tuple[Precision, ...] = ("fp32", *(_halves(device) if known else ()))
    layouts: tuple[MemoryFormat, ...] = (
        "contiguous",
        *(("channels_last",) if convolutions and known else ()),
    )
    compiled = (False, True) if images and known else (False,)
    reference, *others = [
        ExecutionMode(one, layout, compiling)
        for compiling in (compiled if compile == "auto" else (compile,))
        for one in (precisions if precision == "auto" else (precision,))
        for layout in (layouts if memory_format == "auto" else (memory_format,))
    ]

    def promise(way: ExecutionMode) -> tuple[bool, int]:
        same = (way.precision == reference.precision) + (way.memory_format == reference.memory_format)
        return way.compile != reference.compile, same

    return [reference, *sorted(others, key=promise)]


def _halves(device: torch.device) -> tuple[Precision, ...]:
    if device.type == "cuda":
        return ("bf16",) if torch.cuda.is_bf16_supported(including_emulation=False) else ("fp16",)
    has = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return ("bf16",) if has else ()


class StepBenchmark:
    """Computes passes of a model in several ways. Made by ``benchmark_steps``.

    Args:
        model: On its device, frozen but for what is trained.
        batch: A batch with labels, on the device.
        loss: Gives the loss from the model's outputs and the labels.
        trainable: Names of the parameters whose gradients are compared.
        forward_only: Whether a step is a forward pass without gradients, and no more.
        clock: Tells the time in seconds.
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
        """Compile what is computed meanwhile.

        torch 2.15 compiles anew whenever what is trained changes, and behind the eighth time computes uncompiled: so
        it forgets before and after.
        """
        torch.compiler.reset()
        self.runner = torch.compile(self.model)
        try:
            yield
        finally:
            self.runner = self.model
            torch.compiler.reset()

    def step(self, way: ExecutionMode) -> float:
        """Give the seconds of one step: forward and backward, or only forward."""
        self._lay_out(way)
        self.model.train(not self.forward_only)  # a frozen prefix computes as in evaluation
        start = self.now()
        if self.forward_only:
            with torch.no_grad():
                self._outputs(way)
        else:
            self._loss(way)[0].backward()
        seconds = self.now() - start
        self.clear()
        return seconds

    def numbers(self, way: ExecutionMode, *, training: bool = True) -> StepOutputs:
        """Give what a way computes; equal calls draw the same dropout. No gradient where a step is a forward pass.

        Args:
            way: How.
            training: Whether gradients are those of training mode. Compiled dropout draws others than plain dropout,
                so that compiled gradients are compared in eval mode.
        """
        self.put_back_buffers()  # BatchNorm's statistics moved in every step
        self._lay_out(way)
        start = self.now()
        self.model.eval()
        with torch.no_grad():
            loss, logits = self._loss(way)
        if self.forward_only:
            return StepOutputs(loss.item(), logits.float(), (), self.now() - start)
        torch.manual_seed(0)
        self.model.train(training)
        scale = SCALE if way.precision == "fp16" else 1.0
        (scale * self._loss(way)[0]).backward()
        gradient = tuple(
            torch.zeros_like(weight) if weight.grad is None else weight.grad.div_(scale)
            for weight in self.trained
        )
        self.clear()
        return StepOutputs(loss.item(), logits.float(), gradient, self.now() - start)

    def now(self) -> float:
        """Tell the time, when all that was begun is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.clock()

    def put_back_buffers(self) -> None:
        """Undo what steps have changed beside the weights."""
        for owner, name, buffer, values in self.buffers:
            owner[name] = buffer.copy_(values)

    def clear(self) -> None:
        """Let go of all gradients."""
        for weight in self.model.parameters():
            weight.grad = None

    def _outputs(self, way: ExecutionMode) -> Any:
        dtype = DTYPES[way.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            return self.runner(**self.inputs)

    def _loss(self, way: ExecutionMode) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self._outputs(way)
        return self.loss(outputs, self.labels), outputs["logits"] if isinstance(outputs, dict) else outputs[0]

    def _lay_out(self, way: ExecutionMode) -> None:
        self.model.to(memory_format=LAYOUTS[way.memory_format])


@contextmanager
def benchmark_steps(model: nn.Module, *args: Any, **kwargs: Any) -> Iterator[StepBenchmark]:
    """Yield a ``StepBenchmark`` of a model; afterwards the model and the random numbers are as before."""
    bench = StepBenchmark(model, *args, **kwargs)
    weights = [(weight, weight.data, weight.grad) for weight in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    bench.clear()
    devices = [bench.device] if bench.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            yield bench
        finally:
            for weight, data, grad in weights:  # the very tensors: another layout is a copy of them
                weight.data, weight.grad = data, grad
            bench.put_back_buffers()
            for module, mode in modes:
                module.training = mode


def time_in_turn(
    bench: StepBenchmark, ways: Sequence[ExecutionMode], rounds: int, *, until: float = math.inf
) -> dict[ExecutionMode, list[float]]:
    """Time ways in turn, so that a busy moment of the machine meets all of them; give the seconds of each step.

    Args:
        bench: What computes them.
        ways: Whose kernels have been used before: a first use is slower.
        rounds: Steps of each way, at most; one that is far slower than the fastest is not repeated.
        until: Time of the bench's clock behind which no further round is begun, once there were two.
    """
    seconds: dict[ExecutionMode, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        start = bench.now()
        for way in ways:
            fastest = min((min(times) for times in seconds.values() if times), default=math.inf)
            if number and min(seconds[way]) > FAR_SLOWER * fastest:
                continue
            seconds[way].append(bench.step(way))
        if number and bench.now() + (bench.now() - start) > until:
            break
    return seconds


def difference(found: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> float:
    """Give the norm of the difference as a share of the right norm, all tensors taken for one vector."""
    if not right:
        return 0.0
    apart = _norm([one.float() - other.float() for one, other in zip(found, right, strict=True)])
    whole = _norm(right)
    if whole == 0:
        return 0.0 if apart == 0 else math.inf
    return apart / whole


def milliseconds(seconds: float) -> str:
    """Write a duration: ``76 ms``, ``1.20 s``."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    return (
        torch.stack([torch.linalg.vector_norm(tensor.float()) for tensor in tensors]).double().norm().item()
    )

"""Where the frozen prefix of a model ends: found by watching the model compute, and proved before it is used."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from accelerate.utils import recursively_apply
from torch import nn

from hf_finetune.cache.call_recording import (
    Calls,
    Key,
    TensorShape,
    arguments,
    evaluating,
    output_of,
    record_calls,
)

__all__ = ["CacheUnavailableError", "CutPoint", "OutputShape", "PassedModule", "find_cut"]

Batch = Mapping[str, torch.Tensor]
PLAIN = (bool, int, float, str, TensorShape, Sequence, Mapping, type(None))


class CacheUnavailableError(ValueError):
    """A model's frozen prefix cannot be left out; the message says why."""


@dataclass(frozen=True)
class OutputShape:
    """The shape of a tensor, for any batch.

    Attributes:
        sizes: Of each dimension its size, or ``examples`` or ``tokens`` where the batch decides.
        dtype: Its element type.
    """

    sizes: tuple[int | str, ...]
    dtype: torch.dtype

    def at(self, batch: Batch) -> tuple[int, ...]:
        """Give the shape for a batch."""
        known = batch_sizes(batch)
        return tuple(known[size] if isinstance(size, str) else size for size in self.sizes)


@dataclass(frozen=True)
class PassedModule:
    """A module of the prefix, which need not compute.

    Attributes:
        name: Its name in the model.
        outputs: What it gives at each of its calls, with an ``OutputShape`` where there is a tensor.
    """

    name: str
    outputs: tuple[Any, ...]


@dataclass(frozen=True)
class CutPoint:
    """Where a model can be entered behind its frozen prefix.

    Attributes:
        boundary: Name of the first module that computes.
        keys: Which of its arguments the prefix makes, by position or name.
        shapes: Their shapes.
        passed: The modules of the prefix.
    """

    boundary: str
    keys: tuple[Key, ...]
    shapes: tuple[OutputShape, ...]
    passed: tuple[PassedModule, ...]


def batch_sizes(batch: Batch) -> dict[str, int]:
    """Give the number of examples of a batch, and of tokens of each, where it is of texts."""
    first = next(iter(batch.values()))
    tokens = batch["input_ids"].shape[1] if "input_ids" in batch else 0
    return {"examples": len(first), "tokens": tokens}


def find_cut(model: nn.Module, trainable: Collection[str], probes: tuple[Batch, Batch]) -> CutPoint:
    """Find the cut before the first module that is trained; of several the one with the smallest input.

    Args:
        model: It is left as it was.
        trainable: Names of the parameters that are trained; all others are frozen.
        probes: Two batches without labels, of different numbers of examples and of tokens.

    Raises:
        CacheUnavailableError: If there is no such place, or nothing is saved by it.
    """
    try:
        calls = tuple(record_calls(model, probe) for probe in probes)
    except (
        RuntimeError,
        ValueError,
        IndexError,
    ) as error:  # BART wants its end token, which a shortened text lacks
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise CacheUnavailableError(
            f"the model cannot compute a shortened text ({first.rstrip('.')})"
        ) from error
    reasons = []
    outer, inner = _boundaries(model, trainable, calls[0])
    for boundary in outer:
        try:
            cut = _cut_at(model, boundary, trainable, calls, probes)
            break
        except CacheUnavailableError as error:
            reasons.append(str(error))
    else:
        raise CacheUnavailableError(reasons[0])
    for boundary in inner:
        if _gains(model, calls[0], cut, boundary):
            with suppress(CacheUnavailableError):
                cut = _cut_at(model, boundary, trainable, calls, probes)
    return cut


def _gains(model: nn.Module, calls: Calls, cut: CutPoint, inner: str) -> bool:
    """Return whether the input of a module inside the boundary of a cut is smaller: what lies between pools tokens.

    A dropout in between acts while the stage trains, and must compute anew for each batch.
    """
    between = [name for name in calls.before(inner) if name.startswith(f"{cut.boundary}.")]
    parts = [part for name in between for part in model.get_submodule(name).modules()]
    if not inner.startswith(f"{cut.boundary}.") or any(
        "drop" in type(part).__name__.lower() for part in parts
    ):
        return False
    return _numbers(calls.inputs[inner].values()) < _numbers(
        calls.inputs[cut.boundary][key] for key in cut.keys
    )


def _numbers(inputs: Iterable[Any]) -> int:
    """Return how many floating-point numbers some arguments hold."""
    seen: list[TensorShape] = []
    for value in inputs:
        recursively_apply(seen.append, value, test_type=lambda one: isinstance(one, TensorShape))
    return sum(prod(shape.sizes) for shape in seen if shape.dtype.is_floating_point)


def _boundaries(model: nn.Module, trainable: Collection[str], calls: Calls) -> tuple[list[str], list[str]]:
    """List where to cut: before the outermost module that computes nothing frozen before what is trained, and before
    the modules that hold it; then the modules inside it that hold what is trained.
    """
    owners = {name.rpartition(".")[0] for name in trainable}
    heavy = {name for name, module in model.named_modules() if any(True for _ in module.parameters())}
    holding: list[str] = []
    frozen_inside: list[bool] = []
    for name, begins in calls.events:
        if not begins:
            holding.pop()
            frozen_inside.pop()
            if name in heavy:
                frozen_inside = [True] * len(frozen_inside)
            continue
        holding.append(name)
        frozen_inside.append(False)
        if name in owners:
            break
    outermost = next(index for index in range(len(holding) + 1) if not any(frozen_inside[index:]))
    return list(reversed(holding[: outermost + 1])), holding[outermost + 1 :]


def _cut_at(
    model: nn.Module,
    boundary: str,
    trainable: Collection[str],
    calls: Sequence[Calls],
    probes: Sequence[Batch],
) -> CutPoint:
    first, second = calls
    passed = [
        name
        for name in first.before(boundary)
        if not first.called_behind(name, boundary) and _gives_numbers(first.outputs[name])
    ]
    if any(other.startswith(f"{name}.") for name in passed for other in trainable):
        raise CacheUnavailableError(f"something before {boundary} is trained")
    if not passed:
        raise CacheUnavailableError("the first layers are trained")
    keys: tuple[Key, ...] = ()
    while passed:
        needed, keys = _needed_elsewhere(model, boundary, passed, probes[0])
        if not needed:
            break
        passed = [name for name in passed if name not in needed]
    spared = [parameter for name in passed for parameter in model.get_submodule(name).parameters()]
    if not spared or not keys:
        raise CacheUnavailableError(f"what comes before {boundary} is needed behind it too")
    sizes = [batch_sizes(probe) for probe in probes]
    shapes = tuple(_for_any(first.inputs[boundary][key], second.inputs[boundary][key], sizes) for key in keys)
    if any(shape.sizes[:1] != ("examples",) for shape in shapes):
        raise CacheUnavailableError(f"the input of {boundary} has no dimension for the examples")
    modules = tuple(
        PassedModule(
            name,
            tuple(
                _for_any(one, other, sizes)
                for one, other in zip(first.outputs[name], second.outputs[name], strict=True)
            ),
        )
        for name in passed
    )
    return CutPoint(boundary, keys, shapes, modules)


def _gives_numbers(outputs: Sequence[Any]) -> bool:
    """Say whether all tensors of some outputs are numbers to compute with, and not masks or indices."""
    seen: list[TensorShape] = []
    recursively_apply(seen.append, outputs, test_type=lambda value: isinstance(value, TensorShape))
    return bool(seen) and all(shape.dtype.is_floating_point for shape in seen)


def _needed_elsewhere(
    model: nn.Module, boundary: str, passed: Sequence[str], batch: Batch
) -> tuple[set[str], tuple[Key, ...]]:
    """Tell which modules are needed other than through the boundary, and which of its arguments they make.

    Each of their outputs is made a leaf of autograd, and the boundary's input is cut off from them. Whatever a gradient
    still reaches from the logits is needed elsewhere.
    """
    leaves: dict[int, str] = {}
    tensors: list[torch.Tensor] = []
    keys: list[Key] = []

    def leave(name: str) -> Any:
        def leaf(value: torch.Tensor) -> torch.Tensor:
            tensors.append(value.detach().requires_grad_())
            leaves[len(tensors) - 1] = name
            return tensors[-1].clone()  # what comes next may write into it

        return lambda module, args, output: recursively_apply(leaf, output)

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        handles[0].remove()  # at its first call only
        given = arguments(args, kwargs)
        for key, value in given.items():
            if isinstance(value, torch.Tensor) and value.requires_grad:
                keys.append(key)
                given[key] = value.detach()
        return tuple(given[index] for index in range(len(args))), {key: given[key] for key in kwargs}

    handles = [model.get_submodule(boundary).register_forward_pre_hook(enter, with_kwargs=True)]
    handles += [model.get_submodule(name).register_forward_hook(leave(name)) for name in passed]
    try:
        with torch.enable_grad(), evaluating(model), _all_frozen(model):
            total = output_of(model, batch).sum()
    finally:
        for handle in handles:
            handle.remove()
    if not total.requires_grad:
        return set(), tuple(keys)
    gradients = torch.autograd.grad(total, tensors, allow_unused=True)
    return {leaves[index] for index, value in enumerate(gradients) if value is not None}, tuple(keys)


@contextmanager
def _all_frozen(model: nn.Module) -> Iterator[None]:
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)


def _for_any(one: Any, other: Any, sizes: Sequence[Mapping[str, int]]) -> Any:
    """Tell from the shapes for two batches what they are for any batch."""
    if isinstance(one, TensorShape) and isinstance(other, TensorShape) and len(one.sizes) == len(other.sizes):
        pairs = zip(one.sizes, other.sizes, strict=True)
        return OutputShape(tuple(_size(pair, sizes) for pair in pairs), one.dtype)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list) and len(one) == len(other):
        return type(one)([_for_any(a, b, sizes) for a, b in zip(one, other, strict=True)])
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return type(one)({key: _for_any(one[key], other[key], sizes) for key in one})  # type: ignore[call-arg]
    if not isinstance(one, PLAIN):
        return None  # such as a cache of keys and values: if the model needs it, the proof fails
    if one == other:
        return one
    raise CacheUnavailableError("a frozen module gives what depends on the batch in an unknown way")


def _size(pair: tuple[int, int], sizes: Sequence[Mapping[str, int]]) -> int | str:
    if pair[0] == pair[1]:
        return pair[0]
    for name in ("examples", "tokens"):
        if pair == tuple(each[name] for each in sizes):
            return name
    raise CacheUnavailableError("a frozen module gives a shape that depends on the batch in an unknown way")

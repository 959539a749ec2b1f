"""Find the cut point at which a model's frozen prefix ends, by recording forward passes of two batches."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
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
from hf_finetune.models.head_spec import requiring_gradients
from hf_finetune.tasks import token_count

__all__ = ["CacheUnavailableError", "CutPoint", "OutputShape", "PassedModule", "find_cut"]

Batch = Mapping[str, torch.Tensor]
PLAIN = (bool, int, float, str, TensorShape, Sequence, Mapping, type(None))


class CacheUnavailableError(ValueError):
    """Raised if the outputs of a frozen prefix cannot be cached or caching saves too little; the message says why."""


@dataclass(frozen=True)
class OutputShape:
    """Shape of a tensor for any batch.

    Attributes:
        sizes: Size of each dimension, or ``examples`` or ``tokens`` if it depends on the batch.
        dtype: Element type.
    """

    sizes: tuple[int | str, ...]
    dtype: torch.dtype

    @property
    def varies(self) -> bool:
        """Whether a value has one row per token."""
        return "tokens" in self.sizes

    def at(self, batch: Batch) -> tuple[int, ...]:
        """Return the shape for a batch."""
        known = batch_sizes(batch)
        return tuple(known[size] if isinstance(size, str) else size for size in self.sizes)


@dataclass(frozen=True)
class PassedModule:
    """Module of the prefix, whose computation is skipped.

    Attributes:
        name: Name in the model.
        outputs: Output of each call, with an ``OutputShape`` in place of each tensor.
    """

    name: str
    outputs: tuple[Any, ...]


@dataclass(frozen=True)
class CutPoint:
    """Place at which a forward pass can start after the frozen prefix.

    Attributes:
        boundary: Name of the first module that is computed.
        keys: Positions or names of the arguments of ``boundary`` that the prefix computes.
        shapes: Shapes of these arguments.
        passed: Modules of the prefix, which are skipped.
    """

    boundary: str
    keys: tuple[Key, ...]
    shapes: tuple[OutputShape, ...]
    passed: tuple[PassedModule, ...]


def batch_sizes(batch: Batch) -> dict[str, int]:
    """Return the number of examples in a batch, and of tokens in each (0 if there are none)."""
    first = next(iter(batch.values()))
    return {"examples": len(first), "tokens": token_count(batch)}


def find_cut(model: nn.Module, trainable: Collection[str], probes: tuple[Batch, Batch]) -> CutPoint:
    """Return the cut point before the first trained module; of several, the one with the smallest input.

    Args:
        model: Model to run; its state is restored.
        trainable: Names of the trained parameters; all others are frozen.
        probes: Two batches without labels, with different numbers of examples and of tokens.

    Raises:
        CacheUnavailableError: If there is no cut point, or skipping the prefix saves nothing.
    """
    # Probes are shortened texts; BART, for example, fails without its end token.
    try:
        calls = tuple(record_calls(model, probe) for probe in probes)
    except (RuntimeError, ValueError, IndexError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise CacheUnavailableError(
            f"a test forward pass of the model failed ({first_line.rstrip('.')})"
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
    """Return whether a module inside the boundary has a smaller input, because the layers in between pool tokens.

    Dropout in between is active while the stage trains, and must be computed for each batch: the answer is False.
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
    """Return the number of floating-point elements in recorded arguments."""
    return sum(prod(shape.sizes) for shape in _shapes(list(inputs)) if shape.dtype.is_floating_point)


def _shapes(value: Any) -> list[TensorShape]:
    """Return the shapes in a nested structure of recorded values."""
    shapes: list[TensorShape] = []
    recursively_apply(shapes.append, value, test_type=lambda item: isinstance(item, TensorShape))
    return shapes


def _boundaries(model: nn.Module, trainable: Collection[str], calls: Calls) -> tuple[list[str], list[str]]:
    """Return the candidate boundaries: outer ones, and inner ones.

    The first outer candidate is the outermost module that contains the first trained layer and computes no frozen
    layer before it; the others are the modules around it, from the inside out. The inner candidates are the modules
    inside it that contain the first trained layer, from the outside in.
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
        raise CacheUnavailableError(f"a layer before {boundary} is trained")
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
        raise CacheUnavailableError(f"outputs from before {boundary} are also needed after it")
    sizes = [batch_sizes(probe) for probe in probes]
    shapes = tuple(_for_any(first.inputs[boundary][key], second.inputs[boundary][key], sizes) for key in keys)
    if any(shape.sizes[:1] != ("examples",) for shape in shapes):
        raise CacheUnavailableError(f"the input of {boundary} has no batch dimension")
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
    """Return whether outputs contain tensors, all of them floating-point: no masks or indices."""
    shapes = _shapes(outputs)
    return bool(shapes) and all(shape.dtype.is_floating_point for shape in shapes)


def _needed_elsewhere(
    model: nn.Module, boundary: str, passed: Sequence[str], batch: Batch
) -> tuple[set[str], tuple[Key, ...]]:
    """Return the modules whose outputs bypass the boundary, and the arguments of the boundary that they compute.

    Each of their outputs becomes a leaf of autograd, and the boundary's input is detached from them. A module whose
    outputs still receive a gradient from the logits is needed elsewhere.
    """
    owners: list[str] = []  # the module of each of the tensors
    tensors: list[torch.Tensor] = []
    keys: list[Key] = []

    def leave(name: str) -> Any:
        def leaf(value: torch.Tensor) -> torch.Tensor:
            tensors.append(value.detach().requires_grad_())
            owners.append(name)
            return tensors[-1].clone()  # the next operation may write in place

        return lambda module, args, output: recursively_apply(leaf, output)

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        handles[0].remove()  # only its first call counts
        inputs = arguments(args, kwargs)
        for key, value in inputs.items():
            if isinstance(value, torch.Tensor) and value.requires_grad:
                keys.append(key)
                inputs[key] = value.detach()
        return tuple(inputs[index] for index in range(len(args))), {key: inputs[key] for key in kwargs}

    handles = [model.get_submodule(boundary).register_forward_pre_hook(enter, with_kwargs=True)]
    handles += [model.get_submodule(name).register_forward_hook(leave(name)) for name in passed]
    try:
        with torch.enable_grad(), evaluating(model), requiring_gradients(model, False):
            total = output_of(model, batch).sum()
    finally:
        for handle in handles:
            handle.remove()
    if not total.requires_grad:
        return set(), tuple(keys)
    gradients = torch.autograd.grad(total, tensors, allow_unused=True)
    needed = {owner for owner, value in zip(owners, gradients, strict=True) if value is not None}
    return needed, tuple(keys)


def _for_any(one: Any, other: Any, sizes: Sequence[Mapping[str, int]]) -> Any:
    """Return a recorded value for any batch, inferred from its shapes in two batches."""
    if isinstance(one, TensorShape) and isinstance(other, TensorShape) and len(one.sizes) == len(other.sizes):
        pairs = zip(one.sizes, other.sizes, strict=True)
        return OutputShape(tuple(_size(pair, sizes) for pair in pairs), one.dtype)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list) and len(one) == len(other):
        return type(one)([_for_any(a, b, sizes) for a, b in zip(one, other, strict=True)])
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return type(one)({key: _for_any(one[key], other[key], sizes) for key in one})  # type: ignore[call-arg]
    if not isinstance(one, PLAIN):
        return None  # such as a key-value cache: if the model needs it, verification fails
    if one == other:
        return one
    raise CacheUnavailableError("an output of a frozen module depends on the batch in an unknown way")


def _size(pair: tuple[int, int], sizes: Sequence[Mapping[str, int]]) -> int | str:
    if pair[0] == pair[1]:
        return pair[0]
    for name in ("examples", "tokens"):
        if pair == tuple(counts[name] for counts in sizes):
            return name
    raise CacheUnavailableError("an output shape of a frozen module depends on the batch in an unknown way")

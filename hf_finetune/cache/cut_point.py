"""Find the cut point of a model, where its frozen prefix ends, by recording forward passes of two batches.

Terms:

- The *prefix* is the frozen modules that are computed before the first trained layer, and whose outputs are cached.
- The *boundary* is the first module after the prefix. It is computed in each forward pass.
- The *keys* are the positions or names of those arguments of the boundary that the prefix computes. Other arguments,
  such as an attention mask, are computed in each forward pass.
- A *cut point* is a boundary with its keys, the shapes of these arguments, and the modules of the prefix.
- A *probe* is a small batch whose forward pass is recorded. There are two probes, with different numbers of examples
  and tokens: a dimension that differs in the same way depends on the batch.
- The *calls* of a probe record this forward pass: the *events* are the begin and the end of each module's call.

Example: a stage trains the last layer of a BERT with three layers, its pooler and its classifier. The prefix is
``bert.embeddings``, ``bert.encoder.layer.0`` and ``bert.encoder.layer.1``. The boundary is ``bert.encoder.layer.2``.
The only key is 0: the first argument of the boundary, the hidden states ``[examples, tokens, hidden]``.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
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
    compute_logits,
    eval_mode,
    record_calls,
)
from hf_finetune.models.head_spec import requiring_gradients
from hf_finetune.tasks import token_count

__all__ = ["BatchShape", "CacheUnavailableError", "CutPoint", "SkippedModule", "find_cut"]

Batch = Mapping[str, torch.Tensor]
COMPARABLE_TYPES = (bool, int, float, str, TensorShape, Sequence, Mapping, type(None))
"""Types of recorded values that are compared by equality; values of other types are ignored."""


class CacheUnavailableError(ValueError):
    """Raised if the outputs of a frozen prefix cannot be cached or caching saves too little; the message says why."""


@dataclass(frozen=True)
class BatchShape:
    """Shape of a tensor for any batch.

    Attributes:
        sizes: Size of each dimension, or ``examples`` or ``tokens`` if it depends on the batch.
        dtype: Element type.
    """

    sizes: tuple[int | str, ...]
    dtype: torch.dtype

    @property
    def has_tokens(self) -> bool:
        """Whether a value has one row per token."""
        return "tokens" in self.sizes

    def at(self, batch: Batch) -> tuple[int, ...]:
        """Return the shape for a batch."""
        known = batch_sizes(batch)
        return tuple(known[size] if isinstance(size, str) else size for size in self.sizes)


@dataclass(frozen=True)
class SkippedModule:
    """Module of the frozen prefix, whose computation is skipped.

    Attributes:
        name: Name in the model.
        outputs: Output of each call, with a ``BatchShape`` in place of each tensor.
    """

    name: str
    outputs: tuple[Any, ...]


@dataclass(frozen=True)
class CutPoint:
    """Module at which a forward pass can start after the frozen prefix.

    Attributes:
        boundary: Name of the first module after the prefix, which is computed in each forward pass.
        keys: Positions or names of the arguments of ``boundary`` that the prefix computes.
        shapes: Shapes of these arguments.
        skipped: Modules of the prefix.
    """

    boundary: str
    keys: tuple[Key, ...]
    shapes: tuple[BatchShape, ...]
    skipped: tuple[SkippedModule, ...]


def batch_sizes(batch: Batch) -> dict[str, int]:
    """Return the number of examples in a batch, and of tokens in each (0 if there are none)."""
    first = next(iter(batch.values()))
    return {"examples": len(first), "tokens": token_count(batch)}


def find_cut(model: nn.Module, trainable: Collection[str], probes: tuple[Batch, Batch]) -> CutPoint:
    """Return the cut point before the first trained module.

    It is at the first outer candidate (see ``_candidate_boundaries``) that has a valid cut point, or at an inner
    candidate whose input is smaller, because the layers in between pool tokens.

    Args:
        model: Model to run; its state is restored.
        trainable: Names of the trained parameters; all other parameters are frozen.
        probes: Two batches without labels, with different numbers of examples and of tokens.

    Raises:
        CacheUnavailableError: If there is no cut point, or skipping the prefix saves nothing.
    """
    try:
        calls = tuple(record_calls(model, probe) for probe in probes)
    except (RuntimeError, ValueError, IndexError) as error:
        # probes are shortened texts: BART, for example, fails without its end token
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise CacheUnavailableError(
            f"a test forward pass of the model failed ({first_line.rstrip('.')})"
        ) from error
    outer, inner = _candidate_boundaries(model, trainable, calls[0])
    cut_at = partial(_cut_at, model=model, trainable=trainable, calls=calls, probes=probes)
    cut = _first_valid_cut(outer, cut_at)
    for boundary in inner:
        if _has_smaller_input(model, calls[0], cut, boundary):
            with suppress(CacheUnavailableError):
                cut = cut_at(boundary)
    return cut


@dataclass
class _OpenCall:
    """Module call that has begun and has not ended.

    Attributes:
        name: Name of the module.
        has_computed_layer: Whether a module with parameters has been computed inside this call.
    """

    name: str
    has_computed_layer: bool = False


def _candidate_boundaries(
    model: nn.Module, trainable: Collection[str], calls: Calls
) -> tuple[list[str], list[str]]:
    """Return the candidate boundaries: the modules whose call has not ended when the first trained layer is called.

    In the example of the module docstring, the first trained layer is ``bert.encoder.layer.2.attention.self.query``.
    Before it, frozen layers were computed inside ``bert`` and ``bert.encoder``, but not inside
    ``bert.encoder.layer.2``. The outer candidates are ``bert.encoder.layer.2``, ``bert.encoder`` and ``bert``. The
    inner candidates are ``attention``, ``attention.self`` and ``attention.self.query`` in ``bert.encoder.layer.2``.

    Returns:
        Outer candidates: the largest module in which no frozen layer was computed before, then the modules that
        contain it, from the inside out. Inner candidates: the modules inside the first outer candidate, from the
        outside in.
    """
    trained_layers = {name.rpartition(".")[0] for name in trainable}
    open_calls = _open_calls_at_first(trained_layers, model, calls)
    first = 1 + max((level for level, call in enumerate(open_calls) if call.has_computed_layer), default=-1)
    names = [call.name for call in open_calls]
    return list(reversed(names[: first + 1])), names[first + 1 :]


def _open_calls_at_first(trained_layers: Collection[str], model: nn.Module, calls: Calls) -> list[_OpenCall]:
    """Return the calls that are open when the first trained layer is called, the outermost first."""
    with_parameters = {
        name for name, module in model.named_modules() if any(True for _ in module.parameters())
    }
    open_calls: list[_OpenCall] = []
    for name, begins in calls.events:
        if begins:
            open_calls.append(_OpenCall(name))
            if name in trained_layers:
                break
        else:
            open_calls.pop()
            if name in with_parameters:
                for call in open_calls:
                    call.has_computed_layer = True
    return open_calls


def _first_valid_cut(boundaries: Sequence[str], cut_at: Callable[[str], CutPoint]) -> CutPoint:
    """Return the cut point at the first boundary that has one; if none has, raise the error of the first."""
    reasons = []
    for boundary in boundaries:
        try:
            return cut_at(boundary)
        except CacheUnavailableError as error:
            reasons.append(str(error))
    raise CacheUnavailableError(reasons[0])


def _has_smaller_input(model: nn.Module, calls: Calls, cut: CutPoint, inner: str) -> bool:
    """Return whether a module inside the boundary has a smaller input, because the layers in between pool tokens.

    Dropout in between is active while the stage trains, and must be computed for each batch: the answer is False.
    """
    if not inner.startswith(f"{cut.boundary}."):
        return False
    between = [name for name in calls.before(inner) if name.startswith(f"{cut.boundary}.")]
    layers = [layer for name in between for layer in model.get_submodule(name).modules()]
    if any("drop" in type(layer).__name__.lower() for layer in layers):
        return False
    cut_inputs = [calls.inputs[cut.boundary][key] for key in cut.keys]
    return _count_elements(calls.inputs[inner].values()) < _count_elements(cut_inputs)


def _count_elements(inputs: Iterable[Any]) -> int:
    """Return the number of floating-point elements in recorded arguments."""
    return sum(prod(shape.sizes) for shape in _shapes(list(inputs)) if shape.dtype.is_floating_point)


def _shapes(value: Any) -> list[TensorShape]:
    """Return the shapes in a nested structure of recorded values."""
    shapes: list[TensorShape] = []
    recursively_apply(shapes.append, value, test_type=lambda item: isinstance(item, TensorShape))
    return shapes


def _cut_at(
    boundary: str,
    model: nn.Module,
    trainable: Collection[str],
    calls: Sequence[Calls],
    probes: Sequence[Batch],
) -> CutPoint:
    """Return the cut point at a boundary.

    Raises:
        CacheUnavailableError: If a layer before the boundary is trained, if no frozen layer reaches the logits through
            the boundary alone, or if the boundary's input cannot be cached per example.
    """
    first, second = calls
    candidates = _modules_before(boundary, trainable, first)
    skipped, keys = _without_bypassing(candidates, boundary, model, probes[0])
    has_parameters = any(True for name in skipped for _ in model.get_submodule(name).parameters())
    if not has_parameters or not keys:
        raise CacheUnavailableError(f"outputs from before {boundary} are also needed after it")
    sizes = [batch_sizes(probe) for probe in probes]
    shapes = tuple(
        _generalize(first.inputs[boundary][key], second.inputs[boundary][key], sizes) for key in keys
    )
    if any(shape.sizes[:1] != ("examples",) for shape in shapes):
        raise CacheUnavailableError(f"the input of {boundary} has no batch dimension")
    modules = []
    for name in skipped:
        outputs = zip(first.outputs[name], second.outputs[name], strict=True)
        modules.append(SkippedModule(name, tuple(_generalize(*pair, sizes) for pair in outputs)))
    return CutPoint(boundary, keys, shapes, tuple(modules))


def _modules_before(boundary: str, trainable: Collection[str], calls: Calls) -> list[str]:
    """Return the modules that are computed before a boundary, and not again after it.

    Raises:
        CacheUnavailableError: If there are none, or one has a trained parameter.
    """
    names = [
        name
        for name in calls.before(boundary)
        if not calls.called_after(name, boundary) and _all_floating_point(calls.outputs[name])
    ]
    if any(parameter.startswith(f"{name}.") for name in names for parameter in trainable):
        raise CacheUnavailableError(f"a layer before {boundary} is trained")
    if not names:
        raise CacheUnavailableError("the first layers are trained")
    return names


def _all_floating_point(outputs: Sequence[Any]) -> bool:
    """Return whether outputs contain tensors, all of them floating-point: no masks or indices."""
    shapes = _shapes(outputs)
    return bool(shapes) and all(shape.dtype.is_floating_point for shape in shapes)


def _without_bypassing(
    modules: Sequence[str], boundary: str, model: nn.Module, batch: Batch
) -> tuple[list[str], tuple[Key, ...]]:
    """Return the modules whose outputs do not bypass the boundary, and the arguments of it that they compute."""
    remaining = list(modules)
    keys: tuple[Key, ...] = ()
    while remaining:
        bypassing, keys = _find_bypassing(remaining, boundary, model, batch)
        if not bypassing:
            break
        remaining = [name for name in remaining if name not in bypassing]
    return remaining, keys


def _find_bypassing(
    modules: Sequence[str], boundary: str, model: nn.Module, batch: Batch
) -> tuple[set[str], tuple[Key, ...]]:
    """Return the modules whose outputs bypass the boundary, and the arguments of the boundary that they compute.

    Each output of a module becomes a leaf of autograd, and the boundary's input is detached from it. A module whose
    outputs still receive a gradient from the logits bypasses the boundary.
    """
    owners: list[str] = []  # the module of each tensor
    tensors: list[torch.Tensor] = []
    keys: list[Key] = []

    def detach_outputs_hook(name: str) -> Any:
        def detach(value: torch.Tensor) -> torch.Tensor:
            tensors.append(value.detach().requires_grad_())
            owners.append(name)
            return tensors[-1].clone()  # the next operation may write in place

        return lambda module, args, output: recursively_apply(detach, output)

    def boundary_hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        handles[0].remove()  # only its first call counts
        inputs = arguments(args, kwargs)
        for key, value in inputs.items():
            if isinstance(value, torch.Tensor) and value.requires_grad:
                keys.append(key)
                inputs[key] = value.detach()
        return tuple(inputs[index] for index in range(len(args))), {key: inputs[key] for key in kwargs}

    handles = [model.get_submodule(boundary).register_forward_pre_hook(boundary_hook, with_kwargs=True)]
    handles += [
        model.get_submodule(name).register_forward_hook(detach_outputs_hook(name)) for name in modules
    ]
    try:
        with torch.enable_grad(), eval_mode(model), requiring_gradients(model, False):
            total = compute_logits(model, batch).sum()
    finally:
        for handle in handles:
            handle.remove()
    if not total.requires_grad:
        return set(), tuple(keys)
    gradients = torch.autograd.grad(total, tensors, allow_unused=True)
    bypassing = {owner for owner, value in zip(owners, gradients, strict=True) if value is not None}
    return bypassing, tuple(keys)


def _generalize(first: Any, second: Any, sizes: Sequence[Mapping[str, int]]) -> Any:
    """Return a recorded value for any batch, inferred from its shapes in two batches."""
    if (
        isinstance(first, TensorShape)
        and isinstance(second, TensorShape)
        and len(first.sizes) == len(second.sizes)
    ):
        pairs = zip(first.sizes, second.sizes, strict=True)
        return BatchShape(tuple(_size(pair, sizes) for pair in pairs), first.dtype)
    if isinstance(first, tuple | list) and isinstance(second, tuple | list) and len(first) == len(second):
        return type(first)([_generalize(*pair, sizes) for pair in zip(first, second, strict=True)])
    if isinstance(first, Mapping) and isinstance(second, Mapping) and first.keys() == second.keys():
        return type(first)({key: _generalize(first[key], second[key], sizes) for key in first})  # type: ignore[call-arg]
    if not isinstance(first, COMPARABLE_TYPES):
        return None  # such as a key-value cache: if the model needs it, verification fails
    if first == second:
        return first
    raise CacheUnavailableError("an output of a frozen module depends on the batch in an unknown way")


def _size(pair: tuple[int, int], sizes: Sequence[Mapping[str, int]]) -> int | str:
    if pair[0] == pair[1]:
        return pair[0]
    for name in ("examples", "tokens"):
        if pair == tuple(counts[name] for counts in sizes):
            return name
    raise CacheUnavailableError("an output shape of a frozen module depends on the batch in an unknown way")

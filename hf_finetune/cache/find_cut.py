"""Find the cut point of a model by recording forward passes of two batches.

The *calls* of a probe record its forward pass: the *events* are the begin and the end of each module's call.

Example: a stage trains the last layer of a BERT with three layers, its pooler and its classifier. The prefix is
``bert.embeddings``, ``bert.encoder.layer.0`` and ``bert.encoder.layer.1``. The boundary is ``bert.encoder.layer.2``.
The only key is 0: the first argument of the boundary, the hidden states ``[examples, tokens, hidden]``.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
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
    arguments,
    compute_logits,
    eval_mode,
    record_calls,
    tensor_shapes,
)
from hf_finetune.cache.cut_point import (
    Batch,
    CacheUnavailableError,
    CutPoint,
    SkippedModule,
    batch_sizes,
    generalize,
)
from hf_finetune.cache.output_cut import cut_at_outputs
from hf_finetune.models.head_spec import requiring_gradients

__all__ = ["find_cut"]


def find_cut(model: nn.Module, trainable: Collection[str], probes: tuple[Batch, Batch]) -> CutPoint:
    """Return the cut point before the first trained module.

    It is at the first outer candidate (see ``_candidate_boundaries``) that has a valid cut point, or at an inner
    candidate whose input is smaller, because the layers in between pool tokens. If a trained parameter belongs to no
    layer, such as the weights of a sum of all layers, the cut point is at the outputs of the prefix.

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
    if any("." not in name for name in trainable):
        return cut_at_outputs(model, trainable, calls, probes)
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
    return sum(prod(shape.sizes) for shape in tensor_shapes(list(inputs)) if shape.dtype.is_floating_point)


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
        generalize(first.inputs[boundary][key], second.inputs[boundary][key], sizes) for key in keys
    )
    if any(shape.sizes[:1] != ("examples",) for shape in shapes):
        raise CacheUnavailableError(f"the input of {boundary} has no batch dimension")
    modules = []
    for name in skipped:
        outputs = zip(first.outputs[name], second.outputs[name], strict=True)
        modules.append(SkippedModule(name, tuple(generalize(*pair, sizes) for pair in outputs)))
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
    shapes = tensor_shapes(outputs)
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

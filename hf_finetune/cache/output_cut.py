"""Cut point at the outputs of a frozen prefix, for a trained weight outside of all layers, such as a weighted sum."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import recursively_apply
from torch import nn

from hf_finetune.cache.call_recording import Calls, compute_logits, eval_mode, tensor_shapes
from hf_finetune.cache.cut_point import (
    Batch,
    BatchShape,
    CacheUnavailableError,
    CutPoint,
    SkippedModule,
    batch_sizes,
    generalize,
)
from hf_finetune.models.head_spec import requiring_gradients

__all__ = ["cut_at_outputs", "whole_output"]


def cut_at_outputs(
    model: nn.Module, trainable: Collection[str], calls: Sequence[Calls], probes: Sequence[Batch]
) -> CutPoint:
    """Return the cut point at the outputs of the only frozen module that the rest of the model reads.

    Args:
        model: Model to run; its state is restored.
        trainable: Names of the trained parameters.
        calls: Recorded forward passes of both probes.
        probes: Two batches without labels.

    Raises:
        CacheUnavailableError: If the rest of the model reads several frozen modules, or none.
    """
    frozen = [
        name for name in _outermost_frozen(model, trainable) if len(calls[0].outputs.get(name, ())) == 1
    ]
    needed = _needed_outputs(_independent(frozen, model, trainable, probes[0]), model, probes[0])
    if len(needed) != 1:
        raise CacheUnavailableError(
            "a weight outside of all layers reads the outputs of several frozen modules"
        )
    ((name, keys),) = needed.items()
    sizes = [batch_sizes(probe) for probe in probes]
    output = generalize(calls[0].outputs[name][0], calls[1].outputs[name][0], sizes)
    tensors = tensor_shapes(calls[0].outputs[name][0]), tensor_shapes(calls[1].outputs[name][0])
    shapes = tuple(generalize(tensors[0][key], tensors[1][key], sizes) for key in keys)
    if any(shape.sizes[:1] != ("examples",) for shape in shapes):
        raise CacheUnavailableError(f"an output of {name} has no batch dimension")
    return CutPoint(name, tuple(keys), shapes, (SkippedModule(name, (output,)),), is_output=True)


def whole_output(cut: CutPoint) -> CutPoint:
    """Return a cut point at outputs that caches all output tensors, also those that are not needed.

    Args:
        cut: Cut point from ``cut_at_outputs``.
    """
    shapes: list[BatchShape] = []
    output = cut.skipped[0].outputs[0]
    recursively_apply(shapes.append, output, test_type=lambda value: isinstance(value, BatchShape))
    return replace(cut, keys=tuple(range(len(shapes))), shapes=tuple(shapes))


def _outermost_frozen(model: nn.Module, trainable: Collection[str], prefix: str = "") -> Iterator[str]:
    """Yield the names of the largest modules with parameters, none of which is trained."""
    for name, child in model.named_children():
        place = f"{prefix}{name}"
        if any(parameter.startswith(f"{place}.") for parameter in trainable):
            yield from _outermost_frozen(child, trainable, f"{place}.")
        elif any(True for _ in child.parameters()):
            yield place


def _independent(
    names: Sequence[str], model: nn.Module, trainable: Collection[str], batch: Batch
) -> list[str]:
    """Return the modules whose outputs do not depend on trained parameters."""
    dependent: set[str] = set()

    def note_hook(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            def note(value: torch.Tensor) -> torch.Tensor:
                if value.requires_grad:
                    dependent.add(name)
                return value

            recursively_apply(note, output)

        return hook

    handles = [model.get_submodule(name).register_forward_hook(note_hook(name)) for name in names]
    try:
        with torch.enable_grad(), eval_mode(model), requiring_gradients(model, False):
            for name in trainable:
                model.get_parameter(name).requires_grad_()
            compute_logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return [name for name in names if name not in dependent]


def _needed_outputs(names: Sequence[str], model: nn.Module, batch: Batch) -> dict[str, list[int]]:
    """Return the positions of the output tensors of each module on which the logits depend.

    Each output becomes a leaf of autograd; the logits depend on those that receive a gradient. A module that only
    frozen modules read is not needed, because the outputs of these are leaves too.
    """
    owners: list[tuple[str, int]] = []
    leaves: list[torch.Tensor] = []

    def detach_hook(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            count = 0

            def detach(value: torch.Tensor) -> torch.Tensor:
                nonlocal count
                position, count = count, count + 1
                if not value.is_floating_point():
                    return value
                owners.append((name, position))
                leaves.append(value.detach().requires_grad_())
                return leaves[-1].clone()  # the next operation may write in place

            return recursively_apply(detach, output)

        return hook

    handles = [model.get_submodule(name).register_forward_hook(detach_hook(name)) for name in names]
    try:
        with torch.enable_grad(), eval_mode(model), requiring_gradients(model, False):
            total = compute_logits(model, batch).sum()
    finally:
        for handle in handles:
            handle.remove()
    needed: dict[str, list[int]] = {}
    if total.requires_grad:
        gradients = torch.autograd.grad(total, leaves, allow_unused=True)
        for (name, position), gradient in zip(owners, gradients, strict=True):
            if gradient is not None:
                needed.setdefault(name, []).append(position)
    return needed

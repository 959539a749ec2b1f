"""Run a model without its frozen prefix: its modules are skipped, and their cached outputs are injected."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from accelerate.utils import recursively_apply
from torch import nn

from hf_finetune.cache.call_recording import arguments, compute_logits, eval_mode
from hf_finetune.cache.cut_point import Batch, BatchShape, CacheUnavailableError, CutPoint, SkippedModule

__all__ = ["PREFIX", "PrefixRunner", "verify"]

PREFIX = "prefix"
"""Key of the prefix outputs in a batch."""


class _ReachedError(Exception):
    """Raised to end a forward pass at the boundary."""


class PrefixRunner:
    """Runner of a model's frozen prefix: computes its outputs, and later injects them in place of the prefix.

    Args:
        model: Model with a frozen prefix.
        cut: Cut point at which the prefix ends.
        placeholder: Name of an input and the shape of an example, ``[channels, height, width]``, where the model reads
            only its shape; None if batches keep their inputs.

    Attributes:
        values: Tensors to inject at the boundary in the next forward pass, each ``[batch, ...]``.
    """

    def __init__(
        self, model: nn.Module, cut: CutPoint, placeholder: tuple[str, tuple[int, ...]] | None = None
    ):
        self.model, self.cut, self.placeholder = model, cut, placeholder
        self.values: tuple[torch.Tensor, ...] | None = None
        self.boundary_reached = False

    def collect(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Return the prefix outputs of a batch without labels; the forward pass ends at the boundary."""
        values: list[torch.Tensor] = []

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            inputs = arguments(args, kwargs)
            values.extend(inputs[key].detach() for key in self.cut.keys)
            raise _ReachedError

        def stop_after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            outputs: list[torch.Tensor] = []
            recursively_apply(outputs.append, output)
            values.extend(outputs[int(key)].detach() for key in self.cut.keys)
            raise _ReachedError

        if self.cut.is_output:
            handle = self._boundary().register_forward_hook(stop_after)
        else:
            handle = self._boundary().register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with torch.no_grad():
                self.model(**batch)
        except _ReachedError:
            pass
        finally:
            handle.remove()
        return tuple(values)

    def load_batch(self, batch: dict[str, Any]) -> None:
        """Move the prefix outputs from a batch to ``values``, and add placeholder inputs that take no memory."""
        self.values = batch.pop(PREFIX)
        if self.placeholder is not None:
            first, (name, shape) = self.values[0], self.placeholder
            batch[name] = torch.zeros((), device=first.device).expand(len(first), *shape)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Skip the prefix and inject ``values`` in each forward pass within the block; restore the model afterwards.

        A module of the prefix raises ``RuntimeError`` if ``values`` were not set before the forward pass. A decoder may
        run alone, with the outputs of its encoder as an input.
        """
        stubs = {module.name: self._stub(module) for module in self.cut.skipped}
        for name, stub in stubs.items():
            self.model.get_submodule(name).forward = stub

        def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            batch = {key: value for key, value in kwargs.items() if isinstance(value, torch.Tensor)}
            self.boundary_reached = False
            for stub in stubs.values():
                stub.reset(batch, has_values=self.values is not None)

        handles = [self.model.register_forward_pre_hook(begin, with_kwargs=True)]
        if not self.cut.is_output:
            handles.append(self._boundary().register_forward_pre_hook(self._inject, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for name in stubs:
                del self.model.get_submodule(name).__dict__["forward"]

    def _boundary(self) -> nn.Module:
        return self.model.get_submodule(self.cut.boundary)

    def _stub(self, module: SkippedModule) -> "_Stub":
        is_cached = self.cut.is_output and module.name == self.cut.boundary
        return _Stub(module.outputs, self._take if is_cached else None)

    def _take(self) -> dict[int, torch.Tensor]:
        """Return the values by their positions among the outputs of the boundary; they are used once."""
        values, self.values = self.values or (), None
        return dict(zip(map(int, self.cut.keys), values, strict=True))

    def _inject(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.boundary_reached or self.values is None:
            return None
        self.boundary_reached = True
        inputs = arguments(args, kwargs)
        inputs |= dict(zip(self.cut.keys, self.values, strict=True))
        self.values = None
        return tuple(inputs[index] for index in range(len(args))), {key: inputs[key] for key in kwargs}


class _Stub:
    """Replacement of a module's ``forward`` that returns tensors of the right shapes without allocating memory.

    A class and not a closure, so that the model can be copied.

    Args:
        outputs: Output of each call, with a ``BatchShape`` in place of each tensor.
        take: Function that returns cached output tensors by their position; None if none are cached.
    """

    def __init__(self, outputs: tuple[Any, ...], take: Callable[[], dict[int, torch.Tensor]] | None = None):
        self.outputs, self.take, self.calls = outputs, take, 0
        self.batch: Mapping[str, torch.Tensor] = {}
        self.has_values = False

    def reset(self, batch: Mapping[str, torch.Tensor], *, has_values: bool) -> None:
        self.calls, self.batch, self.has_values = 0, batch, has_values

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.has_values:
            raise RuntimeError("values must be set before each forward pass.")
        output = self.outputs[self.calls]
        self.calls += 1
        positions, cached = count(), self.take() if self.take else {}

        def make(shape: BatchShape) -> torch.Tensor:
            position = next(positions)
            return cached[position] if position in cached else self._empty(shape)

        return recursively_apply(make, output, test_type=lambda value: isinstance(value, BatchShape))

    def _empty(self, shape: BatchShape) -> torch.Tensor:
        device = next(iter(self.batch.values())).device
        return torch.zeros((), dtype=shape.dtype, device=device).expand(shape.at(self.batch))


def verify(model: nn.Module, cut: CutPoint, batch: Batch) -> None:
    """Check that a model computes the same logits and gradients without its prefix, bit for bit.

    Args:
        model: Model with a frozen prefix, in the mode in which it trains; its state is restored.
        cut: Cut point at which the prefix ends.
        batch: Batch without labels.

    Raises:
        CacheUnavailableError: If logits or gradients differ, or if the prefix outputs are random.
    """
    runner = PrefixRunner(model, cut)
    runs = [runner.collect(batch) for _ in range(2)]
    if not all(torch.equal(first, second) for first, second in zip(*runs, strict=True)):
        raise CacheUnavailableError("the frozen prefix draws random numbers")
    with eval_mode(model):
        expected = _logits_and_gradients(model, batch)
        values = runner.collect(batch)
        try:
            with runner.active():
                runner.values = values
                actual = _logits_and_gradients(model, batch)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise CacheUnavailableError(f"the model cannot run without its prefix: {error}") from error
    if actual.keys() != expected.keys() or any(
        not torch.equal(actual[name], expected[name]) for name in actual
    ):
        raise CacheUnavailableError("the model computes different results without its prefix")


def _logits_and_gradients(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    with torch.enable_grad():
        logits = compute_logits(model, batch)
        total = logits.float().logsumexp(-1).sum() + logits.float().square().sum()
    gradients = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    gradient_by_name = {
        name: value for name, value in zip(trained, gradients, strict=True) if value is not None
    }
    return {**gradient_by_name, "logits": logits.detach()}

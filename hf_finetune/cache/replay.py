"""Enter a model behind its frozen prefix: the prefix passes by, and what it would have given is put in its place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import recursively_apply
from torch import nn

from hf_finetune.cache.call_recording import arguments, evaluating, output_of
from hf_finetune.cache.cut_point import Batch, CacheUnavailableError, CutPoint, OutputShape

__all__ = ["PREFIX", "PrefixPass", "verify"]

PREFIX = "prefix"
"""Under which a batch holds what the prefix gave."""


class _ReachedError(Exception):
    """The boundary is reached: nothing behind it is to be computed."""


class PrefixPass:
    """Gives what the prefix of a model makes, and later takes it in the prefix's place.

    Args:
        model: The model.
        cut: Where its prefix ends.
        image: Shape of an image [channels, height, width], of models that take images.

    Attributes:
        values: What is put in at the boundary at the next forward pass, each [examples, ...].
    """

    def __init__(self, model: nn.Module, cut: CutPoint, image: tuple[int, ...] | None = None):
        self.model, self.cut, self.image = model, cut, image
        self.values: tuple[torch.Tensor, ...] | None = None
        self.entered = False
        self.handles: list[Any] = []

    def collect(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Compute the prefix for a batch without labels, and no further."""
        found: list[torch.Tensor] = []

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = arguments(args, kwargs)
            found.extend(given[key].detach() for key in self.cut.keys)
            raise _ReachedError

        handle = self._boundary().register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with torch.no_grad():
                self.model(**batch)
        except _ReachedError:
            pass
        finally:
            handle.remove()
        return tuple(found)

    def take(self, batch: dict[str, Any]) -> None:
        """Take the values out of a batch, for the next forward pass, and put an image there that takes no memory."""
        self.values = batch.pop(PREFIX)
        if self.image is not None:  # the model looks at its shape only
            first = self.values[0]
            batch["pixel_values"] = torch.zeros((), device=first.device).expand(len(first), *self.image)

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Let the prefix pass by in each forward pass for which there are ``values``. Afterwards all is as it was."""
        stubs = {module.name: _Stub(module.outputs) for module in self.cut.passed}
        for name, stub in stubs.items():
            self.model.get_submodule(name).forward = stub

        def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.values is None:
                raise RuntimeError("values must be set before each forward pass.")
            batch = {key: value for key, value in kwargs.items() if isinstance(value, torch.Tensor)}
            self.entered = False
            for stub in stubs.values():
                stub.begin(batch)

        handles = [
            self.model.register_forward_pre_hook(begin, with_kwargs=True),
            self._boundary().register_forward_pre_hook(self._enter, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for name in stubs:
                del self.model.get_submodule(name).__dict__["forward"]

    def _boundary(self) -> nn.Module:
        return self.model.get_submodule(self.cut.boundary)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.entered or self.values is None:
            return None
        self.entered = True
        given = arguments(args, kwargs)
        given |= dict(zip(self.cut.keys, self.values, strict=True))
        self.values = None
        return tuple(given[index] for index in range(len(args))), {key: given[key] for key in kwargs}


class _Stub:
    """Stands in for a module's ``forward``, and gives tensors of the right shapes that take no memory.

    A class and not a closure, so that the model can be copied.
    """

    def __init__(self, outputs: tuple[Any, ...]):
        self.outputs, self.calls = outputs, 0
        self.batch: Mapping[str, torch.Tensor] = {}

    def begin(self, batch: Mapping[str, torch.Tensor]) -> None:
        self.calls, self.batch = 0, batch

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self.outputs[self.calls]
        self.calls += 1
        return recursively_apply(self._empty, output, test_type=lambda value: isinstance(value, OutputShape))

    def _empty(self, shape: OutputShape) -> torch.Tensor:
        device = next(iter(self.batch.values())).device
        return torch.zeros((), dtype=shape.dtype, device=device).expand(shape.at(self.batch))


def verify(model: nn.Module, cut: CutPoint, batch: Batch) -> None:
    """Compare a model with itself entered behind its prefix: logits and gradients, bit for bit.

    Args:
        model: In the mode in which it trains, frozen; it is left as it was.
        cut: Where its prefix ends.
        batch: Without labels.

    Raises:
        CacheUnavailableError: If they differ, or if what the prefix gives is drawn at random.
    """
    entry = PrefixPass(model, cut)
    drawn = [entry.collect(batch) for _ in range(2)]
    if not all(torch.equal(one, other) for one, other in zip(*drawn, strict=True)):
        raise CacheUnavailableError("something in the frozen prefix is drawn at random")
    with evaluating(model):
        expected = _logits_and_gradients(model, batch)
        values = entry.collect(batch)
        try:
            with entry.passing():
                entry.values = values
                found = _logits_and_gradients(model, batch)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise CacheUnavailableError(f"the model does not compute without its prefix: {error}") from error
    if found.keys() != expected.keys() or any(not torch.equal(found[name], expected[name]) for name in found):
        raise CacheUnavailableError("the model gives other results without its prefix")


def _logits_and_gradients(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    with torch.enable_grad():
        logits = output_of(model, batch)
        total = logits.float().logsumexp(-1).sum() + logits.float().square().sum()
    gradients = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
    found = {name: value for name, value in zip(trained, gradients, strict=True) if value is not None}
    return {**found, "logits": logits.detach()}

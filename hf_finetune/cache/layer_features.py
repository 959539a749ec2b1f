"""Features of recordings by each layer of a frozen speech model, computed in one forward pass and cached."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from hf_finetune.cache.call_recording import eval_mode
from hf_finetune.cache.cut_point import Batch, BatchShape, CacheUnavailableError, CutPoint
from hf_finetune.cache.feature_kinds import ForwardSettings, KindRunner, cached_kinds
from hf_finetune.cache.find_cut import find_cut
from hf_finetune.cache.output_cut import whole_output
from hf_finetune.cache.prefix_cache import CacheSettings, SharedRows, cache_key
from hf_finetune.cache.replay import PrefixRunner
from hf_finetune.cache.writer import Collate
from hf_finetune.models.find_head import head_names
from hf_finetune.models.layer_sum import LAYER_WEIGHTS, feature_layer, reading, with_layer_sum
from hf_finetune.tasks import Inputs

__all__ = ["layer_features", "share_layer"]


class LayerRunner(KindRunner):
    """Forward pass that computes the input of the head for several layers.

    The encoder runs once; the rest of the model runs once for each layer, whose weight is 1 in the sum of all layers.

    Args:
        model: Model with a layer sum.
        encoder: Runner that stops after the encoder.
        kinds: Names of the layers, from ``layer_kinds``.
    """

    def __init__(self, model: PreTrainedModel, encoder: PrefixRunner, kinds: tuple[str, ...]):
        shape = BatchShape(("examples", "features"), torch.float32)
        super().__init__(model, CutPoint("head", (), (shape,) * len(kinds), ()))
        self.encoder, self.kinds = encoder, kinds

    def only(self, kinds: tuple[str, ...]) -> "LayerRunner":
        """Return a runner of other layers."""
        return LayerRunner(self.model, self.encoder, kinds)

    def collect(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Return the vectors ``[batch, features]`` of a batch without labels, one tensor per layer."""
        vectors: list[torch.Tensor] = []
        head = _classifier(self.model)
        handle = head.register_forward_pre_hook(lambda module, args: vectors.append(args[0]))
        try:
            with torch.no_grad(), eval_mode(self.model):
                outputs = self.encoder.collect(batch)
                with self.encoder.active():
                    for kind in self.kinds:
                        self.encoder.values = outputs
                        with reading(self.model, kind):
                            self.model(**batch)
        finally:
            handle.remove()
        return tuple(vectors)


def layer_features(
    model: PreTrainedModel,
    splits: Mapping[str, Any],
    collate: Collate,
    settings: CacheSettings,
    kinds: tuple[str, ...],
    forward: ForwardSettings,
) -> dict[str, dict[str, np.ndarray]]:
    """Return the inputs of the head by each layer that it could read, from the cache where possible.

    Args:
        model: Classifier with the checkpoint's weights, whose architecture has a layer sum.
        splits: Examples by the name of their split; the training split is ``train``.
        collate: Collate function.
        settings: Cache settings.
        kinds: Names of the layers, from ``layer_kinds``.
        forward: Batch size, device and precision of the forward passes.

    Returns:
        Float32 vectors ``[examples, features]``, by layer and split.

    Raises:
        CacheUnavailableError: If the head is not one layer that reads a vector of each example, or the vectors cannot
            be cached.
    """
    runner = _runner(model, splits["train"], collate, kinds, forward.device)
    keys = _keys(runner, forward)
    return cached_kinds(runner, keys, splits, collate, settings, forward)


def share_layer(
    model: PreTrainedModel,
    trainable: Collection[str],
    inputs: Inputs,
    forward: ForwardSettings,
) -> SharedRows | None:
    """Return the cached rows of the layer that the head of a stage reads.

    Args:
        model: Classifier whose head reads one layer.
        trainable: Names of the parameters that the stage trains.
        inputs: Examples of the stage.
        forward: Batch size, device and precision of the forward passes.

    Returns:
        The rows; None if the stage trains more than the head, or if the head reads a sum of layers.
    """
    kind = feature_layer(model.config)
    if kind is None or set(trainable) != set(head_names(model)):
        return None
    try:
        runner = _runner(model, inputs.train, inputs.collate, (kind,), forward.device)
    except CacheUnavailableError:
        return None
    return SharedRows(runner, _keys(runner, forward)[kind])


def _runner(
    model: PreTrainedModel, examples: Any, collate: Collate, kinds: tuple[str, ...], device: torch.device
) -> LayerRunner:
    """Return the runner of a model.

    Raises:
        CacheUnavailableError: If the outputs of its encoder cannot be cached, or its head is not one layer, or it has
            an adapter.
    """
    try:
        summed = with_layer_sum(model)
    except RuntimeError as error:  # weights that the architecture does not have
        raise CacheUnavailableError("layers cannot be compared in a model with an adapter") from error
    summed.to(device)
    _classifier(summed)
    if len(examples) < 3:
        raise CacheUnavailableError("fewer than 3 examples are too few to detect the encoder")
    first, second = (_batch(examples, collate, rows, device) for rows in (range(1), range(1, 3)))
    trained = [LAYER_WEIGHTS, *head_names(summed)]
    cut = whole_output(find_cut(summed, trained, (first, second)))
    return LayerRunner(summed, PrefixRunner(summed, cut), kinds)


def _batch(examples: Any, collate: Collate, rows: range, device: torch.device) -> Batch:
    batch = collate([examples[row] for row in rows])
    return {key: value.to(device) for key, value in batch.items() if key != "labels"}


def _keys(runner: LayerRunner, forward: ForwardSettings) -> dict[str, str]:
    """Return the cache key of each layer, which does not depend on the head of the model."""
    unused = {LAYER_WEIGHTS, *head_names(runner.model)}
    cut = CutPoint("head", (), (), ())
    common = cache_key(runner.model, unused, cut, forward.autocast, forward.batch_size)
    return {kind: f"{common} {kind}" for kind in runner.kinds}


def _classifier(model: nn.Module) -> nn.Module:
    """Return the only layer of the head.

    Raises:
        CacheUnavailableError: If the head has several layers.
    """
    layers = {name.rpartition(".")[0] for name in head_names(model)} - {""}
    if len(layers) != 1:
        raise CacheUnavailableError("the head has several layers")
    return model.get_submodule(layers.pop())

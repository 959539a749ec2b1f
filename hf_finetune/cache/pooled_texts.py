"""Text vectors by several poolings of a frozen backbone's tokens, computed in one forward pass and cached."""

import logging
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from hf_finetune.cache.call_recording import eval_mode
from hf_finetune.cache.cut_point import Batch, BatchShape, CacheUnavailableError, CutPoint
from hf_finetune.cache.prefix_cache import (
    CacheSettings,
    SharedRows,
    cache_key,
    held_out_version,
    train_version,
)
from hf_finetune.cache.replay import PrefixRunner
from hf_finetune.cache.writer import Collate, PrefixWriter
from hf_finetune.models.classifier_head import ClassificationHead, Pooling
from hf_finetune.models.find_head import head_names
from hf_finetune.models.head_spec import get_pooling
from hf_finetune.models.pooling import HEAD_POOLINGS
from hf_finetune.recipe.head import OWN_POOLING

__all__ = ["PooledTexts", "pool_texts", "poolings_for", "share_texts"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PooledTexts:
    """Vectors of texts by each of several poolings.

    Attributes:
        vectors: Float32 vectors ``[examples, features]``, by pooling and split.
        key: Cache key of the vectors, with which their files' names begin.
    """

    vectors: dict[str, dict[str, np.ndarray]]
    key: str


def poolings_for(config: PreTrainedConfig, declared: str | None) -> tuple[str, ...]:
    """Return the poolings to compare for a text model, the one that needs no new head first.

    Args:
        config: Config of a text classifier.
        declared: Pooling that the checkpoint declares, see ``declared_pooling``; None if it declares none.
    """
    # In a decoder the first token attends to itself only, so that CLS pooling is left out.
    attends_to_all = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    model_pooling = () if get_pooling(config) else (OWN_POOLING,)
    names = [*model_pooling, *filter(None, [declared]), *(("cls", "mean") if attends_to_all else ("mean",))]
    return tuple(dict.fromkeys(names))


def share_texts(
    model: PreTrainedModel, trainable: Collection[str], settings: CacheSettings, autocast: torch.dtype | None
) -> SharedRows | None:
    """Return the cached rows of pooled texts from which a stage can take the input of its head.

    Args:
        model: Text classifier.
        trainable: Names of the parameters that the stage trains.
        settings: Cache settings of the stage.
        autocast: Half-precision dtype of the forward passes; None for full precision.

    Returns:
        The rows; None if no other part of the run needs them, if there are several views of each text, or if the
        stage trains more than the head.
    """
    texts = settings.texts
    if texts is None or settings.views != 1 or set(trainable) != set(head_names(model)):
        return None
    column = texts.poolings.index(texts.head_pooling)
    if texts.key:
        return SharedRows(None, texts.key, column)
    runner = PooledRunner(model, texts.poolings)
    return SharedRows(runner, cache_key(model, trainable, runner.cut, settings.source, autocast), column)


class PooledRunner(PrefixRunner):
    """Forward pass that computes several poolings of a batch of texts.

    Args:
        model: Text classifier.
        poolings: Names of the poolings.
    """

    def __init__(self, model: PreTrainedModel, poolings: tuple[str, ...]):
        shape = BatchShape(("examples", "features"), torch.float32)
        super().__init__(
            model, CutPoint(f"texts pooled by {', '.join(poolings)}", (), (shape,) * len(poolings), ())
        )
        self.poolings = poolings

    def collect(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Return the vectors ``[batch, features]`` of a batch without labels, one tensor per pooling."""
        model: Any = self.model
        tokens: list[Any] = []
        head_inputs: list[torch.Tensor] = []
        handles = [
            model.base_model.register_forward_hook(lambda module, args, output: tokens.append(output[0])),
            _first_head_layer(model).register_forward_pre_hook(
                lambda module, args: head_inputs.append(args[0])
            ),
        ]
        try:
            with torch.no_grad(), eval_mode(model):  # no dropout in the head
                model(**batch)
        finally:
            for handle in handles:
                handle.remove()
        mask = batch["attention_mask"]
        return tuple(
            _head_input(head_inputs[0], mask) if name == OWN_POOLING else _pool(name, tokens[0], mask)
            for name in self.poolings
        )


def pool_texts(
    model: PreTrainedModel,
    splits: Mapping[str, Any],
    collate: Collate,
    settings: CacheSettings,
    poolings: tuple[str, ...],
    *,
    batch_size: int,
    device: torch.device,
    autocast: torch.dtype | None = None,
) -> PooledTexts:
    """Return the vectors of texts by each pooling, from the cache where possible.

    Args:
        model: Text classifier with the checkpoint's weights; it is moved to ``device``.
        splits: Examples by the name of their split; the training split is ``train``.
        collate: Collate function.
        settings: Cache settings.
        poolings: Names of the poolings, see ``poolings_for``.
        batch_size: Examples per forward pass.
        device: Device that runs the forward passes.
        autocast: Half-precision dtype of the forward passes; None for full precision.

    Raises:
        CacheUnavailableError: If the tokens of this architecture cannot be pooled, or the vectors cannot be cached.
    """
    model.to(device).eval()
    runner = PooledRunner(model, poolings)
    with torch.autocast(device.type, autocast) if autocast else nullcontext():
        width = _width(runner, next(iter(splits.values())), collate, device)
        key = cache_key(model, head_names(model), runner.cut, settings.source, autocast)
        writer = PrefixWriter(runner, collate, batch_size, 0, device, settings.folder, settings.size_limit)
        versions = {
            name: train_version(key, examples) if name == "train" else held_out_version(key, examples, name)
            for name, examples in splits.items()
        }
        missing = writer.incomplete_versions(list(versions.values()))
        count = sum(len(version.examples) for version in missing)
        if count:
            writer.free_space(4 * width * len(poolings) * count, list(versions.values()))
            logger.info(
                "Computing frozen features of %s texts with %d poolings.", f"{count:,}", len(poolings)
            )
            writer.write_missing(missing)
        vectors: dict[str, dict[str, np.ndarray]] = {name: {} for name in poolings}
        for split, examples in splits.items():
            rows = writer.read(versions[split])
            order = examples.indices if isinstance(examples, Subset) else range(len(rows))
            columns = list(zip(*(rows[index][:-1] for index in order), strict=True))
            for name, column in zip(poolings, columns, strict=True):
                vectors[name][split] = torch.stack(column).float().numpy()
    return PooledTexts(vectors, key)


def _width(runner: PooledRunner, examples: Any, collate: Collate, device: torch.device) -> int:
    """Return the number of features of the widest pooled vector, computed for the first example.

    Raises:
        CacheUnavailableError: If the model does not return one vector per token.
    """
    batch = {key: value.to(device) for key, value in collate([examples[0]]).items() if key != "labels"}
    try:
        vectors = runner.collect(batch)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
        raise CacheUnavailableError(f"its tokens cannot be pooled ({error})") from error
    return max(vector.shape[1] for vector in vectors)


def _first_head_layer(model: PreTrainedModel) -> nn.Module:
    """Return the first layer of the head; in a head of this package, the first layer after the pooling."""
    for module in model.modules():
        if isinstance(module, ClassificationHead):
            first: nn.Module = module.layers[0]
            return first
    return model.get_submodule(head_names(model)[0].rpartition(".")[0])


def _head_input(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the vectors that the head reads; if it reads all tokens, as in decoders, those of the last tokens."""
    if values.ndim == 2:
        return values
    last_token = mask.shape[1] - 1 - mask.flip(1).to(torch.int32).argmax(dim=1)
    return values[torch.arange(len(values), device=values.device), last_token]


def _pool(name: str, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return token vectors ``[batch, tokens, features]`` pooled to ``[batch, features]``, without padding tokens.

    Source: sentence-transformers' ``Pooling``.
    """
    if values.shape[:2] != mask.shape:
        raise ValueError(
            f"token outputs have shape {list(values.shape)}, but the attention mask has shape {list(mask.shape)}"
        )
    if name in HEAD_POOLINGS:
        pooled: torch.Tensor = Pooling(name, values.shape[-1])(values, mask)
        return pooled
    weights = mask.unsqueeze(-1).to(values.dtype)
    if name == "max":
        return values.masked_fill(weights == 0, torch.finfo(values.dtype).min).amax(dim=1)
    if name == "weightedmean":
        weights = weights * torch.arange(1, mask.shape[1] + 1, device=values.device).view(1, -1, 1)
        return (values * weights).sum(dim=1) / weights.sum(dim=1)
    return (values * weights).sum(dim=1) / weights.sum(dim=1).sqrt()  # mean_sqrt_len_tokens

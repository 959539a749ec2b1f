"""Vectors of whole texts: every pooling of a frozen backbone's tokens, computed in one pass and kept."""

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

from hf_finetune.cache.call_recording import evaluating
from hf_finetune.cache.cut_point import Batch, CacheUnavailableError, CutPoint, OutputShape
from hf_finetune.cache.prefix_cache import (
    CacheSettings,
    SharedRows,
    cache_key,
    held_out_version,
    train_version,
)
from hf_finetune.cache.replay import PrefixPass
from hf_finetune.cache.writer import Collate, RowMaker
from hf_finetune.models.classifier_head import ClassificationHead, Pooling
from hf_finetune.models.find_head import head_names
from hf_finetune.models.head_spec import pooling_of
from hf_finetune.models.pooling import HEAD_POOLINGS
from hf_finetune.recipe.head import OWN

__all__ = ["PooledTexts", "pool_texts", "poolings_for", "share_texts"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PooledTexts:
    """Vectors of texts by each of several poolings.

    Attributes:
        vectors: Of each pooling the vectors [examples, features] of each split.
        key: Name of the files in which they are kept.
    """

    vectors: dict[str, dict[str, np.ndarray]]
    key: str


def poolings_for(config: PreTrainedConfig, declared: str | None) -> tuple[str, ...]:
    """Return the poolings to compare for a text model, the one that needs no other head first.

    Args:
        config: Of a text classifier.
        declared: Pooling that the checkpoint declares, see ``declared_pooling``.
    """
    # In a decoder the first token attends to itself only.
    attends_to_all = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    own = () if pooling_of(config) else (OWN,)
    names = [*own, *filter(None, [declared]), *(("cls", "mean") if attends_to_all else ("mean",))]
    return tuple(dict.fromkeys(names))


def share_texts(
    model: PreTrainedModel, trainable: Collection[str], settings: CacheSettings, autocast: torch.dtype | None
) -> SharedRows | None:
    """Return the rows of pooled texts from which a stage takes what its head reads.

    Args:
        model: A text classifier.
        trainable: Names of the parameters that the stage trains.
        settings: What is kept for the stage.
        autocast: Half precision of the forward passes, if any.

    Returns:
        None if no other part of the run needs them, or if the stage trains more than the head.
    """
    texts = settings.texts
    if texts is None or settings.views != 1 or set(trainable) != set(head_names(model)):
        return None
    column = texts.poolings.index(texts.reads)
    if texts.key:
        return SharedRows(None, texts.key, column)
    entry = PooledPass(model, texts.poolings)
    return SharedRows(entry, cache_key(model, trainable, entry.cut, settings.source, autocast), column)


class PooledPass(PrefixPass):
    """Computes every pooling of a batch of texts.

    Args:
        model: A text classifier.
        poolings: Their names.
    """

    def __init__(self, model: PreTrainedModel, poolings: tuple[str, ...]):
        shape = OutputShape(("examples", "features"), torch.float32)
        super().__init__(
            model, CutPoint(f"texts pooled by {', '.join(poolings)}", (), (shape,) * len(poolings), ())
        )
        self.poolings = poolings

    def collect(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Return the vectors [examples, features] of each pooling of a batch without labels."""
        model: Any = self.model
        tokens: list[Any] = []
        read: list[torch.Tensor] = []
        handles = [
            model.base_model.register_forward_hook(lambda module, args, output: tokens.append(output[0])),
            _first_of_head(model).register_forward_pre_hook(lambda module, args: read.append(args[0])),
        ]
        try:
            with torch.no_grad(), evaluating(model):  # the head draws no dropout
                model(**batch)
        finally:
            for handle in handles:
                handle.remove()
        mask = batch["attention_mask"]
        return tuple(
            _as_read(read[0], mask) if name == OWN else _pool(name, tokens[0], mask) for name in self.poolings
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
    """Compute, or find in the cache, the vectors of texts by each pooling.

    Args:
        model: A text classifier with the checkpoint's weights; it is moved to the device.
        splits: Examples by the name of their split, those that are trained on as ``train``.
        collate: Makes a batch of examples.
        settings: Where vectors are kept.
        poolings: From ``poolings_for``.
        batch_size: Examples per forward pass.
        device: Where to compute.
        autocast: Half precision of the forward passes, if any.

    Raises:
        CacheUnavailableError: If they cannot be computed by this architecture, or not be kept.
    """
    model.to(device).eval()
    entry = PooledPass(model, poolings)
    with torch.autocast(device.type, autocast) if autocast else nullcontext():
        width = _width(entry, next(iter(splits.values())), collate, device)
        key = cache_key(model, head_names(model), entry.cut, settings.source, autocast)
        maker = RowMaker(entry, collate, batch_size, 0, device, settings.folder, settings.size_limit)
        versions = {
            name: train_version(key, examples) if name == "train" else held_out_version(key, examples, name)
            for name, examples in splits.items()
        }
        missing = maker.missing(list(versions.values()))
        count = sum(len(version.examples) for version in missing)
        if count:
            maker.make_room(4 * width * len(poolings) * count, list(versions.values()))
            logger.info("Computing frozen features of %s texts, by %d poolings.", f"{count:,}", len(poolings))
            maker.make(missing)
        vectors: dict[str, dict[str, np.ndarray]] = {name: {} for name in poolings}
        for split, examples in splits.items():
            rows = maker.read(versions[split])
            order = examples.indices if isinstance(examples, Subset) else range(len(rows))
            columns = list(zip(*(rows[index][:-1] for index in order), strict=True))
            for name, column in zip(poolings, columns, strict=True):
                vectors[name][split] = torch.stack(column).float().numpy()
    return PooledTexts(vectors, key)


def _width(entry: PooledPass, examples: Any, collate: Collate, device: torch.device) -> int:
    """Return the size of the vectors, once it is sure that the model gives one vector for each token.

    Raises:
        CacheUnavailableError: If it does not.
    """
    batch = {key: value.to(device) for key, value in collate([examples[0]]).items() if key != "labels"}
    try:
        vectors = entry.collect(batch)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
        raise CacheUnavailableError(f"its tokens cannot be pooled ({error})") from error
    return max(vector.shape[1] for vector in vectors)


def _first_of_head(model: PreTrainedModel) -> nn.Module:
    """Return the first layer of the head: that of this package behind its pooling."""
    for module in model.modules():
        if isinstance(module, ClassificationHead):
            first: nn.Module = module.layers[0]
            return first
    return model.get_submodule(head_names(model)[0].rpartition(".")[0])


def _as_read(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the vector that the head's logits are of: of heads that read all tokens, as decoders', the last one's."""
    if values.ndim == 2:
        return values
    last = mask.shape[1] - 1 - mask.flip(1).to(torch.int32).argmax(dim=1)
    return values[torch.arange(len(values), device=values.device), last]


def _pool(name: str, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Pool tokens [examples, tokens, features]; padding has no part in it.

    Source: sentence-transformers' ``Pooling``.
    """
    if values.shape[:2] != mask.shape:
        raise ValueError(f"{list(values.shape)} values of {list(mask.shape)} tokens")
    if name in HEAD_POOLINGS:
        pooled: torch.Tensor = Pooling(name, values.shape[-1])(values, mask)
        return pooled
    here = mask.unsqueeze(-1).to(values.dtype)
    if name == "max":
        return values.masked_fill(here == 0, torch.finfo(values.dtype).min).amax(dim=1)
    if name == "weightedmean":
        here = here * torch.arange(1, mask.shape[1] + 1, device=values.device).view(1, -1, 1)
        return (values * here).sum(dim=1) / here.sum(dim=1)
    return (values * here).sum(dim=1) / here.sum(dim=1).sqrt()

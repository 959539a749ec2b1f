"""Text vectors by several poolings of a frozen backbone's tokens, computed in one forward pass and cached."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from hf_finetune.cache.call_recording import eval_mode
from hf_finetune.cache.cut_point import Batch, BatchShape, CacheUnavailableError, CutPoint
from hf_finetune.cache.feature_kinds import ForwardSettings, KindRunner, cached_kinds, first_example
from hf_finetune.cache.prefix_cache import CacheSettings, SharedRows, cache_key
from hf_finetune.cache.writer import Collate
from hf_finetune.models.classifier_head import ClassificationHead, Pooling
from hf_finetune.models.find_head import head_names
from hf_finetune.models.head_spec import get_pooling, requiring_gradients
from hf_finetune.models.pooling import HEAD_POOLINGS
from hf_finetune.recipe.head import OWN_POOLING
from hf_finetune.tasks import Inputs

__all__ = ["pool_texts", "poolings_for", "share_texts"]


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
    model: PreTrainedModel,
    trainable: Collection[str],
    inputs: Inputs,
    settings: CacheSettings,
    forward: ForwardSettings,
) -> SharedRows | None:
    """Return the cached rows of pooled texts that the head of a stage reads.

    Args:
        model: Text classifier; it is moved to ``device``.
        trainable: Names of the parameters that the stage trains.
        inputs: Examples of the stage.
        settings: Cache settings of the stage.
        forward: Batch size, device and precision of the forward passes.

    Returns:
        The rows; None for images, or if the stage trains more than the head.
    """
    if not settings.text_pooling or set(trainable) != set(head_names(model)):
        return None
    model.to(forward.device)
    runner = PooledRunner(model, (settings.text_pooling,))
    try:
        example = first_example(inputs.train, inputs.collate, forward.device)
        (key,) = _pooled_keys(model, runner.kinds, example, forward).values()
    except CacheUnavailableError:
        return None
    return SharedRows(runner, key)


class PooledRunner(KindRunner):
    """Forward pass that computes several poolings of a batch of texts.

    Args:
        model: Text classifier.
        poolings: Names of the poolings.
    """

    def __init__(self, model: PreTrainedModel, poolings: tuple[str, ...]):
        super().__init__(model, _cut_after(poolings))
        self.kinds = poolings

    def only(self, kinds: tuple[str, ...]) -> "PooledRunner":
        """Return a runner of other poolings."""
        return PooledRunner(self.model, kinds)

    def collect(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Return the vectors ``[batch, features]`` of a batch without labels, one tensor per pooling."""
        with torch.no_grad():
            return self.pool(batch)

    def pool(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Return the same, with gradients if they are enabled."""
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
            with eval_mode(model):  # no dropout in the head
                model(**batch)
        finally:
            for handle in handles:
                handle.remove()
        mask = batch["attention_mask"]
        return tuple(
            _head_input(head_inputs[0], mask) if name == OWN_POOLING else _pool(name, tokens[0], mask)
            for name in self.kinds
        )


def _cut_after(poolings: Sequence[str]) -> CutPoint:
    """Return the cut point after the poolings, which has one value for each."""
    shape = BatchShape(("examples", "features"), torch.float32)
    return CutPoint(f"texts pooled by {', '.join(poolings)}", (), (shape,) * len(poolings), ())


def pool_texts(
    model: PreTrainedModel,
    splits: Mapping[str, Any],
    collate: Collate,
    settings: CacheSettings,
    poolings: tuple[str, ...],
    forward: ForwardSettings,
) -> dict[str, dict[str, np.ndarray]]:
    """Return the vectors of texts by each pooling, from the cache where possible.

    The missing ones are computed in one forward pass. Each pooling has its own rows, which other runs and stages read
    whatever head their model has.

    Args:
        model: Text classifier with the checkpoint's weights; it is moved to ``device``.
        splits: Examples by the name of their split; the training split is ``train``.
        collate: Collate function.
        settings: Cache settings.
        poolings: Names of the poolings, see ``poolings_for``.
        forward: Batch size, device and precision of the forward passes.

    Returns:
        Float32 vectors ``[examples, features]``, by pooling and split.

    Raises:
        CacheUnavailableError: If the tokens of this architecture cannot be pooled, or the vectors cannot be cached.
    """
    model.to(forward.device).eval()
    runner = PooledRunner(model, poolings)
    with forward.precision():
        example = first_example(next(iter(splits.values())), collate, forward.device)
        _collect(runner, example)
        keys = _pooled_keys(model, poolings, example, forward)
    return cached_kinds(runner, keys, splits, collate, settings, forward)


def _pooled_keys(
    model: PreTrainedModel,
    poolings: Sequence[str],
    example: Batch,
    forward: ForwardSettings,
) -> dict[str, str]:
    """Return the cache key of texts by each pooling; it does not depend on the head of the model.

    Raises:
        CacheUnavailableError: If the tokens of this architecture cannot be pooled.
    """
    head, keys = set(head_names(model)), {}
    how = forward.autocast, forward.batch_size
    if OWN_POOLING in poolings:
        keys[OWN_POOLING] = cache_key(model, head, _cut_after((OWN_POOLING,)), *how)
    others = [name for name in poolings if name != OWN_POOLING]
    if others:
        unused = head | _unused_by_tokens(PooledRunner(model, (others[0],)), example)
        tokens = cache_key(model, unused, _cut_after(()), *how)
        keys |= {name: f"{tokens} {name}" for name in others}
    return keys


def _unused_by_tokens(runner: "PooledRunner", example: Batch) -> set[str]:
    """Return the names of parameters without effect on the pooled tokens, such as those of BERT's pooler."""
    with torch.enable_grad(), requiring_gradients(runner.model, True):
        named = {
            name: parameter for name, parameter in runner.model.named_parameters() if parameter.requires_grad
        }
        (vectors,) = _collect(runner, example, gradients=True)
        gradients = torch.autograd.grad(vectors.float().sum(), list(named.values()), allow_unused=True)
    return {name for name, gradient in zip(named, gradients, strict=True) if gradient is None}


def _collect(runner: "PooledRunner", example: Batch, *, gradients: bool = False) -> tuple[torch.Tensor, ...]:
    """Return the vectors of a batch.

    Raises:
        CacheUnavailableError: If the model does not return one vector per token.
    """
    try:
        return runner.pool(example) if gradients else runner.collect(example)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
        raise CacheUnavailableError(f"its tokens cannot be pooled ({error})") from error


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

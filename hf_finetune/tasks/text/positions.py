"""Maximum number of input tokens of a model, from the size of its absolute position embeddings."""

import re

import torch
from torch import nn
from transformers import PreTrainedModel

__all__ = ["position_limit"]

# Names of absolute position embeddings in the architectures of transformers. Embeddings of relative distances
# (relative_attention_bias, distance_embedding, rel_embeddings) and layouts (x_position_embeddings) set no limit.
_TABLE = re.compile(
    r"(^|\.)((char_)?position_embeddings?|position_embeds?|positions_embed|embed_positions|pos_embeddings?|wpe)$"
)


def position_limit(model: PreTrainedModel) -> int | None:
    """Return the largest number of tokens that a model has positions for, including special tokens; None if unlimited.

    RoBERTa and similar architectures count positions from ``padding_idx + 1``, BART and OPT from an ``offset``; the
    rows before these are not positions of tokens. Models with relative or rotary positions have no such table.

    Args:
        model: Model on any device, including the meta device.
    """
    limits = [
        table.weight.shape[0] - _first_position(table)
        for name, table in model.named_modules()
        if _TABLE.search(name) and isinstance(getattr(table, "weight", None), torch.Tensor)
    ]
    if not limits:
        return None
    stated = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    # Nystroemformer, YOSO and MRA have two more rows than positions
    return min([*limits, stated] if isinstance(stated, int) and stated > 0 else limits)


def _first_position(table: nn.Module) -> int:
    offset, padding = getattr(table, "offset", None), getattr(table, "padding_idx", None)
    if isinstance(offset, int):
        return offset
    return padding + 1 if isinstance(padding, int) else 0

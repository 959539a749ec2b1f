"""How many tokens a model takes: the rows of its table of absolute positions."""

import re

import torch
from torch import nn
from transformers import PreTrainedModel

__all__ = ["position_limit"]

# Tables of absolute positions, as the architectures of transformers call them. Those of relative distances
# (relative_attention_bias, distance_embedding, rel_embeddings) and of layouts (x_position_embeddings) limit nothing.
_TABLE = re.compile(
    r"(^|\.)((char_)?position_embeddings?|position_embeds?|positions_embed|embed_positions|pos_embeddings?|wpe)$"
)


def position_limit(model: PreTrainedModel) -> int | None:
    """Return the number of tokens for which a model has positions, special tokens included; None if it has no limit.

    RoBERTa and its kin count positions from ``padding_idx + 1``, BART and OPT from an ``offset``: so many rows of the
    table are no positions of tokens. Models of relative or rotary positions have no table.

    Args:
        model: On any device, the meta device too.
    """
    limits = [
        table.weight.shape[0] - _first_position(table)
        for name, table in model.named_modules()
        if _TABLE.search(name) and isinstance(getattr(table, "weight", None), torch.Tensor)
    ]
    if not limits:
        return None
    stated = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    # Nystroemformer, YOSO and MRA have two rows more than positions
    return min([*limits, stated] if isinstance(stated, int) and stated > 0 else limits)


def _first_position(table: nn.Module) -> int:
    offset, padding = getattr(table, "offset", None), getattr(table, "padding_idx", None)
    if isinstance(offset, int):
        return offset
    return padding + 1 if isinstance(padding, int) else 0

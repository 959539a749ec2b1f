"""A masked language model whose logits are those of the items at its masks."""

from typing import Any

import torch
from transformers import BertForMaskedLM, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from hf_finetune.errors import InputError, Problem

__all__ = ["FLOOR", "NextItemBert", "adapt_to_items"]

FLOOR = -100.0
"""Logit of an item that cannot be predicted. Its probability is 0 in single precision."""


class NextItemBert(BertForMaskedLM):
    """``BertForMaskedLM`` that returns logits of items, at its masks only.

    It has the same weights and saves the same files. Its config has further settings, which plain transformers stores
    without using them: ``label_tokens``, the token id of each class, which is ``unknown_token`` for an item that is not
    in the vocabulary; ``mask_token``, the id of the mask; ``masked_places``, the number of masks of a training example;
    and ``exclude_seen``.
    """

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, **inputs: Any) -> MaskedLMOutput:
        """Return the logits of the items.

        Args:
            input_ids: Token ids [batch, tokens].
            attention_mask: Mask of the tokens that are no padding [batch, tokens].
            inputs: Further inputs of the model.

        Returns:
            Logits [batch, classes] at the last mask of each example. In training mode, if the config has several
            ``masked_places``, those at its first masks [batch, places, classes].
        """
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        is_mask = input_ids == self.config.mask_token
        places = self.config.masked_places
        several = self.training and places > 1
        chosen = _first(is_mask, places) if several else _last(is_mask)[:, None]
        rows = chosen[..., None].expand(-1, -1, hidden.shape[-1])
        at_masks = hidden.gather(1, rows)
        logits = self._item_logits(self.cls(at_masks if several else at_masks[:, 0]))
        if self.config.exclude_seen and not self.training:
            logits = self._without_seen(logits, input_ids)
        return MaskedLMOutput(logits=logits)

    def _item_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits of the classes [..., classes] among those of all tokens."""
        tokens = torch.tensor(self.config.label_tokens, device=logits.device)
        return logits[..., tokens].masked_fill(tokens == self.config.unknown_token, FLOOR)

    def _without_seen(self, logits: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """Return logits [batch, classes] with those of the items of the histories at the floor."""
        tokens = torch.tensor(self.config.label_tokens, device=logits.device)
        seen = torch.zeros(len(input_ids), self.config.vocab_size, dtype=torch.bool, device=logits.device)
        seen = seen.scatter(1, input_ids, torch.ones_like(input_ids, dtype=torch.bool))
        return logits.masked_fill(seen[:, tokens], FLOOR)


def _last(is_mask: torch.Tensor) -> torch.Tensor:
    """Return the last place of a mask of each example [batch]; 0 without a mask."""
    places = torch.arange(is_mask.shape[1], device=is_mask.device)
    return (is_mask * places).amax(dim=1)


def _first(is_mask: torch.Tensor, count: int) -> torch.Tensor:
    """Return the places of the first masks of each example [batch, count]; 0 where it has fewer."""
    length = is_mask.shape[1]
    places = torch.arange(length, device=is_mask.device).expand_as(is_mask)
    ordered = places.masked_fill(~is_mask, length).sort(dim=1).values[:, :count]
    ordered = torch.nn.functional.pad(ordered, (0, count - ordered.shape[1]), value=length)
    return ordered.masked_fill(ordered == length, 0)


def adapt_to_items(model: PreTrainedModel) -> PreTrainedModel:
    """Return a masked language model whose logits are those of items; it is changed in place.

    Args:
        model: Model of transformers.

    Raises:
        InputError: If it is not BERT.
    """
    if not isinstance(model, BertForMaskedLM):
        rule = "must be a BERT with a token for each item, as model.new and earlier runs build it"
        raise InputError(Problem("model.path", rule, f"a {model.config.model_type!r} model"))
    if not isinstance(model, NextItemBert):
        model.__class__ = NextItemBert
    return model


# saved models name the class of transformers that loads them
NextItemBert.__name__ = NextItemBert.__qualname__ = BertForMaskedLM.__name__

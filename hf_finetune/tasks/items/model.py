"""A masked language model whose logits are those of the items at its masks."""

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from hf_finetune.errors import InputError, Problem

__all__ = ["FLOOR", "BertForMaskedLM", "adapt_to_items"]

FLOOR = -120.0
"""Logit of an item that cannot be predicted. Its probability is 0 in single precision."""


class BertForMaskedLM(transformers.BertForMaskedLM):
    """``BertForMaskedLM`` of transformers that returns logits of items, at its masks only.

    It has the same weights and saves the same files, which name the class by which transformers loads them. Its config
    has further settings, which plain transformers stores without using them: ``label_tokens``, the token id of each
    class, which is ``unknown_token`` for an item that is not in the vocabulary; ``mask_token``, the id of the mask; and
    ``exclude_seen``.
    """

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        places: torch.Tensor | None = None,
        **inputs: Any,
    ) -> MaskedLMOutput:
        """Return the logits of the items.

        Args:
            input_ids: Token ids [batch, tokens].
            attention_mask: Mask of the tokens that are no padding [batch, tokens].
            places: Places of the masks of training examples [batch, places]; None takes the last one of each example.
            inputs: Further inputs of the model.

        Returns:
            Logits [batch, places, classes]; without ``places`` [batch, classes], where items of the histories are at
            the floor if the config excludes them.
        """
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask, **inputs).last_hidden_state
        if places is not None:
            rows = places.clamp(max=hidden.shape[1] - 1)[..., None].expand(-1, -1, hidden.shape[-1])
            return MaskedLMOutput(logits=self._item_logits(self.cls(hidden.gather(1, rows))))
        numbers = torch.arange(input_ids.shape[1], device=input_ids.device)
        last = ((input_ids == self.config.mask_token) * numbers).amax(dim=1)
        rows = last[:, None, None].expand(-1, -1, hidden.shape[-1])
        logits = self._item_logits(self.cls(hidden.gather(1, rows)[:, 0]))
        return MaskedLMOutput(
            logits=self._without_seen(logits, input_ids) if self.config.exclude_seen else logits
        )

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


def adapt_to_items(model: PreTrainedModel) -> PreTrainedModel:
    """Return a masked language model whose logits are those of items; it is changed in place.

    Args:
        model: Model of transformers.

    Raises:
        InputError: If it is not BERT.
    """
    if not isinstance(model, transformers.BertForMaskedLM):
        rule = "must be a BERT with a token for each item, as model.new and earlier runs build it"
        raise InputError(Problem("model.path", rule, f"a {model.config.model_type!r} model"))
    model.__class__ = BertForMaskedLM
    return model

"""Masked language modeling: masked texts with the original tokens as labels, and its loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import DataCollatorForLanguageModeling, DataCollatorForTokenClassification

from hf_finetune.errors import InputError, Problem
from hf_finetune.tasks.examples import MaskedInputs, Splits
from hf_finetune.tasks.masked_examples import MaskedExamples, masked_loss
from hf_finetune.tasks.text.tokenization import count_tokens, tokenize

__all__ = ["MASKED_SHARE", "masked_inputs", "masked_texts", "token_loss"]

MASKED_SHARE = 0.15
"""Default share of tokens that are masked. Source: Devlin et al. 2019, BERT."""


def masked_texts(tokenizer: Any, share: float) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return a function that masks the tokens of an example for masked language modeling.

    Of the selected tokens, 80 % become the mask token, 10 % a random token, and 10 % stay unchanged.

    Args:
        tokenizer: Tokenizer of the checkpoint.
        share: Probability that a token is selected.

    Returns:
        Function of one example that also adds ``labels``: the original id of each selected token, else -100.

    Raises:
        InputError: If the tokenizer has no mask token.

    Source: Devlin et al. 2019, as implemented by transformers' ``DataCollatorForLanguageModeling``.
    """
    if tokenizer.mask_token is None:
        rule = "must be a checkpoint with a mask token for continue_pretraining"
        raise InputError(Problem("model.path", rule, "", "Use coral or dann, which need no mask token."))
    return _TokenMask(DataCollatorForLanguageModeling(tokenizer, mlm_probability=share))


@dataclass(frozen=True)
class _TokenMask:
    """Masking function of texts: a class instead of a closure, so that data loader workers can unpickle it."""

    collate: Any

    def __call__(self, example: Mapping[str, Any]) -> dict[str, Any]:
        batch = self.collate([dict(example)])
        return {name: value[0].tolist() for name, value in batch.items()}


def _summed_loss(logits: torch.Tensor, labels: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the summed cross-entropy over the vocabulary. Source: Devlin et al. 2019, BERT."""
    return functional.cross_entropy(logits[known].float(), labels[known], reduction="sum")


token_loss = masked_loss(_summed_loss)
"""Loss of masked texts: the mean cross-entropy over the vocabulary."""


def masked_inputs(splits: Splits, tokenizer: Any, data: Any, seed: int, share: float | None) -> MaskedInputs:
    """Return texts with masked tokens, for the checkpoint's masked language model; the arguments are ``Text.masked``'s.

    Raises:
        InputError: If the tokenizer has no mask token.
    """
    mask = masked_texts(tokenizer, share or MASKED_SHARE)
    tokens = tokenize(splits.train, tokenizer, data.max_length, data.truncation_side)
    return MaskedInputs(
        MaskedExamples(tokens, mask, seed),
        DataCollatorForTokenClassification(tokenizer),  # pads inputs and labels to the same length
        token_loss,
        count_tokens(tokens) if data.group_by_length else None,
        auto_model="AutoModelForMaskedLM",
    )

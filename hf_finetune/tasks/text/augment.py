"""Random augmentation of training texts: token masking and word dropout."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hf_finetune.errors import InputError, Problem

__all__ = ["WORDS", "AugmentedTexts", "TextNoise", "text_noise"]

WORDS = "words"
"""Column with the word number of each token within its example; -1 for tokens that belong to no word."""


@dataclass(frozen=True)
class TextNoise:
    """Token masking and word dropout for tokenized examples, with random numbers of torch's global generator.

    Attributes:
        mask: Probability that a token is replaced by the mask token, in [0, 1).
        drop: Probability that a word is removed, in [0, 1). An example that would lose all words keeps all of them.
        mask_id: Id of the mask token; unused if ``mask`` is 0.
        protected_ids: Ids of tokens that are never changed.

    Source: Bowman et al. 2016 and Dai & Le 2015, word dropout; the mask is that of BERT (Devlin et al. 2019).
    """

    mask: float
    drop: float
    mask_id: int
    protected_ids: frozenset[int]

    def __call__(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """Return an augmented copy of a tokenized example, without the column of word numbers.

        Other columns with one value per token lose the values of removed tokens.
        """
        augmented = {name: value for name, value in example.items() if name != WORDS}
        ids, words = list(example["input_ids"]), list(example[WORDS])
        changeable = [
            word >= 0 and token not in self.protected_ids for token, word in zip(ids, words, strict=True)
        ]
        kept = self._keep_mask(words, changeable)
        for name, value in augmented.items():
            if isinstance(value, list) and len(value) == len(ids) and name != "labels":
                augmented[name] = [item for item, keep in zip(value, kept, strict=True) if keep]
        if self.mask:
            masked = (torch.rand(len(ids)) < self.mask).tolist()
            augmented["input_ids"] = [
                self.mask_id if is_changeable and is_masked else token
                for token, is_changeable, is_masked, keep in zip(ids, changeable, masked, kept, strict=True)
                if keep
            ]
        return augmented

    def _keep_mask(self, words: list[int], changeable: list[bool]) -> list[bool]:
        """Return for each token whether it is kept; tokens of the same word are kept or dropped together."""
        if not self.drop:
            return [True] * len(words)
        dropped_words = (torch.rand(max(words, default=-1) + 1) < self.drop).tolist()
        kept = [
            not (is_changeable and dropped_words[word])
            for word, is_changeable in zip(words, changeable, strict=True)
        ]
        if any(keep and is_changeable for keep, is_changeable in zip(kept, changeable, strict=True)):
            return kept
        return [True] * len(words)


class AugmentedTexts(torch.utils.data.Dataset):
    """Tokenized texts that are augmented at each access.

    Args:
        tokenized: Output of ``tokenize`` with the column of word numbers.
        noise: Augmentation of one example.
    """

    def __init__(self, tokenized: Any, noise: TextNoise):
        self.tokenized, self.noise = tokenized, noise

    def __len__(self) -> int:
        return len(self.tokenized)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.noise(self.tokenized[index])


def text_noise(tokenizer: PreTrainedTokenizerBase, mask: float, drop: float) -> TextNoise:
    """Return the augmentation for texts of a tokenizer.

    Args:
        tokenizer: Tokenizer of the checkpoint. Its special tokens are never changed, except the unknown token.
        mask: Probability that a token is replaced by the mask token.
        drop: Probability that a word is removed.

    Raises:
        InputError: If ``mask`` is above 0 and the tokenizer has no mask token.
    """
    mask_id = tokenizer.mask_token_id
    if mask and mask_id is None:
        rule, repair = "must be 0 for a tokenizer without a mask token", "Use data.augment.drop instead."
        raise InputError(Problem("data.augment.mask", rule, f"{mask:g}", repair))
    special: Collection[int] = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return TextNoise(mask, drop, mask_id if mask_id is not None else -1, frozenset(special))

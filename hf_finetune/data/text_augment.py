"""Training texts varied by chance: tokens that become the mask token, words that are left out."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hf_finetune.errors import InputError, Problem

__all__ = ["WORDS", "AugmentedTexts", "TextNoise", "text_noise"]

WORDS = "words"
"""Column of the number of each token's word in its example; -1 for what belongs to none."""


@dataclass(frozen=True)
class TextNoise:
    """What is done to the tokens of an example. All its chance is torch's.

    Attributes:
        mask: Probability that a token becomes the mask token, in [0, 1).
        drop: Probability that a word is left out, in [0, 1). An example of which nothing would stay keeps every word.
        mask_id: Of the mask token; not used where ``mask`` is 0.
        kept: Ids of tokens that stay whatever happens.

    Source: Bowman et al. 2016 and Dai & Le 2015, word dropout; the mask is that of BERT (Devlin et al. 2019).
    """

    mask: float
    drop: float
    mask_id: int
    kept: frozenset[int]

    def __call__(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """Vary a tokenised example. What it holds for each token goes with the token; the column of words goes."""
        made = {name: value for name, value in example.items() if name != WORDS}
        ids, words = list(example["input_ids"]), list(example[WORDS])
        free = [word >= 0 and token not in self.kept for token, word in zip(ids, words, strict=True)]
        stays = self._staying(words, free)
        for name, value in made.items():
            if isinstance(value, list) and len(value) == len(ids) and name != "labels":
                made[name] = [one for one, stay in zip(value, stays, strict=True) if stay]
        if self.mask:
            hidden = (torch.rand(len(ids)) < self.mask).tolist()
            made["input_ids"] = [
                self.mask_id if is_free and hide else token
                for token, is_free, hide, stay in zip(ids, free, hidden, stays, strict=True)
                if stay
            ]
        return made

    def _staying(self, words: list[int], free: list[bool]) -> list[bool]:
        """Draw for each word whether it stays, and say so of each token."""
        if not self.drop:
            return [True] * len(words)
        left_out = (torch.rand(max(words, default=-1) + 1) < self.drop).tolist()
        stays = [not (is_free and left_out[word]) for word, is_free in zip(words, free, strict=True)]
        if any(stay and is_free for stay, is_free in zip(stays, free, strict=True)):
            return stays
        return [True] * len(words)


class AugmentedTexts(torch.utils.data.Dataset):
    """Tokenised texts, varied at each look.

    Args:
        tokenized: What ``tokenize`` gave, with the column of words.
        noise: Varies an example.
    """

    def __init__(self, tokenized: Any, noise: TextNoise):
        self.tokenized, self.noise = tokenized, noise

    def __len__(self) -> int:
        return len(self.tokenized)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.noise(self.tokenized[index])


def text_noise(tokenizer: PreTrainedTokenizerBase, mask: float, drop: float) -> TextNoise:
    """Say what is done to the texts of a tokenizer.

    Args:
        tokenizer: The checkpoint's. Its special tokens stay, but for the one of unknown words.
        mask: Probability that a token becomes the mask token.
        drop: Probability that a word is left out.
    Raises:
        InputError: If tokens are to be masked and there is no mask token.
    """
    mask_id = tokenizer.mask_token_id
    if mask and mask_id is None:
        repair = "This one has no such token: use data.augment.drop."
        raise InputError(Problem("data.augment.mask", "must be 0 without a mask token", f"{mask:g}", repair))
    special: Collection[int] = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return TextNoise(mask, drop, mask_id if mask_id is not None else -1, frozenset(special))

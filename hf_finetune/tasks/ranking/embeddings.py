"""Ranking by the embeddings of query and candidate, each on its own, as a checkpoint computes them before training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["cosines", "embeddings"]

_BATCH = 64


def cosines(model: Any, tokenizer: Any, pairs: "Dataset") -> np.ndarray:
    """Return the cosine of the embeddings of query and candidate [pairs]; each distinct text is embedded once.

    For a sentence encoder such as MiniLM this is how it is meant to be used (Reimers and Gurevych 2019,
    Sentence-BERT).

    Args:
        model: Model without a head.
        tokenizer: Its tokenizer.
        pairs: Split with the columns ``query`` and ``candidate``.
    """
    queries, candidates = pairs["query"][:], pairs["candidate"][:]
    texts = list(dict.fromkeys([*queries, *candidates]))
    vectors = embeddings(model, tokenizer, texts)
    rows = {text: row for row, text in enumerate(texts)}
    first, second = ([rows[text] for text in column] for column in (queries, candidates))
    products: np.ndarray = (vectors[first] * vectors[second]).sum(axis=1)
    return products


@torch.no_grad()
def embeddings(model: Any, tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    """Return the mean of the outputs of the tokens of each text, of length 1 [texts, hidden].

    Args:
        model: Model without a head.
        tokenizer: Its tokenizer.
        texts: Texts to embed.
    """
    model = model.eval()
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # little padding
    parts = []
    for start in range(0, len(order), _BATCH):
        batch = tokenizer(
            [texts[row] for row in order[start : start + _BATCH]],
            padding=True,
            truncation=True,
            return_tensors="pt",
        ).to(model.device)
        mask = batch["attention_mask"][..., None]
        hidden = model(**batch).last_hidden_state.float()
        parts.append(functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1).cpu())
    vectors = np.empty((len(texts), parts[0].shape[1]))
    vectors[order] = torch.cat(parts).numpy()
    return vectors

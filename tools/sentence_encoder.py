"""Check the folder of a sentence encoder by its known answers: similarities that its authors published."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from archives import AssetError
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

__all__ = ["MINILM_ANSWERS", "MPNET_ANSWERS", "KnownAnswers", "check_answers"]

MAX_ERROR = 1e-4
"""Largest difference from a similarity that is published with four decimals."""


@dataclass(frozen=True)
class KnownAnswers:
    """Sentences with the cosine similarity of each pair.

    Attributes:
        sentences: The sentences.
        similarities: Similarity of the first sentence to each of them, then of the second, and so on.
    """

    sentences: tuple[str, ...]
    similarities: tuple[tuple[float, ...], ...]


MINILM_ANSWERS = KnownAnswers(
    ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."),
    ((1.0, 0.6660, 0.1046), (0.6660, 1.0, 0.1411), (0.1046, 0.1411, 1.0)),
)
"""Source: documentation of sentence-transformers, quickstart."""
MPNET_ANSWERS = KnownAnswers(
    (
        *("The weather is so nice!", "It's so sunny outside."),
        *("He's driving to the movie theater.", "She's going to the cinema."),
    ),
    (
        (1.0, 0.7235, 0.0290, 0.1309),
        (0.7235, 1.0, 0.0613, 0.1129),
        (0.0290, 0.0613, 1.0, 0.5027),
        (0.1309, 0.1129, 0.5027, 1.0),
    ),
)
"""Source: documentation of sentence-transformers, ``SentenceTransformer.similarity``."""


def check_answers(folder: Path, answers: KnownAnswers) -> None:
    """Compare the similarities that the encoder of a folder computes with the known ones.

    Args:
        folder: Folder of the encoder, whose sentence embedding is the mean over its tokens.
        answers: Known answers.

    Raises:
        AssetError: If a similarity differs.
    """
    got = _similarities(folder, answers.sentences)
    error = (got - torch.tensor(answers.similarities)).abs().max().item()
    if not error <= MAX_ERROR:
        raise AssetError(
            f"{folder}: the similarities of {len(answers.sentences)} sentences must equal the published ones within "
            f"{MAX_ERROR:g}. "
            f"Got a difference of {error:.4f}."
        )


@torch.inference_mode()
def _similarities(folder: Path, sentences: Sequence[str]) -> torch.Tensor:
    """Return the cosine similarities [sentences, sentences]."""
    batch = AutoTokenizer.from_pretrained(folder)(list(sentences), return_tensors="pt", padding=True)
    hidden = AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    embeddings = normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1)
    return embeddings @ embeddings.T

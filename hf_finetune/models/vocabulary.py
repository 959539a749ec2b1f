"""Check that a model has an embedding for each token of its tokenizer, and add embeddings."""

import logging
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from hf_finetune.errors import InputError, Problem

__all__ = ["embedding_rows", "fit_vocabulary", "resize_vocabulary"]

logger = logging.getLogger(__name__)

MAX_LISTED = 3
"""Maximum number of tokens in an error message."""


def embedding_rows(config: PreTrainedConfig) -> int | None:
    """Return the number of token embeddings of a model; None if it has none."""
    rows = getattr(config.get_text_config(), "vocab_size", None)
    return rows if isinstance(rows, int) and rows > 0 else None


def fit_vocabulary(config: PreTrainedConfig, tokenizer: Any, path: str, *, resize: bool) -> None:
    """Check that every token has an embedding, or set the required number of embeddings in the config.

    Args:
        config: Config of the model, changed in place if ``resize`` is set. The number of embeddings never decreases.
        tokenizer: Tokenizer of the checkpoint, with the tokens that were added to it.
        path: The checkpoint, for the error message.
        resize: Whether tokens without an embedding get a new one, see ``resize_vocabulary``.

    Raises:
        InputError: If tokens have no embedding and ``resize`` is not set.
    """
    rows, vocabulary = embedding_rows(config), tokenizer.get_vocab()
    if rows is None:
        return
    without = sorted((index, token) for token, index in vocabulary.items() if index >= rows)
    if not without:
        return
    if resize:
        config.get_text_config().vocab_size = without[-1][0] + 1
        return
    names = ", ".join(repr(token) for _, token in without[:MAX_LISTED])
    more = f" and {len(without) - MAX_LISTED:,} more" if len(without) > MAX_LISTED else ""
    rule = "must have an embedding for every token of the tokenizer"
    repair = (
        f"It has {rows:,} embeddings, but none for {names}{more}. "
        "Set model.resize_embeddings: true, and train the embeddings, or use the checkpoint's own tokenizer."
    )
    raise InputError(Problem("model.path", rule, repr(path), repair))


def resize_vocabulary(model: PreTrainedModel, rows: int) -> str:
    """Add token embeddings to a model, in place, and return a note about them.

    New embeddings are drawn from a normal distribution that is fitted to the old ones.

    Args:
        model: Model with the checkpoint's weights.
        rows: New number of embeddings, at least the current one.

    Source: ``PreTrainedModel.resize_token_embeddings`` with ``mean_resizing``; Hewitt 2021, Initializing New Word
    Embeddings for Pretrained Language Models.
    """
    before = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(rows)
    return (
        f"{rows - before:,} embeddings are new (of {rows:,} tokens), initialized from the distribution of the "
        "others; stages that freeze the embeddings do not train them."
    )

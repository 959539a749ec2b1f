"""Tiny text classifier with random weights."""

from collections.abc import Sequence
from pathlib import Path

from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

__all__ = ["save_tiny_bert"]


def save_tiny_bert(folder: Path, words: Sequence[str]) -> None:
    """Write a tiny BERT and its tokenizer.

    Args:
        folder: Folder to write to.
        words: Vocabulary, besides the special tokens.
    """
    config = BertConfig(
        vocab_size=len(words) + 5,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=2,
    )
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    tokens = {word: index for index, word in enumerate(vocabulary)}
    BertTokenizerFast(vocab=tokens, model_max_length=32).save_pretrained(folder)

"""Batches of model inputs, preprocessed exactly as by a pipeline of transformers."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from transformers.pipelines.base import pad_collate_fn

__all__ = ["collate_inputs", "preprocess"]


def preprocess(pipe: Any, examples: Iterator[Any], size: int) -> list[Any]:
    """Return the preprocessed next examples, each preprocessed as soon as it is read.

    Args:
        pipe: Pipeline of transformers.
        examples: Examples as the pipeline takes them.
        size: Number of examples; fewer at the end.
    """
    return [pipe.preprocess(example, **pipe._preprocess_params) for example in islice(examples, size)]


def collate_inputs(pipe: Any, inputs: list[Any]) -> Any:
    """Collate a batch in the same way as the pipeline; None for an empty batch.

    Args:
        pipe: Pipeline of transformers.
        inputs: Preprocessed examples.
    """
    if len(inputs) < 2:
        return inputs[0] if inputs else None
    return pad_collate_fn(pipe.tokenizer, pipe.image_processor or pipe.feature_extractor)(inputs)

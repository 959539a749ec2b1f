"""Tokenized batches for a pipeline of transformers."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from hf_finetune.tasks.examples import Remarks
from hf_finetune.tasks.pipelines import collate_inputs
from hf_finetune.tasks.text.truncation import TruncationCounter, find_truncated

__all__ = ["tokenized_batch"]


def tokenized_batch(pipe: Any, examples: Iterator[Any], size: int, remarks: Remarks | None = None) -> Any:
    """Tokenize the next examples in one call.

    A batch that mixes single texts and pairs is tokenized one example at a time.

    Args:
        pipe: Pipeline of transformers.
        examples: Texts, or dictionaries of ``text`` and ``text_pair``.
        size: Number of examples.
        remarks: Counter of truncated texts, or None.

    Returns:
        Model inputs; None if there are no more examples.
    """
    columns = [
        example if isinstance(example, Mapping) else {"text": example} for example in islice(examples, size)
    ]
    if not columns:
        return None
    if len({"text_pair" in example for example in columns}) > 1:
        inputs = [pipe.preprocess(dict(texts), **pipe._preprocess_params) for texts in columns]
        for example, encoding in zip(columns, inputs, strict=True):
            _count_truncated(pipe, encoding, [example], remarks)
        return collate_inputs(pipe, inputs)
    batch = {name: [example[name] for example in columns] for name in columns[0]}
    inputs = pipe.preprocess({**batch, "padding": len(columns) > 1}, **pipe._preprocess_params)
    _count_truncated(pipe, inputs, columns, remarks)
    return inputs


def _count_truncated(
    pipe: Any, inputs: Any, examples: Sequence[Mapping[str, str]], remarks: Remarks | None
) -> None:
    if isinstance(remarks, TruncationCounter):
        texts = list(zip(*(example.values() for example in examples), strict=True))
        cut = find_truncated(inputs, pipe.tokenizer, texts, pipe.tokenizer.model_max_length)
        remarks.add_batch(cut, pipe.tokenizer)

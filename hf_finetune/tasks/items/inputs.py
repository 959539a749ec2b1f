"""Model inputs of histories of items: token ids with a mask in the place of the next item, or of random items."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
from transformers import DataCollatorWithPadding, PreTrainedConfig, PreTrainedModel

from hf_finetune.errors import InputError, Problem, join_quoted, short_repr
from hf_finetune.targets.losses import IGNORE_INDEX
from hf_finetune.tasks.examples import Inputs, Remarks, Splits
from hf_finetune.tasks.seeded_augmentation import SeededExamples
from hf_finetune.tasks.text.tokenization import checkpoint_limit, pad_right, position_limit
from hf_finetune.tasks.text.truncation import TruncationCounter, find_truncated

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["HistoryCounter", "configure_items", "prepare_items", "tokenized_histories"]

_SPARE = 1.5
"""Number of masks that a training example may have, in multiples of the mean number."""


class HistoryCounter(TruncationCounter):
    """Counter of histories that lose their oldest items during predictions."""

    def sentences(self) -> list[str]:
        """Return a one-sentence message if any history was shortened, else an empty list."""
        if not self.count:
            return []
        return [
            f"{self.count:,} of {self.total:,} histories lost their oldest items: the model reads the last "
            f"{self.length - 1:,}."
        ]


def _masked_places(data: Any) -> int:
    """Return the number of masks that a training example may have."""
    share, length = data.augment.masked_items, data.max_items + 1
    return min(length, ceil(_SPARE * share * length) + 1) if share else 1


def configure_items(
    tokenizer: Any, config: PreTrainedConfig, data: Any, skeleton: PreTrainedModel
) -> tuple[str, ...]:
    """Set the length of histories, and the tokens of the classes in the config of the model.

    Args:
        tokenizer: Tokenizer of the checkpoint, changed in place.
        config: Config of the model with the class names, changed in place.
        data: ``data`` of the recipe.
        skeleton: The model without weights.

    Returns:
        A message on classes that are not in the vocabulary, if there are any.

    Raises:
        InputError: If the model reads fewer items than ``data.max_items``, if none of the classes is an item of its
            vocabulary, or if examples have weights.
    """
    positions = position_limit(skeleton)
    limit = checkpoint_limit(tokenizer, positions)
    if limit is not None and data.max_items + 1 > limit:
        rule = f"must be at most {limit - 1}, the number of items that the model reads"
        raise InputError(Problem("data.max_items", rule, str(data.max_items)))
    if data.columns.weight is not None:
        rule = "must not be set: the items of a history are masked at random"
        raise InputError(Problem("data.columns.weight", rule, repr(data.columns.weight)))
    tokenizer.model_max_length = data.max_items + 1
    tokenizer.truncation_side = "left"
    pad_right(tokenizer, positions)
    names = [config.id2label[index] for index in range(config.num_labels)]
    tokens = [int(token) for token in tokenizer.convert_tokens_to_ids(names)]
    unknown = [name for name, token in zip(names, tokens, strict=True) if token == tokenizer.unk_token_id]
    if len(unknown) == len(names):
        rule, fix = (
            "must have a token for the items of the data",
            "Set model.new, or use a model of these items.",
        )
        raise InputError(Problem("model.path", rule, f"no token for {join_quoted(unknown)}", fix))
    config.label_tokens, config.unknown_token = tokens, tokenizer.unk_token_id
    config.mask_token, config.exclude_seen = tokenizer.mask_token_id, data.exclude_seen
    if not unknown:
        return ()
    return (
        f"{len(unknown):,} of {len(names):,} items are not in the training split and can never be predicted: "
        f"{join_quoted(unknown)}. As labels of other examples they count as misses.",
    )


@dataclass(frozen=True)
class _Vocabulary:
    """Token ids of the items, and the class of each of them."""

    tokens: dict[str, int]
    unknown: int
    mask: int
    classes: dict[int, int]
    length: int

    def ids(self, words: Sequence[str]) -> list[int]:
        return [self.tokens.get(word, self.unknown) for word in words]

    def example(self, ids: Sequence[int], labels: Any) -> dict[str, Any]:
        return {"input_ids": list(ids), "attention_mask": [1] * len(ids), "labels": labels}


class _NextItem(torch.utils.data.Dataset):
    """Histories with a mask in the place of the next item, whose class is the label.

    Args:
        histories: Token ids of each history.
        labels: Class of the next item of each.
        vocabulary: Tokens and classes.
    """

    def __init__(self, histories: Sequence[Sequence[int]], labels: Sequence[int], vocabulary: _Vocabulary):
        self.histories, self.labels, self.vocabulary = histories, labels, vocabulary

    def __len__(self) -> int:
        return len(self.histories)

    def __getitem__(self, index: int) -> dict[str, Any]:
        read = self.histories[index][-(self.vocabulary.length - 1) :]
        return self.vocabulary.example([*read, self.vocabulary.mask], self.labels[index])


class _MaskedItems(torch.utils.data.Dataset):
    """Histories of which random items are masked, or whose end is cut off; drawn from torch's global generator.

    Args:
        sequences: Token ids of each history and its next item.
        vocabulary: Tokens and classes.
        share: Probability that an item is masked.
        next_only: Probability that a history is cut off instead.
        places: Number of labels of an example.
    """

    def __init__(
        self,
        sequences: Sequence[Sequence[int]],
        vocabulary: _Vocabulary,
        share: float,
        next_only: float,
        places: int,
    ):
        self.sequences, self.vocabulary = sequences, vocabulary
        self.share, self.next_only, self.places = share, next_only, places

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sequence, length = self.sequences[index], self.vocabulary.length
        if torch.rand(()) < self.next_only:
            end = _draw(1, len(sequence) - 1) + 1
            masked = [end - 1]
        elif self.share == 0:
            end = len(sequence)
            masked = [end - 1]
        else:
            end = _draw(min(len(sequence), length), len(sequence))
            begin = max(0, end - length)
            chosen = (torch.rand(end - begin) < self.share).nonzero()[:, 0].tolist() or [
                _draw(0, end - begin - 1)
            ]
            order = torch.randperm(len(chosen))[: self.places].tolist()
            masked = sorted(begin + chosen[place] for place in order)
        begin = max(0, end - length)
        ids = list(sequence[begin:end])
        labels = [self.vocabulary.classes.get(sequence[place], IGNORE_INDEX) for place in masked]
        for place in masked:
            ids[place - begin] = self.vocabulary.mask
        spare = self.places - len(masked)
        places = [place - begin for place in masked] + [0] * spare
        return {**self.vocabulary.example(ids, labels + [IGNORE_INDEX] * spare), "places": places}


def _draw(low: int, high: int) -> int:
    """Return a random integer from ``low`` to ``high``."""
    return int(torch.randint(low, high + 1, ()))


def prepare_items(splits: Splits, processor: Any, data: Any, seed: int, *, augmented: bool) -> Inputs:
    """Return the inputs of the splits; batches are padded to their longest history.

    Args:
        splits: Splits with the columns ``items`` and ``label``.
        processor: Configured tokenizer.
        data: ``data`` of the recipe.
        seed: Seed of the run.
        augmented: Whether training histories are masked at random.
    """
    names = splits.train.features["label"].names
    tokens = processor.get_vocab()
    classes = {tokens[name]: index for index, name in enumerate(names) if name in tokens}
    vocabulary = _Vocabulary(
        tokens, processor.unk_token_id, processor.mask_token_id, classes, processor.model_max_length
    )
    train = _histories(splits.train, vocabulary)
    labels = splits.train["label"][:]
    examples: Any
    if augmented:
        sequences = [
            [*history, *vocabulary.ids([names[label]])] for history, label in zip(train, labels, strict=True)
        ]
        augment = data.augment
        examples = SeededExamples(
            _MaskedItems(
                sequences, vocabulary, augment.masked_items, augment.next_only, _masked_places(data)
            ),
            seed,
        )
    else:
        learned = [label if names[label] in tokens else IGNORE_INDEX for label in labels]
        examples = _NextItem(train, learned, vocabulary)
    validation = None
    if splits.validation is not None:
        held_out = splits.validation
        validation = _NextItem(_histories(held_out, vocabulary), held_out["label"][:], vocabulary)
    return Inputs(examples, validation, _Collate(DataCollatorWithPadding(processor)))


@dataclass(frozen=True)
class _Collate:
    """Collate function that pads histories; examples of both kinds together lose the places of all masks but one."""

    pad: DataCollatorWithPadding

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        if len({"places" in example for example in examples}) > 1:
            examples = [_with_one_mask(example) for example in examples]
        return dict(self.pad(examples))


def _with_one_mask(example: dict[str, Any]) -> dict[str, Any]:
    if "places" not in example:
        return example
    kept = {name: value for name, value in example.items() if name not in ("places", "labels")}
    if "labels" in example:
        kept["labels"] = max(zip(example["places"], example["labels"], strict=True))[1]
    return kept


def _histories(split: "Dataset", vocabulary: _Vocabulary) -> list[list[int]]:
    return [vocabulary.ids(text.split()) for text in split["items"][:]]


def tokenized_histories(pipe: Any, examples: Any, size: int, remarks: Remarks | None) -> Any:
    """Return the model inputs of the next histories; None at the end.

    Args:
        pipe: Pipeline of transformers.
        examples: Text forms with a mask; only the next ones are read.
        size: Number of examples.
        remarks: Counter of shortened histories, or None.

    Raises:
        ValueError: If a text has no mask.
    """
    texts = list(islice(examples, size))
    if not texts:
        return None
    tokenizer = pipe.tokenizer
    length = tokenizer.model_max_length
    encoded = tokenizer(
        texts, truncation=True, max_length=length, padding=len(texts) > 1, return_tensors="pt"
    )
    if not (encoded["input_ids"] == tokenizer.mask_token_id).any(dim=1).all():
        raise ValueError(f"a history must end with {tokenizer.mask_token}, as {short_repr(texts[0])} does")
    if isinstance(remarks, TruncationCounter):
        remarks.add_batch(find_truncated(encoded, tokenizer, [texts], length), tokenizer)
    return encoded

"""The modality of histories of items."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_finetune.errors import Problem
from hf_finetune.fields.base import Part
from hf_finetune.tasks.columns import ColumnRole, find_columns_by_name
from hf_finetune.tasks.examples import (
    ExampleCheck,
    Inputs,
    JoinedRows,
    MaskedInputs,
    Remarks,
    SimpleModels,
    Splits,
)
from hf_finetune.tasks.history_columns import CUSTOMER, are_lists, holds_histories, row_role
from hf_finetune.tasks.items.fields import ItemAugmentFields, ItemFields
from hf_finetune.tasks.modality import Modality
from hf_finetune.tasks.text.modality import Text

if TYPE_CHECKING:
    import torch
    from datasets import Dataset, Features
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["Items"]

_USUAL_COLUMN_NAMES = ("items", "history", "sequence", "basket")
_MADE_UP = ("bad", "good")
"""Catalogue of synthetic histories."""
_LAYERS, _HIDDEN, _MAX_ITEMS = 2, 16, 50
"""Size of the tiny checkpoint."""


class Items(Text):
    """Histories of items, each a word of the text form, with one token per item."""

    name: ClassVar[str] = "items"
    readable = "a history of items"
    article = "a history of items"
    plural = "histories of items"
    file_noun = "history"
    roles: ClassVar[tuple[ColumnRole, ...]] = (
        ColumnRole(
            *("items", "histories of items", "must contain lists of items, or texts", _USUAL_COLUMN_NAMES),
            holds_histories,
            "Column of the histories of items, the oldest first; null = inferred, or joined from one row per event.",
        ),
    )
    row_roles: ClassVar[tuple[ColumnRole, ...]] = (
        CUSTOMER,
        row_role(
            "item",
            "items",
            "must name an item",
            "Column of the item of each event, for a table with one row per event.",
        ),
    )
    data_fields: ClassVar[type[Part]] = ItemFields
    augment_fields: ClassVar[type[Part]] = ItemAugmentFields
    augment_description: ClassVar[str] = "masked_items and next_only"
    no_augmentation: ClassVar[Mapping[str, Any]] = {"masked_items": 0.0, "next_only": 0.0}
    builds_new_models: ClassVar[bool] = True
    has_rare_classes: ClassVar[bool] = True
    synthetic_classes: ClassVar[tuple[str, ...]] = _MADE_UP

    @property
    def suffixes(self) -> frozenset[str]:
        """No files with one example each."""
        return frozenset()

    def find_columns(
        self, features: "Features", named: Mapping[str, str], taken: Sequence[str | None]
    ) -> tuple[dict[str, str | None], list[Problem]]:
        """Find the column of the histories: named, of a usual name, or the only one of a suitable type."""
        return find_columns_by_name(self.roles, features, named, taken)

    def second_column_names(self, name: str) -> tuple[str, ...]:
        """Return nothing: histories have no second column."""
        return ()

    def guess_rows(self, dataset: "Dataset") -> Mapping[str, Any]:
        """Return the columns of customers, times and items, and a date."""
        from hf_finetune.tasks.items.guess import guess_log

        return guess_log(dataset)

    def claims(self, dataset: "Dataset") -> bool:
        """Return whether a table has one row per event, by its names and values."""
        return bool(self.guess_rows(dataset))

    def may_hold_examples(self, cells: Sequence[Any]) -> bool:
        """Return whether all cells are lists."""
        return are_lists(cells)

    def join_rows(
        self, splits: "Mapping[str, Dataset]", columns: Mapping[str, Any], data: Any
    ) -> JoinedRows | None:
        """Join a table with one row per event to histories; declare all items of the data as classes."""
        from hf_finetune.tasks.items.join import declare_items, join_log

        if columns.get("customer") is None:
            return declare_items(splits, self.roles[0], columns)
        return join_log(splits, columns, data)

    def join_prediction_rows(
        self, rows: Mapping[str, Sequence[Any]], columns: Mapping[str, Any], decimal: str | None
    ) -> "Iterable[tuple[str, Mapping[str, Any]]]":
        """Return the history of each customer."""
        from hf_finetune.tasks.items.join import histories_of, read_log

        log = read_log(rows, columns)
        return [(customer, {"items": items}) for customer, items in histories_of(log)]

    def features(self, *, decode: bool = True) -> dict[str, Any]:
        """Return a string."""
        from datasets import Value

        return {"items": Value("string")}

    def stored_form(self, inputs: "Dataset") -> "Dataset":
        """Return the histories as texts."""
        from hf_finetune.tasks.items.stored import text_forms

        return text_forms(inputs)

    def check(self) -> ExampleCheck:
        """Return a check that each example is a history of items."""
        from hf_finetune.tasks.items.stored import ItemsCheck

        return ItemsCheck()

    def hashes(self, dataset: "Dataset") -> tuple[Sequence[str | None], Sequence[str | None]]:
        """Return the SHA-256 of each history, and no keys: equal histories are no duplicates."""
        from hf_finetune.tasks.stored import hash_rows

        return hash_rows(dataset, ["items"]), [None] * len(dataset)

    def extreme_rows(self, dataset: "Dataset", lengths: Sequence[int] | None = None) -> list[int]:
        """Return the row of the longest history."""
        return [max(range(len(dataset)), key=[text.count(" ") for text in dataset["items"][:]].__getitem__)]

    def synthetic_examples(
        self, count: int, rng: Any, *, length: int = 16, pair: bool = False
    ) -> dict[str, Any]:
        """Return histories of two items; the first is the longest, the others have at least a fourth of its items."""
        sizes = [length, *(rng.randint(max(length // 4, 1), length) for _ in range(count - 1))]
        return {"items": [" ".join(rng.choices(_MADE_UP, k=size)) for size in sizes]}

    def check_processor(self, processor: Any) -> None:
        """Check that a tokenizer has a token for masks."""
        Text.check_processor(self, processor)
        if processor.mask_token is None:
            raise ValueError("the tokenizer must have a mask token")

    def configure(
        self,
        processor: Any,
        config: "PreTrainedConfig",
        data: Any,
        skeleton: "Callable[[], PreTrainedModel]",
    ) -> tuple[str, ...]:
        """Set the length of histories, and the tokens of the items."""
        from hf_finetune.tasks.items.inputs import configure_items

        return configure_items(processor, config, data, skeleton())

    def prepare(self, splits: Splits, processor: Any, data: Any, seed: int) -> Inputs:
        """Return token ids with masks."""
        from hf_finetune.tasks.items.inputs import prepare_items

        return prepare_items(splits, processor, data, seed, augmented=self.is_augmented(data))

    @property
    def simple_features(self) -> None:
        """No features: the baselines are recommenders."""
        return

    @property
    def simple_models(self) -> SimpleModels:
        """Popularity, Markov chain, nearest items and EASE."""
        from hf_finetune.tasks.items.titles import TITLES

        def fit(splits: Any, data: Any) -> Mapping[str, tuple[Any, dict[str, Any]]]:
            from hf_finetune.tasks.items.baselines import fit_recommenders

            return fit_recommenders(
                splits.train, splits.validation, splits.test, exclude_seen=data.exclude_seen
            )

        return SimpleModels(TITLES, fit)

    def masked(
        self, splits: Splits, processor: Any, data: Any, seed: int, share: float | None
    ) -> MaskedInputs:
        """Raise an error: training itself masks items."""
        return Modality.masked(self, splits, processor, data, seed, share)

    def synthetic_batch(self, processor: Any) -> "dict[str, torch.Tensor]":
        """Return a batch of one short history."""
        return self.batch_inputs(processor)(self.uneven_texts()[:1])

    def uneven_texts(self) -> tuple[str, str]:
        """Return a short and a long history."""
        from hf_finetune.tasks.items.history import with_mask

        return with_mask("good"), with_mask(" ".join(["good"] * 15))

    def describe_sizes(self, dataset: "Dataset") -> str:
        """Return the median and the largest number of items."""
        from statistics import median

        counts = [len(text.split()) for text in dataset["items"][:]]
        return f"Median number of items {median(counts):g}, largest {max(counts):,}."

    def save_tiny_checkpoint(self, folder: Path) -> None:
        """Write a tiny BERT for two items."""
        from hf_finetune.tasks.items.new_model import save_new_model

        save_new_model(
            folder, _MADE_UP, _MADE_UP, layers=_LAYERS, hidden=_HIDDEN, max_items=_MAX_ITEMS, seed=0
        )

    def save_new_model(self, folder: Path, train: "Dataset", data: Any, spec: Any, seed: int) -> None:
        """Write a small BERT with random weights and a tokenizer made from the training split."""
        from hf_finetune.tasks.items.new_model import item_vocabulary, save_new_model

        save_new_model(
            folder,
            item_vocabulary(train),
            train.features["label"].names,
            layers=spec.layers,
            hidden=spec.hidden,
            max_items=data.max_items,
            seed=seed,
        )

    def pipeline_settings(self, processor: Any, model: "PreTrainedModel") -> dict[str, Any]:
        """Return the tokenizer, and its options for histories that are too long."""
        return {"tokenizer": processor, "tokenizer_kwargs": {"truncation": True}}

    def pipeline_input(self, row: Mapping[str, Any]) -> Any:
        """Return the text form of the history with a mask at its end."""
        from hf_finetune.tasks.items.history import with_mask

        return with_mask(row["items"])

    def read_batch(
        self, pipe: Any, examples: Iterator[Any], size: int, remarks: Remarks | None = None
    ) -> Any:
        """Tokenize a batch in one call."""
        from hf_finetune.tasks.items.inputs import tokenized_histories

        return tokenized_histories(pipe, examples, size, remarks)

    def read_example(self, cells: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return the text form of the history with a mask at its end."""
        from hf_finetune.tasks.items.history import read_items, with_mask

        return with_mask(read_items(cells["items"])), None

    def remarks(self) -> Remarks:
        """Return a new counter of histories that lose their oldest items."""
        from hf_finetune.tasks.items.inputs import HistoryCounter

        return HistoryCounter()

    def tracing_examples(self) -> list[Any]:
        """Return two short histories."""
        return Modality.tracing_examples(self)

    def preview_example(self, row: Mapping[str, Any]) -> Any:
        """Return the text form of the history."""
        return row["items"]

    def example_code(self, *, pair: bool) -> str:
        """Return a history in its text form."""
        return '"item-3 item-7 [MASK]"'

    @property
    def usage_note(self) -> str:
        """Text form of a history."""
        return (
            "A history has its oldest item first and `[MASK]` in the place of the next one; white space within a name "
            "is an underscore. Of a long history the model reads the last items, if the pipeline is called with "
            "`tokenizer_kwargs={'truncation': True}`."
        )

    def demo_components(self, gradio: Any, *, pair: bool) -> list[Any]:
        """Return a field for the text form."""
        return [gradio.Textbox(label="Items, the oldest first", lines=4)]

    def demo_values(self, example: Any, path: Path) -> dict[str, str]:
        """Return the text form without the mask."""
        from hf_finetune.tasks.items.history import read_items

        return {"items": read_items(str(example))}

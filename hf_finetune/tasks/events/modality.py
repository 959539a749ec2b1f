"""The modality of histories of events, such as the actions of a customer."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_finetune.errors import InputError, Problem
from hf_finetune.fields.base import Part
from hf_finetune.tasks.columns import ColumnRole, find_columns_by_name
from hf_finetune.tasks.events.fields import EventFields
from hf_finetune.tasks.examples import (
    ExampleCheck,
    Inputs,
    JoinedRows,
    MaskedInputs,
    Remarks,
    SimpleFeatures,
    Splits,
)
from hf_finetune.tasks.history_columns import CUSTOMER, are_lists, holds_histories, row_role
from hf_finetune.tasks.modality import Modality
from hf_finetune.tasks.text.modality import Text

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset, Features
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["Events"]

_USUAL_COLUMN_NAMES = ("events", "history", "sequence", "actions", "behaviour", "behavior")
_KINDS = ("view", "search", "cart", "buy", "return")


class Events(Text):
    """Histories of events; their text form is tokenized by a tokenizer with a token for each kind and bucket."""

    name: ClassVar[str] = "events"
    readable = "a history of events"
    article = "a history of events"
    plural = "histories"
    file_noun = "history"
    roles: ClassVar[tuple[ColumnRole, ...]] = (
        ColumnRole(
            *("events", "histories of events", "must contain lists of events, or texts", _USUAL_COLUMN_NAMES),
            holds_histories,
            "Column of the histories: lists of events; null = inferred, or joined from one row per event.",
        ),
    )
    row_roles: ClassVar[tuple[ColumnRole, ...]] = (
        CUSTOMER,
        row_role(
            "kind",
            "kinds of events",
            "must name a kind",
            "Column of the kind of each event, for a table with one row per event; null = all events are of one kind.",
        ),
        row_role(
            "amount",
            "amounts",
            "must contain numbers",
            "Column of the amount of each event, for a table with one row per event; null = no amounts.",
        ),
    )
    data_fields: ClassVar[type[Part]] = EventFields
    augment_fields: ClassVar[type[Part]] = Part
    augment_description: ClassVar[str] = "none"
    builds_new_models: ClassVar[bool] = True

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
        """Return the columns of customers, times, labels, and perhaps kinds and amounts."""
        from hf_finetune.tasks.events.guess import guess_log

        return guess_log(dataset)

    def claims(self, dataset: "Dataset") -> bool:
        """Return whether a table has one row per event and a label for each customer, by its names and values."""
        return bool(self.guess_rows(dataset))

    def may_hold_examples(self, cells: Sequence[Any]) -> bool:
        """Return whether all cells are lists."""
        return are_lists(cells)

    def join_rows(
        self, splits: "Mapping[str, Dataset]", columns: Mapping[str, Any], data: Any
    ) -> JoinedRows | None:
        """Join a table with one row per event, which has a column of customers, to histories."""
        if columns.get("customer") is None:
            if data.outcome is not None:
                rule = (
                    "must be set with data.outcome: a label is computed from a table with one row per event"
                )
                raise InputError(Problem("data.columns.customer", rule))
            return None
        from hf_finetune.tasks.events.log import join_log

        return join_log(splits, columns, data)

    def join_prediction_rows(
        self, rows: Mapping[str, Sequence[Any]], columns: Mapping[str, Any], decimal: str | None
    ) -> "Iterable[tuple[str, Mapping[str, Any]]]":
        """Return the history of each customer; the date of the prediction is that of the newest event of the table."""
        from hf_finetune.tasks.events.log import histories_until, read_log

        joined = histories_until(read_log(rows, columns, decimal or "."), float("inf"))
        return [
            (customer, {"events": events})
            for customer, events in zip(joined["customer"], joined["events"], strict=True)
        ]

    def stored_form(self, inputs: "Dataset") -> "Dataset":
        """Return the histories as texts."""
        from hf_finetune.tasks.events.stored import text_forms

        return text_forms(inputs)

    def check(self) -> ExampleCheck:
        """Return a check that each example is a history."""
        from hf_finetune.tasks.events.stored import HistoryCheck

        return HistoryCheck()

    def hashes(self, dataset: "Dataset") -> tuple[Sequence[str | None], Sequence[str | None]]:
        """Return the SHA-256 of each history, and no keys: equal histories are no duplicates."""
        from hf_finetune.tasks.stored import hash_rows

        return hash_rows(dataset, ["events"]), [None] * len(dataset)

    def extreme_rows(self, dataset: "Dataset", lengths: Sequence[int] | None = None) -> list[int]:
        """Return the row of the longest history."""
        known = [len(text) for text in dataset["events"][:]] if lengths is None else lengths
        return [max(range(len(known)), key=known.__getitem__)]

    def synthetic_examples(
        self, count: int, rng: Any, *, length: int = 16, pair: bool = False
    ) -> dict[str, Any]:
        """Return histories of a few kinds; the first has ``length`` words, the others have at least a fourth."""
        from hf_finetune.tasks.events.history import Event, write_history

        most = max(1, length // 3)
        sizes = [most, *(rng.randint(max(most // 4, 1), most) for _ in range(count - 1))]
        histories = [
            [Event(rng.choice(_KINDS), rng.randint(1, 90), rng.randint(1, 99)) for _ in range(size)]
            for size in sizes
        ]
        return {"events": [write_history(history) for history in histories]}

    def configure(
        self,
        processor: Any,
        config: "PreTrainedConfig",
        data: Any,
        skeleton: "Callable[[], PreTrainedModel]",
    ) -> tuple[str, ...]:
        """Set the maximum number of tokens."""
        from hf_finetune.tasks.events.inputs import configure_histories

        return configure_histories(processor, config, data, skeleton())

    def prepare(self, splits: Splits, processor: Any, data: Any, seed: int) -> Inputs:
        """Return inputs that are tokenized once."""
        from hf_finetune.tasks.events.inputs import prepare_histories

        return prepare_histories(splits, processor)

    @property
    def simple_features(self) -> SimpleFeatures:
        """Recency, frequency and amount."""

        def compute(
            train: "Dataset", test: "Dataset", data: Any
        ) -> "dict[str, tuple[np.ndarray, np.ndarray]]":
            from hf_finetune.tasks.events.rfm import rfm_features

            return {"": rfm_features(train, test)}

        return SimpleFeatures("rfm", "recency, frequency and amount", compute, boosting=True, is_quick=True)

    def masked(
        self, splits: Splits, processor: Any, data: Any, seed: int, share: float | None
    ) -> MaskedInputs:
        """Raise an error: histories are not pretrained with masks."""
        return Modality.masked(self, splits, processor, data, seed, share)

    def describe_sizes(self, dataset: "Dataset") -> str:
        """Return the median and the largest number of events."""
        from statistics import median

        from hf_finetune.tasks.events.stored import event_counts

        counts = event_counts(dataset)
        return f"Median number of events {median(counts):g}, largest {max(counts):,}."

    def save_tiny_checkpoint(self, folder: Path) -> None:
        """Write a tiny BERT for histories of a few kinds."""
        from random import Random

        from datasets import Dataset

        from hf_finetune.tasks.events.new_model import save_new_model

        train = Dataset.from_dict(self.synthetic_examples(50, Random(0)))
        save_new_model(folder, train, layers=2, hidden=16, buckets=4, max_events=20, seed=0)

    def save_new_model(self, folder: Path, train: "Dataset", data: Any, spec: Any, seed: int) -> None:
        """Write a small BERT with random weights and a tokenizer made from the training split."""
        from hf_finetune.tasks.events.new_model import save_new_model

        save_new_model(
            folder,
            train,
            layers=spec.layers,
            hidden=spec.hidden,
            buckets=data.buckets,
            max_events=data.max_events,
            seed=seed,
        )

    def pipeline_input(self, row: Mapping[str, Any]) -> Any:
        """Return the text form of the history."""
        return {"text": row["events"]}

    def read_example(self, cells: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return the text form of the history."""
        from hf_finetune.tasks.events.history import read_history

        return {"text": read_history(cells["events"])}, None

    def remarks(self) -> Remarks:
        """Return a new counter of histories that lose their oldest events."""
        from hf_finetune.tasks.events.inputs import HistoryCounter

        return HistoryCounter()

    def tracing_examples(self) -> list[Any]:
        """Return two short histories."""
        return Modality.tracing_examples(self)

    def preview_example(self, row: Mapping[str, Any]) -> Any:
        """Return the text form of the history."""
        return row["events"]

    def example_code(self, *, pair: bool) -> str:
        """Return a history in its text form."""
        return '"since=30 buy amount=11.77 gap=26 buy amount=29.33"'

    @property
    def usage_note(self) -> str:
        """Text form of a history."""
        return (
            "A history has its newest event first: `since` is the number of days from it to now, `gap` the number of "
            "days to the next older event, and `amount` follows the kind of its event."
        )

    def demo_components(self, gradio: Any, *, pair: bool) -> list[Any]:
        """Return a field for the text form."""
        return [gradio.Textbox(label="History of events, the newest first", lines=4)]

    def demo_values(self, example: Any, path: Path) -> dict[str, str]:
        """Return the text form."""
        return {"events": str(example["text"])}

    @property
    def space_code(self) -> Path:
        """Python file with the field for a history."""
        return Path(__file__).with_name("space_fields.py")

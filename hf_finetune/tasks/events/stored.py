"""Stored histories: their text form, and the check that each is one."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_finetune.tasks.events.history import parse_history, read_history
from hf_finetune.tasks.examples import ExampleError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["HistoryCheck", "event_counts", "text_forms"]


def text_forms(dataset: "Dataset") -> "Dataset":
    """Return the histories of a dataset as texts; one that cannot be read stays as it is, for ``HistoryCheck``.

    Args:
        dataset: Dataset with a column ``events``.
    """
    from datasets import Dataset, Features, Value

    texts = [_text(cell) for batch in dataset.iter(batch_size=1000) for cell in batch["events"]]
    return Dataset.from_dict({"events": texts}, features=Features({"events": Value("string")}))


def _text(cell: Any) -> str | None:
    try:
        return read_history(cell)
    except ExampleError:
        return cell if cell is None or isinstance(cell, str) else json.dumps(cell, default=str)


class HistoryCheck:
    """Check that each example is a history."""

    def faults(self, dataset: "Dataset", ids: Sequence[str]) -> list[str | None]:
        """Return the reason why each history cannot be used; None if it can.

        Args:
            dataset: Dataset with a column ``events``.
            ids: Name of each history.
        """
        return [self._fault(text) for text in dataset["events"][:]]

    def _fault(self, text: str | None) -> str | None:
        try:
            read_history(text)
        except ExampleError as error:
            return f"{error}"
        return None

    def notes(self) -> list[str]:
        """Return no messages."""
        return []


def event_counts(dataset: "Dataset") -> list[int]:
    """Return the number of events of each history.

    Args:
        dataset: Dataset with a column ``events``.
    """
    return [len(parse_history(text)) for text in dataset["events"][:]]

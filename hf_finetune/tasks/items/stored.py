"""Stored histories of items: their text form, and the check that each is one."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_finetune.tasks.examples import ExampleError
from hf_finetune.tasks.items.history import read_items

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["ItemsCheck", "text_form", "text_forms"]


def text_forms(dataset: "Dataset") -> "Dataset":
    """Return the histories of a dataset as texts; one that cannot be read stays as it is, for ``ItemsCheck``.

    Args:
        dataset: Dataset with a column ``items``.
    """
    from datasets import Dataset, Features, Value

    texts = [text_form(cell) for batch in dataset.iter(batch_size=1000) for cell in batch["items"]]
    return Dataset.from_dict({"items": texts}, features=Features({"items": Value("string")}))


def text_form(cell: Any) -> str | None:
    """Return a stored history as text; as it is, if it cannot be read.

    Args:
        cell: Cell of the data.
    """
    try:
        return read_items(cell)
    except ExampleError:
        return cell if cell is None or isinstance(cell, str) else json.dumps(cell, default=str)


class ItemsCheck:
    """Check that each example is a history of items."""

    def faults(self, dataset: "Dataset", ids: Sequence[str]) -> list[str | None]:
        """Return the reason why each history cannot be used; None if it can.

        Args:
            dataset: Dataset with a column ``items``.
            ids: Name of each history.
        """
        return [self._fault(text) for text in dataset["items"][:]]

    def _fault(self, text: str | None) -> str | None:
        try:
            read_items(text)
        except ExampleError as error:
            return f"{error}"
        return None

    def notes(self) -> list[str]:
        """Return no messages."""
        return []

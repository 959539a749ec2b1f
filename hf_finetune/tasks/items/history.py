"""Histories of items and their text form: words separated by spaces, such as ``Alien_(1979) Heat_(1995)``.

The oldest item comes first. The model reads the text form with ``[MASK]`` in the place of the next item.
"""

import json
import re
from typing import Any

from hf_finetune.errors import short_repr
from hf_finetune.tasks.examples import ExampleError
from hf_finetune.tasks.word_level import MASK, SPECIAL, holds_special

__all__ = ["item_word", "read_items", "with_mask"]


def item_word(item: Any) -> str:
    """Return the name of an item as one word: white space becomes underscores.

    Args:
        item: Name or number of an item.

    Raises:
        ExampleError: If it is empty, no name, or contains a special token.
    """
    if item is None or isinstance(item, bool | dict | list) or item != item:
        raise ExampleError(f"one with {short_repr(item)} in place of an item")
    if isinstance(item, float) and item.is_integer():
        item = int(item)  # a column of integers with missing values is read as floats
    word = re.sub(r"\s+", "_", str(item).strip())
    if not word:
        raise ExampleError("one with an item without a name")
    if holds_special(word):
        raise ExampleError(f"one with the item {short_repr(word)}; reserved are {', '.join(SPECIAL)}")
    return word


def read_items(cell: Any) -> str:
    """Return the text form of a history as it is stored in data.

    Args:
        cell: The text form, perhaps with ``[MASK]`` at its end; or a list, or a JSON list as text, of names or numbers.

    Raises:
        ExampleError: If the cell contains no history.
    """
    if isinstance(cell, str):
        text = cell.strip()
        cell = _list_of(text) if text.startswith("[") else text.removesuffix(MASK).split()
    if not isinstance(cell, list | tuple) or not cell:
        empty = cell is None or cell in ([], ())
        raise ExampleError("empty" if empty else f"no list of items: {short_repr(cell)}")
    return " ".join(item_word(item) for item in cell)


def _list_of(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExampleError(f"a damaged JSON list ({error})") from None


def with_mask(history: str) -> str:
    """Return the text form of a history as the model reads it, with ``[MASK]`` at its end.

    Args:
        history: Text form of a history.
    """
    return f"{history} {MASK}"

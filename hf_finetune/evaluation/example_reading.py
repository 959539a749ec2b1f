"""Examples to predict, each read on its own: a text or an image, or the reason why it cannot be read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_finetune.data.formatting import shortened
from hf_finetune.data.image_files import PictureError, PictureFacts, read_picture
from hf_finetune.data.image_paths import is_encoded
from hf_finetune.evaluation.error_text import format_error
from hf_finetune.files import can_be_path

__all__ = ["Inputs", "Item", "no_file", "open_image", "open_stored_image", "open_text"]


@dataclass(frozen=True)
class Item:
    """Example to predict, or the reason why it cannot be read.

    Attributes:
        id: Id of the example: a path, ``FILE:ROW`` counted from 0, ``FILE:LINE`` counted from 1, or the text itself.
            For an image it is never a text that cannot be a file name.
        content: RGB image, text, or dictionary of ``text`` and ``text_pair``; None if unreadable.
        error: Sentence with the reason why it cannot be read; None if it can.
        picture: Details of how an image was decoded; None for texts.
        row: Cells of its table row by column, if columns are carried along.
    """

    id: str
    content: Any = None
    error: str | None = None
    picture: PictureFacts | None = None
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """Examples to predict.

    Attributes:
        items: Iterator over the examples, which can be consumed once; each is read on demand.
        total: Number of examples; None if it is not known in advance.
        columns: Columns of the tables, if they are carried along.
    """

    items: Iterator[Item]
    total: int | None
    columns: tuple[str, ...] = ()


def open_text(name: str, text: Any, text_pair: Any = None) -> Item:
    """Return the item of a text or of a pair of texts, with an error if one of them is empty."""
    texts = {"text": text} if text_pair is None else {"text": text, "text_pair": text_pair}
    if any(part is None or not str(part).strip() for part in texts.values()):
        return Item(name, error="The text is empty.")
    return Item(name, {key: str(part) for key, part in texts.items()})


def open_image(name: str, source: Path | bytes) -> Item:
    """Decode an image as in training: upright, on a white background, in RGB."""
    if isinstance(source, Path) and not can_be_path(source):
        return Item(name, error=no_file(str(source)))
    try:
        image, facts = read_picture(source)
    except PictureError as error:
        return Item(name, error=f"The image cannot be read. It is {error}.")
    except Exception as error:  # Pillow's decoders let errors of any type through.
        return Item(name, error=f"The image cannot be read. {format_error(error)}.")
    return Item(name, image, picture=facts)


def open_stored_image(name: str, value: Any, root: Path) -> Item:
    """Decode an image from a table cell: a path, the bytes of a file, or both as ``datasets`` stores them."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return open_image(name, value)
    if not value:
        return Item(name, error="There is no image.")
    return open_image(name, root / str(value))


def no_file(value: str) -> str:
    """Return the error text for a value that cannot be the path of an image."""
    shown = shortened(value)
    if is_encoded(value):
        return f"The image is base64 or a data URI ({shown}); write the picture to a file, and put its path there."
    return f"There is no file of this name ({shown!r})."

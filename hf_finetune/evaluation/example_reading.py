"""One example to predict: a text or an image, read on its own, or why it cannot be read."""

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
    """One example to predict, or why it cannot be read.

    Attributes:
        id: Its name: a path, ``FILE:ROW`` counted from 0, ``FILE:LINE`` counted from 1, or the text itself; of an
            image never a text that no file can be called.
        content: An RGB image, a text, or a dictionary of ``text`` and ``text_pair``. None if unreadable.
        error: Why it cannot be read, a sentence. None if it can.
        picture: How an image was read.
        row: The columns of the table that it comes from, where they are kept.
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
        items: The examples, to be gone through once; each is read when it is asked for.
        total: How many there are. None if that is not known beforehand.
        columns: The columns of the tables, where they are kept.
    """

    items: Iterator[Item]
    total: int | None
    columns: tuple[str, ...] = ()


def open_text(name: str, text: Any, text_pair: Any = None) -> Item:
    """Take a text or a pair, of which neither may be empty."""
    texts = {"text": text} if text_pair is None else {"text": text, "text_pair": text_pair}
    if any(part is None or not str(part).strip() for part in texts.values()):
        return Item(name, error="The text is empty.")
    return Item(name, {key: str(part) for key, part in texts.items()})


def open_image(name: str, source: Path | bytes) -> Item:
    """Decode an image as the model was trained on it: upright, on white, in RGB."""
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
    """Open what a table holds for an image: a path, a file's bytes, or both as ``datasets`` stores them."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return open_image(name, value)
    if not value:
        return Item(name, error="There is no image.")
    return open_image(name, root / str(value))


def no_file(value: str) -> str:
    """Return why a text that can be no path leads to no image."""
    shown = shortened(value)
    if is_encoded(value):
        return f"The image is base64 or a data URI ({shown}); write the picture to a file, and put its path there."
    return f"There is no file of this name ({shown!r})."

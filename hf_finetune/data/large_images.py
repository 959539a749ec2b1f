"""Large pictures: how many are decoded at a time, and where they are kept once they are reduced."""

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Condition
from typing import Any

from PIL import Image

__all__ = ["KeptPictures", "PixelBudget", "kept_pictures"]

_KEPT_BYTES = 2 * 2**30


class PixelBudget:
    """Lets threads decode pictures of so many pixels at a time.

    Attributes:
        most: Pixels. A picture of more is decoded alone.
        used: Pixels of the pictures that are being decoded.
    """

    def __init__(self, most: int):
        self.most = most
        self.used = 0
        self._changed = Condition()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for a picture, and reserve it for the body."""
        with self._changed:
            self._changed.wait_for(lambda: self.used == 0 or self.used + pixels <= self.most)
            self.used += pixels
        try:
            yield
        finally:
            with self._changed:
                self.used -= pixels
                self._changed.notify_all()


class KeptPictures:
    """Reduced pictures as files in a folder that is removed when the process ends.

    Attributes:
        folder: Where they are.
        facts: What is known of each.
        bytes: Size of all of them.
    """

    def __init__(self) -> None:
        temporary = TemporaryDirectory(prefix="hf-finetune-pictures-", ignore_cleanup_errors=True)
        atexit.register(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.facts: dict[str, Any] = {}
        self.bytes = 0

    def read(self, key: str) -> tuple[Image.Image, Any] | None:
        """Return a picture and what is known of it, or None if it is not there."""
        if key not in self.facts:
            return None
        try:
            with Image.open(self.folder / f"{key}.png", formats=("PNG",)) as image:
                image.load()
        except OSError:  # someone has tidied the folder up
            return None
        return image, self.facts[key]

    def write(self, key: str, image: Image.Image, facts: Any) -> None:
        """Keep a picture, if there is room for it: no more than 2 GiB in all."""
        if self.bytes > _KEPT_BYTES:
            return
        file = self.folder / f"{key}.png"
        try:
            image.save(file, compress_level=1)
        except OSError:  # a full disk; the picture is decoded again then
            return
        self.bytes += file.stat().st_size
        self.facts[key] = facts


@cache
def kept_pictures() -> KeptPictures:
    """Return those of this process."""
    return KeptPictures()

"""Large images: a limit on the pixels decoded at the same time, and an on-disk cache of reduced images."""

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Condition
from typing import Any

from PIL import Image

__all__ = ["PixelBudget", "ReducedImageCache", "reduced_image_cache"]

_MAX_BYTES = 2 * 2**30


class PixelBudget:
    """Limit on the total number of pixels that threads decode at the same time.

    Attributes:
        limit: Limit in pixels. A larger image is decoded alone.
        used: Pixels of the images that are currently being decoded.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.used = 0
        self._changed = Condition()

    @contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Wait until an image fits into the budget, and reserve its pixels for the body of the ``with`` statement."""
        with self._changed:
            self._changed.wait_for(lambda: self.used == 0 or self.used + pixels <= self.limit)
            self.used += pixels
        try:
            yield
        finally:
            with self._changed:
                self.used -= pixels
                self._changed.notify_all()


class ReducedImageCache:
    """Cache of reduced images, as PNG files in a temporary folder that is removed when the process exits.

    Attributes:
        folder: Folder of the files.
        facts: Additional data of each image, by key.
        bytes: Total size of the files.
    """

    def __init__(self) -> None:
        temporary = TemporaryDirectory(prefix="hf-finetune-pictures-", ignore_cleanup_errors=True)
        atexit.register(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.facts: dict[str, Any] = {}
        self.bytes = 0

    def read(self, key: str) -> tuple[Image.Image, Any] | None:
        """Return a cached image with its additional data, or None if the cache does not have it."""
        if key not in self.facts:
            return None
        try:
            with Image.open(self.folder / f"{key}.png", formats=("PNG",)) as image:
                image.load()
        except OSError:  # something else has cleaned up the temporary folder
            return None
        return image, self.facts[key]

    def write(self, key: str, image: Image.Image, facts: Any) -> None:
        """Add an image to the cache, unless the files already exceed 2 GiB."""
        if self.bytes > _MAX_BYTES:
            return
        file = self.folder / f"{key}.png"
        try:
            image.save(file, compress_level=1)
        except OSError:  # for example a full disk; the image is then decoded again
            return
        self.bytes += file.stat().st_size
        self.facts[key] = facts


@cache
def reduced_image_cache() -> ReducedImageCache:
    """Return the cache of this process."""
    return ReducedImageCache()

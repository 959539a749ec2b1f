"""Read picture files: few large ones at a time, each decoded once in a process and reduced at once."""

import errno
import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any

from datasets import Image as ImageFeature
from PIL import Image, UnidentifiedImageError

from hf_finetune.data.formatting import shortened
from hf_finetune.data.image_formats import IMAGE_FORMATS, sniffed_conversion
from hf_finetune.data.large_images import PixelBudget, kept_pictures
from hf_finetune.data.rgb import PictureError, ValueRange, convert, reduce_to, to_rgb
from hf_finetune.files import can_be_path

__all__ = [
    "LARGE_EDGE",
    "LARGE_PIXELS",
    "NoImageError",
    "PictureError",
    "PictureFacts",
    "PictureFeature",
    "read_picture",
    "source_of",
]

LARGE_PIXELS = 2**25
"""A picture of more pixels is large: it is reduced as soon as it is read."""
LARGE_EDGE = 2048
"""Shorter edge to which a large picture is reduced, in pixels: more than any model here takes."""

_PIXELS_AT_ONCE = 2 * LARGE_PIXELS  # are decoded at a time; a picture of more is decoded alone
_HEAD = 200  # bytes by which a file of an unknown format is looked at
# Formats whose further pictures are frames or pages. Those of an icon or a phone's photo are the first in other sizes.
_OF_FRAMES = frozenset({"AVIF", "DCX", "FLI", "GIF", "PNG", "TIFF", "WEBP"})
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_TOO_MUCH_TEXT = ("Decompressed data too large", "Too much memory used in text chunks")

# The kernel takes a block of more than 32 MiB back when it is freed (M_MMAP_THRESHOLD in mallopt(3)); of Pillow's own
# 16 MiB the C library keeps what other blocks lie behind, in each thread. Smaller pictures take what they need.
Image.core.set_block_size(64 * 2**20)
# The sizes are told in a note, and catch_warnings may not be used in several threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Pillow warns of each damaged entry of EXIF, of which only the orientation is used.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")

Source = Path | bytes

_DECODING = PixelBudget(_PIXELS_AT_ONCE)


class NoImageError(ValueError):
    """A row has no image: neither bytes nor a path."""


@dataclass(frozen=True)
class PictureFacts:
    """What was done to a picture beyond what any viewer does.

    Attributes:
        values: The range of values that it was scaled from; None for 8 bits.
        has_frames: Whether it is the first of several frames or pages.
        reduced_from: Width and height of a large picture, in pixels; None for any other.
    """

    values: ValueRange | None = None
    has_frames: bool = False
    reduced_from: tuple[int, int] | None = None


class PictureFeature(ImageFeature):
    """The column type of pictures that ``read_picture`` reads."""

    def decode_example(self, value: Any, token_per_repo_id: dict[str, Any] | None = None) -> Image.Image:
        """Return the picture of an undecoded row, upright and in 8-bit RGB."""
        if isinstance(value, dict) and (value["bytes"] is not None or _is_local(value["path"])):
            return read_picture(source_of(value))[0]
        return to_rgb(super().decode_example(value, token_per_repo_id))


def source_of(image: Mapping[str, Any] | None) -> Source:
    """Return the bytes of an undecoded image, or the path of its file.

    Raises:
        NoImageError: If the row holds none.
        FileNotFoundError: If its path is a text that no file can be called.
    """
    if image is None or (image["bytes"] is None and image["path"] is None):
        raise NoImageError
    if image["bytes"] is not None:
        return image["bytes"]
    if not can_be_path(image["path"]):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), shortened(image["path"]))
    return Path(image["path"])


def read_picture(source: Source) -> tuple[Image.Image, PictureFacts]:
    """Read a picture upright and in 8-bit RGB. Of several frames or pages the first is taken.

    A large picture is decoded once in a process: what it is reduced to is kept in a temporary folder.

    Args:
        source: A file, or its bytes.

    Raises:
        OSError: If the file cannot be read, or is damaged.
        PictureError: If it is empty, of another format, larger than Pillow's limit, or as ``to_rgb`` does.
        Exception: Whatever Pillow's decoders raise for a damaged file.
    """
    try:
        return _read(source)
    except ValueError as error:
        if not str(error).startswith(_TOO_MUCH_TEXT):
            raise
        return _read(_without_text(source if isinstance(source, bytes) else source.read_bytes()))


def _read(source: Source) -> tuple[Image.Image, PictureFacts]:
    with _open(source) as opened:
        width, height = opened.size
        if width * height <= LARGE_PIXELS:
            with _DECODING.of(width * height):
                image, values = convert(opened)
                return image, PictureFacts(values, _has_frames(opened))
        key = _key(source)
        return kept_pictures().read(key) or _read_large(opened, key)


def _read_large(opened: Image.Image, key: str) -> tuple[Image.Image, PictureFacts]:
    width, height = opened.size
    with _DECODING.of(width * height):
        stored_picture = kept_pictures().read(key)  # another thread may have read it meanwhile
        if stored_picture is not None:
            return stored_picture
        scale = LARGE_EDGE / min(width, height)
        opened.draft(
            None, (ceil(width * scale), ceil(height * scale))
        )  # a JPEG is decoded at a fraction of its size
        reduced, values = convert(opened, max(1, min(opened.size) // (2 * LARGE_EDGE)))
        image = reduce_to(reduced, LARGE_EDGE)
        facts = PictureFacts(values, _has_frames(opened), (width, height))
        kept_pictures().write(key, image, facts)
        return image, facts


def _has_frames(opened: Image.Image) -> bool:
    return opened.format in _OF_FRAMES and bool(getattr(opened, "is_animated", False))


@contextmanager
def _open(source: Source) -> Iterator[Image.Image]:
    """Read the head of a file.

    Raises:
        PictureError: If it is no picture that can be read.
    """
    try:
        with Image.open(
            BytesIO(source) if isinstance(source, bytes) else source, formats=IMAGE_FORMATS
        ) as opened:
            yield opened
    except Image.DecompressionBombError as error:
        raise PictureError(_too_many_pixels(error)) from error
    except UnidentifiedImageError as error:
        raise PictureError(_unknown_format(source)) from error


def _too_many_pixels(error: Image.DecompressionBombError) -> str:
    """Put Pillow's message, which begins with 'Image size (200000000 pixels)', into other words."""
    pixels = int(next(word for word in str(error).replace("(", "").split() if word.isdigit()))
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    return (
        f"a picture of {pixels / 1e6:,.0f} megapixels, where at most {most / 1e6:,.0f} are read. "
        "Cut it into tiles or reduce it first, for example with `vips thumbnail FILE small.png 4096`"
    )


def _unknown_format(source: Source) -> str:
    if isinstance(source, bytes):
        head = source[:_HEAD]
    else:
        with source.open("rb") as file:
            head = file.read(_HEAD)
    if not head:
        return "an empty file"
    known = sniffed_conversion(head)
    if known is None:
        return "a file of no known image format"
    name, repair = known
    return f"a file in the format {name}. {repair.removesuffix('.')}"


def _without_text(data: bytes) -> bytes:
    """Leave the text out of a PNG file. Pillow 12 refuses a file with more than 1 MiB of it in a chunk.

    Source: PNG specification, third edition, section 5.3: length, type, data and checksum of a chunk.
    """
    parts, position = [data[:8]], 8
    while position + 8 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] not in _TEXT_CHUNKS:
            parts.append(data[position:end])
        position = end
    return b"".join(parts)


def _is_local(path: str | None) -> bool:
    return path is not None and "://" not in path


def _key(source: Source) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    stat = source.stat()
    return hashlib.sha256(f"{source.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()

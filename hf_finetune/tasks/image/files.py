"""Reader of image files. Large images are decoded few at a time, once per process, and reduced immediately."""

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

from PIL import Image, UnidentifiedImageError

from hf_finetune.errors import truncate
from hf_finetune.files import is_valid_path
from hf_finetune.tasks.image.formats import IMAGE_FORMATS, sniffed_conversion
from hf_finetune.tasks.image.large_images import PixelBudget, reduced_image_cache
from hf_finetune.tasks.image.rgb import ImageError, ValueRange, convert, reduce_to

__all__ = [
    "LARGE_EDGE",
    "LARGE_PIXELS",
    "ImageError",
    "ImageFacts",
    "NoImageError",
    "read_image",
    "source_of",
]

LARGE_PIXELS = 2**25
"""Number of pixels above which an image is large: it is reduced as soon as it is read."""
LARGE_EDGE = 2048
"""Shorter edge to which a large image is reduced, in pixels: more than the input size of any supported model."""

_PIXELS_AT_ONCE = 2 * LARGE_PIXELS  # limit of pixels decoded concurrently; a larger image is decoded alone
_HEAD = 200  # bytes read to recognize a file of an unknown format
# Formats in which further images are frames or pages. In icons and phone photos they are other sizes of the first.
_OF_FRAMES = frozenset({"AVIF", "DCX", "FLI", "GIF", "PNG", "TIFF", "WEBP"})
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_TOO_MUCH_TEXT = ("Decompressed data too large", "Too much memory used in text chunks")

# A freed block of more than 32 MiB is returned to the kernel (M_MMAP_THRESHOLD in mallopt(3)). Pillow's default blocks
# have 16 MiB, and the C library retains in each thread those that are followed by other blocks. Smaller images use
# smaller blocks.
Image.core.set_block_size(64 * 2**20)
# Large sizes are reported in a note instead, and catch_warnings is not thread-safe.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Pillow warns of each damaged EXIF entry, but only the orientation is used.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")

Source = Path | bytes

_PIXEL_BUDGET = PixelBudget(_PIXELS_AT_ONCE)


class NoImageError(ValueError):
    """Error raised if a row has no image: neither bytes nor a path."""


@dataclass(frozen=True)
class ImageFacts:
    """Facts about reading an image that the user should know.

    Attributes:
        values: Range of values from which the image was scaled; None for 8-bit images.
        has_frames: Whether the image is the first of several frames or pages.
        reduced_from: Original width and height of a large image, in pixels; None if it was not reduced.
    """

    values: ValueRange | None = None
    has_frames: bool = False
    reduced_from: tuple[int, int] | None = None


def source_of(image: Mapping[str, Any] | None) -> Source:
    """Return the bytes of an undecoded image, or the path of its file.

    Raises:
        NoImageError: If the row has no image.
        FileNotFoundError: If its path is not a valid path.
    """
    if image is None or (image["bytes"] is None and image["path"] is None):
        raise NoImageError
    if image["bytes"] is not None:
        return image["bytes"]
    if not is_valid_path(image["path"]):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), truncate(image["path"]))
    return Path(image["path"])


def read_image(source: Source) -> tuple[Image.Image, ImageFacts]:
    """Read the first frame or page of an image, upright and in 8-bit RGB.

    A large image is decoded once per process; the reduced image is cached in a temporary folder.

    Args:
        source: Image file, or its bytes.

    Returns:
        The image, and facts about its conversion.

    Raises:
        OSError: If the file cannot be read, or is damaged.
        ImageError: If the file is empty, of an unknown format, or larger than Pillow's limit, or if ``to_rgb`` fails.
        Exception: Any exception that Pillow's decoders raise for a damaged file.
    """
    try:
        return _read(source)
    except ValueError as error:
        if not str(error).startswith(_TOO_MUCH_TEXT):
            raise
        return _read(_without_text(source if isinstance(source, bytes) else source.read_bytes()))


def _read(source: Source) -> tuple[Image.Image, ImageFacts]:
    with _open(source) as opened:
        width, height = opened.size
        if width * height <= LARGE_PIXELS:
            with _PIXEL_BUDGET.reserve(width * height):
                image, values = convert(opened)
                return image, ImageFacts(values, _has_frames(opened))
        key = _key(source)
        return reduced_image_cache().read(key) or _read_large(opened, key)


def _read_large(opened: Image.Image, key: str) -> tuple[Image.Image, ImageFacts]:
    width, height = opened.size
    with _PIXEL_BUDGET.reserve(width * height):
        cached_image = reduced_image_cache().read(key)  # another thread may have read it in the meantime
        if cached_image is not None:
            return cached_image
        scale = LARGE_EDGE / min(width, height)
        opened.draft(None, (ceil(width * scale), ceil(height * scale)))  # decodes a JPEG at reduced scale
        reduced, values = convert(opened, max(1, min(opened.size) // (2 * LARGE_EDGE)))
        image = reduce_to(reduced, LARGE_EDGE)
        facts = ImageFacts(values, _has_frames(opened), (width, height))
        reduced_image_cache().write(key, image, facts)
        return image, facts


def _has_frames(opened: Image.Image) -> bool:
    return opened.format in _OF_FRAMES and bool(getattr(opened, "is_animated", False))


@contextmanager
def _open(source: Source) -> Iterator[Image.Image]:
    """Open an image lazily: only its header is read.

    Raises:
        ImageError: If the file is not an image in a supported format, or has too many pixels.
    """
    try:
        with Image.open(
            BytesIO(source) if isinstance(source, bytes) else source, formats=IMAGE_FORMATS
        ) as opened:
            yield opened
    except Image.DecompressionBombError as error:
        raise ImageError(_too_many_pixels(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError(_unknown_format(source)) from error


def _too_many_pixels(error: Image.DecompressionBombError) -> str:
    """Rephrase Pillow's message, which begins with 'Image size (200000000 pixels)', and add advice."""
    pixels = int(next(word for word in str(error).replace("(", "").split() if word.isdigit()))
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    return (
        f"an image of {pixels / 1e6:,.0f} megapixels; at most {limit / 1e6:,.0f} megapixels are supported. "
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
        return "a file in an unknown format"
    name, repair = known
    return f"a file in the unsupported format {name}. {repair.removesuffix('.')}"


def _without_text(data: bytes) -> bytes:
    """Remove the text chunks of a PNG file. Pillow 12 rejects files with more than 1 MiB of text in a chunk.

    Source: PNG specification, third edition, section 5.3: length, type, data and checksum of a chunk.
    """
    parts, position = [data[:8]], 8
    while position + 8 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] not in _TEXT_CHUNKS:
            parts.append(data[position:end])
        position = end
    return b"".join(parts)


def _key(source: Source) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    stat = source.stat()
    return hashlib.sha256(f"{source.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()

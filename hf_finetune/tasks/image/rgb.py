"""Conversion of images of any mode to 8-bit RGB: upright, on a white background, and no larger than needed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from hf_finetune.tasks.examples import ExampleError

__all__ = ["ImageError", "ValueRange", "convert", "reduce_to", "shrink", "to_rgb"]

_MUCH_LARGER = 1.5  # multiple of the target edge; below it, shrinking saves little and only blurs
_STRIP_PIXELS = 2**21  # converted at a time, to limit the memory for copies of the image
# Minimum number of the 256 gray levels that an image must use; otherwise it is scaled from its own minimum and maximum.
_MIN_GRAY_LEVELS = 16
_SLACK = 0.1  # fraction of a float range by which values may exceed it, as interpolation overshoots

_FRACTIONS = ((0.0, 1.0), (-1.0, 1.0))
_INTEGERS = (
    (0, 255, "8 bits"),
    (0, 1023, "10 bits"),
    (0, 4095, "12 bits"),
    (0, 16383, "14 bits"),
    (0, 65535, "16 bits"),
    (-1024, 3071, "Hounsfield units of a CT"),
    (-4096, 4095, "13 bits, signed"),
    (-32768, 32767, "16 bits, signed"),
)
_WHITE_IS_ZERO = 0  # value of the TIFF tag PhotometricInterpretation
_PHOTOMETRIC = 262
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that makes an image upright, by its EXIF orientation."""
_METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
"""Keys of ``Image.info`` in which Pillow looks for an orientation."""


class ImageError(ExampleError):
    """Raised for a file that is not a usable image; the message describes the file and a fix."""


@dataclass(frozen=True)
class ValueRange:
    """Range of pixel values that is scaled linearly to 0..255; values outside it are clipped.

    Attributes:
        low: Value that becomes 0 (black).
        high: Value that becomes 255 (white).
        name: Description of the range.
        inverted: Whether black and white are swapped.
        has_nan: Whether the image contains nan, which is replaced by ``low``.
    """

    low: float
    high: float
    name: str
    inverted: bool = False
    has_nan: bool = False

    def to_gray(self, image: Image.Image) -> Image.Image:
        """Return the image in mode L, with its values scaled and rounded."""
        values = np.asarray(image).astype(np.float64)
        values = np.nan_to_num(values, copy=False, nan=self.low, posinf=self.high, neginf=self.low)
        values = (values.clip(self.low, self.high) - self.low) * (255 / (self.high - self.low))
        return Image.fromarray((255 - values if self.inverted else values).round().astype(np.uint8))


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode in 8-bit RGB, upright, with transparent areas on white.

    An image that needs no conversion is returned unchanged.

    Args:
        image: Image of any PIL mode: RGB(A), grayscale with or without alpha, palette, bilevel, CMYK, LAB, and
            grayscale of more than 8 bits or floats, which is scaled as described at ``convert``.

    Raises:
        ImageError: If no value is a number, or if 16-bit colors use only the low bits, which Pillow cuts off.
    """
    return convert(image)[0]


def convert(image: Image.Image, factor: int = 1) -> tuple[Image.Image, ValueRange | None]:
    """Convert an image as ``to_rgb`` does, and return the range that its values were scaled from.

    Grayscale of more than 8 bits and floats are scaled from the narrowest common range that contains all values of the
    image: 0..1 and -1..1 (exceeded by at most a tenth) for floats; 8, 10, 12, 14 and 16 bits; -1024..3071, -4096..4095
    and -32768..32767 for values below zero. An image that fills less than a sixteenth of that range, or fits into none,
    is scaled from its minimum to its maximum.

    Args:
        image: Image of any PIL mode.
        factor: Number of pixels along each edge that are averaged to one.

    Returns:
        The image in RGB, and the range; the range is None for 8-bit images.

    Raises:
        ImageError: In the cases of ``to_rgb``.
    """
    high_bytes_only = _has_colors_of_16_bits(image)
    image.load()
    if high_bytes_only and max(high for _, high in image.getextrema()[:3]) < _MIN_GRAY_LEVELS:  # type: ignore[misc]
        raise ImageError(
            "a 16-bit color image that uses only the lower 12 bits: Pillow keeps the upper 8 bits, which are all 0. "
            "Save it with 8 bits, scaled from 0..4095"
        )
    values = _value_range(image) if image.mode == "F" or image.mode.startswith("I") else None
    if values is None and factor == 1 and image.mode == "RGB" and not image.has_transparency_data:
        return _upright(image, image), None
    result = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for top, strip in _strips(image, factor):
        converted = values.to_gray(strip).convert("RGB") if values is not None else _to_rgb(strip)
        result.paste(converted.reduce(factor) if factor > 1 else converted, (0, top // factor))
    return _upright(image, result), values


def _value_range(image: Image.Image) -> ValueRange:
    low, high, has_nan = _extent(image)
    inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    named = _common_range(low, high, image.mode == "F")
    if named is None:
        named = (low, max(high, low + 1), "its own lowest to its highest value")
    return ValueRange(*named, inverted, has_nan)


def _common_range(low: float, high: float, fractions: bool) -> tuple[float, float, str] | None:
    candidates = [(lowest, highest, f"{lowest:g}..{highest:g}", _SLACK) for lowest, highest in _FRACTIONS]
    candidates = candidates if fractions else []
    candidates += [
        (lowest, highest, f"{lowest}..{highest} ({name})", 0.0) for lowest, highest, name in _INTEGERS
    ]
    for lowest, highest, name, slack in candidates:
        tolerance = slack * (highest - lowest)
        contains_values = lowest - tolerance <= low and high <= highest + tolerance
        has_needed_sign = low < 0 or lowest == 0
        if contains_values and has_needed_sign:
            gray_levels = (high - low) * 256 / (highest - lowest)
            return (lowest, highest, name) if high == low or gray_levels >= _MIN_GRAY_LEVELS else None
    return None


def _extent(image: Image.Image) -> tuple[float, float, bool]:
    """Return the lowest and the highest finite value, and whether any value is nan."""
    lows, highs, has_nan = [], [], False
    for _, strip in _strips(image):
        values = np.asarray(strip)
        if image.mode == "F":
            has_nan = has_nan or bool(np.isnan(values).any())
            values = values[np.isfinite(values)]
        if values.size:
            lows.append(float(values.min()))
            highs.append(float(values.max()))
    if not lows:
        raise ImageError("an image that contains only NaN values. Save it again from its source")
    return min(lows), max(highs), has_nan


def _has_colors_of_16_bits(image: Image.Image) -> bool:
    """Return whether a file that is not loaded yet has 16-bit colors, of which Pillow keeps the high 8 bits."""
    tiles = getattr(image, "tile", [])
    return image.mode in ("RGB", "RGBA", "RGBX", "CMYK") and any(";16" in str(tile[3]) for tile in tiles)


def _strips(image: Image.Image, factor: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """Yield strips of about ``_STRIP_PIXELS`` pixels, each with its first row, which is a multiple of ``factor``."""
    rows = max(1, _STRIP_PIXELS // image.width // factor) * factor
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert an 8-bit image to RGB."""
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return converted if converted is not None else image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _upright(source: Image.Image, image: Image.Image) -> Image.Image:
    """Rotate or flip an image by the EXIF orientation of the image that it was converted from.

    Source: ``PIL.ImageOps.exif_transpose``, which also rewrites the metadata, and fails if that is damaged.
    """
    method = _TURNS.get(_orientation(source))
    if method is None:
        return image
    turned = image.transpose(method)
    for key in _METADATA:  # else a second conversion would turn the image again
        turned.info.pop(key, None)
    return turned


def _orientation(image: Image.Image) -> Any:
    """Return the EXIF orientation of an image; 1 (upright) if it is missing or damaged."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's EXIF parser raises errors of any type, although the pixels are intact
        return 1


def shrink(image: Image.Image, edge: int | None) -> Image.Image:
    """Return an image that is reduced if it is much larger than needed. Shrinking the result again has no effect.

    Args:
        image: Image in RGB.
        edge: Length in pixels of the reduced image's shorter edge; None returns every image unchanged.
    """
    return image if edge is None or min(image.size) <= edge * _MUCH_LARGER else reduce_to(image, edge)


def reduce_to(image: Image.Image, edge: int) -> Image.Image:
    """Return an RGB image whose shorter edge is at most ``edge`` pixels long, resized if necessary."""
    shorter = min(image.size)
    if shorter <= edge:
        return image
    width, height = (round(length * edge / shorter) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)

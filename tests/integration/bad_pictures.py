"""Bad inputs: images that cannot be read, or that would be read wrongly."""

import struct
import zlib
from pathlib import Path

import numpy as np
from bad_input_case import Case
from PIL import Image

__all__ = ["CASES"]

REPAIR = "Replace or remove it, or set data.on_error: skip."


def png(width: int, height: int, bits: int, color: int, rows: bytes) -> bytes:
    """Write a PNG file of any kind, in chunks as in its specification."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def class_of(suffix: str):
    """Change the file extension of a class."""

    def prepare(folder: Path) -> None:
        for file in (folder / "photos" / "cake").iterdir():
            file.rename(file.with_suffix(suffix))

    return prepare


def picture(data: bytes):
    """Replace an image."""
    return lambda folder: (folder / "photos" / "cake" / "0.png").write_bytes(data)


def array(values: np.ndarray):
    """Replace an image by a TIFF file of these values."""
    return lambda folder: Image.fromarray(values).save(folder / "photos" / "cake" / "0.png", "TIFF")


def add_file_to_predict(name: str):
    """Add a file that is no image to a folder to predict."""
    return lambda folder: (folder / "photos" / "soup" / name).write_text("<svg xmlns='x'/>")


CASES = [
    Case(
        "a class folder with images in an unsupported format",
        "run recipe.yaml",
        "Problem:\n"
        "  cake must contain images in supported formats. Got '0.svg', '1.svg', '2.svg', '3.svg', '4.svg', "
        "'5.svg'. Render these files as PNG, for example with `rsvg-convert -w 512 FILE.svg -o FILE.png`.",
        class_of(".svg"),
    ),
    Case(
        "an image of 1,200 megapixels",
        "run recipe.yaml",
        "Problem:\n"
        "  cake/0.png must contain a readable image. Got an image of 1,200 megapixels; at most 179 megapixels "
        "are supported. "
        f"Cut it into tiles or reduce it first, for example with `vips thumbnail FILE small.png 4096`. {REPAIR}",
        picture(png(40_000, 30_000, 8, 0, b"")),
    ),
    Case(
        "a PDF document with an image suffix",
        "run recipe.yaml",
        "Problem:\n"
        "  cake/0.png must contain a readable image. Got a file in the unsupported format pdf. Render these "
        "files as PNG, for example with "
        f"`pdftoppm -png FILE` or Ghostscript. {REPAIR}",
        picture(b"%PDF-1.7\n"),
    ),
    Case(
        "12-bit colors in a 16-bit PNG",
        "run recipe.yaml",
        "Problem:\n"
        "  cake/0.png must contain a readable image. Got a 16-bit color image that uses only the lower 12 "
        "bits: Pillow keeps the upper 8 bits, which are all 0. Save it with 8 bits, scaled from 0..4095. "
        f"{REPAIR}",
        picture(png(8, 8, 16, 2, (b"\0" + b"\x0f\xff" * 24) * 8)),
    ),
    Case(
        "a TIFF image with only NaN values",
        "run recipe.yaml",
        "Problem:\n"
        "  cake/0.png must contain a readable image. Got an image that contains only NaN values. Save it again "
        "from its "
        f"source. {REPAIR}",
        array(np.full((8, 8), np.nan, np.float32)),
    ),
    Case(
        "prediction for a folder with an image in an unsupported format",
        "predict run photos/soup",
        "1 input could not be read; the output contains the errors:\n"
        "  photos/soup/9.svg: The image cannot be read. It is a file in the unsupported format svg. Render "
        "these files as PNG, for "
        "example with `rsvg-convert -w 512 FILE.svg -o FILE.png`.",
        add_file_to_predict("9.svg"),
    ),
]

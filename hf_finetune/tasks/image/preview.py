"""Images for the user: thumbnails in HTML pages, and the contact sheet of augmented images."""

import base64
import io
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

from hf_finetune.tasks.examples import PreviewRow
from hf_finetune.tasks.image.rgb import to_rgb

__all__ = ["contact_sheet", "thumbnail", "to_image"]

CELL = 160
"""Edge of an image on the contact sheet, in pixels."""
GAP = 8
"""Space between images, in pixels."""
LINE = 18
"""Height of a line of text, in pixels."""
EDGE = 200
"""Longer edge of a thumbnail, in pixels."""
MAX_LABEL_CHARACTERS = 22
"""Maximum number of characters of a label on the contact sheet."""


def to_image(pixels: torch.Tensor) -> Image.Image:
    """Return a model input [3, height, width] as an image; normalized values are rescaled to the range 0 to 255."""
    if pixels.dtype != torch.uint8:
        low, high = pixels.amin(), pixels.amax()
        pixels = ((pixels - low) / (high - low).clamp_min(1e-6) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def contact_sheet(rows: Sequence[PreviewRow]) -> Image.Image:
    """Draw a row for each example: the original with its label, then its views. Columns have a title.

    Args:
        rows: Examples whose originals and views are RGB images.
    """
    font = ImageFont.load_default(13)
    columns = 1 + max((len(row.views) for row in rows), default=0)
    height = CELL + LINE + GAP
    sheet = Image.new("RGB", (GAP + columns * (CELL + GAP), GAP + LINE + len(rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    titles = ["original", *(f"epoch {number}" for number in range(1, columns))]
    for column, title in enumerate(titles):
        draw.text((GAP + column * (CELL + GAP), GAP), title, fill="black", font=font)
    for number, row in enumerate(rows):
        top = GAP + LINE + number * height
        label = (
            row.label
            if len(row.label) <= MAX_LABEL_CHARACTERS
            else f"{row.label[: MAX_LABEL_CHARACTERS - 1]}…"
        )
        draw.text((GAP, top + CELL), label, fill="black", font=font)
        for column, image in enumerate([row.original, *row.views]):
            small = image.copy()
            small.thumbnail((CELL, CELL))
            left = GAP + column * (CELL + GAP)
            sheet.paste(small, (left, top))
            # without an outline the edge of a white image would not be visible
            draw.rectangle((left - 1, top - 1, left + small.width, top + small.height), outline="lightgrey")
    return sheet


def thumbnail(image: Image.Image) -> str:
    """Return a small version of an image as the data URI of a JPEG file."""
    small = to_rgb(image)
    small.thumbnail((EDGE, EDGE))
    written = io.BytesIO()
    small.save(written, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode("ascii")

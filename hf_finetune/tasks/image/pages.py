"""Images in HTML pages."""

import base64
import io

from PIL import Image

from hf_finetune.tasks.image.rgb import to_rgb

__all__ = ["thumbnail"]

EDGE = 200
"""Longer edge of a thumbnail, in pixels."""


def thumbnail(image: Image.Image) -> str:
    """Return a small version of an image as the data URI of a JPEG file."""
    small = to_rgb(image)
    small.thumbnail((EDGE, EDGE))
    written = io.BytesIO()
    small.save(written, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode("ascii")

"""Fields of the page for an image."""

from typing import Any

import gradio as gr
from PIL import Image, ImageOps


def components(settings: dict[str, Any]) -> list[Any]:
    """Return the fields of the page."""
    return [gr.Image(type="pil", image_mode=None, label="Picture")]


def model_input(settings: dict[str, Any], image: Image.Image | None) -> tuple[Any, dict[str, Any]]:
    """Return the image as it was shown in training, upright and on white where it is transparent, and no options."""
    if image is None:
        raise gr.Error("There is no image.")
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        raise gr.Error("This picture has more than 8 bits. Save it as 8 bits, scaled as in training.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB"), {}

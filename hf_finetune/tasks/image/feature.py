"""Column type of images."""

from typing import Any

from datasets import Image as ImageFeature
from PIL import Image

from hf_finetune.tasks.image.files import read_image, source_of
from hf_finetune.tasks.image.rgb import to_rgb

__all__ = ["RgbImageFeature"]


class RgbImageFeature(ImageFeature):
    """Column type of images that are decoded by ``read_image``."""

    def decode_example(self, value: Any, token_per_repo_id: dict[str, Any] | None = None) -> Image.Image:
        """Decode a stored image, upright and in 8-bit RGB."""
        if isinstance(value, dict) and (value["bytes"] is not None or _is_local(value["path"])):
            return read_image(source_of(value))[0]
        return to_rgb(super().decode_example(value, token_per_repo_id))


def _is_local(path: str | None) -> bool:
    return path is not None and "://" not in path

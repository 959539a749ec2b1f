"""Detection of images that cannot be read."""

from typing import Any

from hf_finetune.data.image_files import NoImageError, PictureError, PictureFacts, read_picture, source_of
from hf_finetune.data.image_notes import PictureNotes
from hf_finetune.data.tables import Table, map_images

__all__ = ["check_pictures"]


def check_pictures(table: Table, notes: PictureNotes) -> list[str | None]:
    """Decode each image once, as in training.

    Args:
        table: Table of images.
        notes: Collector of conversions and other facts about the readable images.

    Returns:
        Reason why the image cannot be read, or None if it can, for each row.
    """
    faults: list[str | None] = []
    for name, (fault, facts) in zip(table.ids, map_images(table.dataset, _inspect), strict=True):
        faults.append(fault)
        if facts is not None:
            notes.add(name, facts)
    return faults


def _inspect(image: dict[str, Any] | None) -> tuple[str | None, PictureFacts | None]:
    try:
        return None, read_picture(source_of(image))[1]
    except FileNotFoundError:
        return "no such file", None
    except NoImageError:
        return "no image in this row", None
    except PictureError as error:
        return str(error), None
    except (
        Exception
    ) as error:  # damaged files raise anything from struct.error to SyntaxError in Pillow's readers
        return f"a damaged file ({type(error).__name__}: {error})", None

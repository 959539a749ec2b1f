"""Image columns of tables: resolution of paths to files, and detection of images that no row lists."""

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset, Features, Image, Value

from hf_finetune.data.formatting import quoted, shortened
from hf_finetune.data.image_files import PictureFeature
from hf_finetune.data.image_formats import PICTURE_SUFFIXES
from hf_finetune.data.image_paths import (
    PictureFinder,
    check_paths,
    files_below,
    is_file,
)
from hf_finetune.errors import InputError, Problem
from hf_finetune.files import can_be_path

__all__ = ["as_images", "holds_paths", "note_unlisted"]

_PLACE = "data.columns.image"


def holds_paths(dataset: Dataset, column: str) -> bool:
    """Return whether an image column holds file paths as strings."""
    feature = dataset.features[column]
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def as_images(
    dataset: Dataset, root: Path | None, split: str | None = None
) -> tuple[Dataset, list[str | None], list[str]]:
    """Convert the column ``image`` to images.

    Args:
        dataset: Dataset whose column holds images, their bytes, or paths.
        root: Folder to which relative paths refer. None for data from the Hub.
        split: Name of the split, used to resolve ambiguous paths.

    Returns:
        The dataset; the image file of each row as a path relative to the root, None for an embedded image or for a text
        that is no valid path; and notes.

    Raises:
        InputError: If paths are URLs or base64, match several files, or none of them exists; or if data from the Hub
            holds paths instead of images.
    """
    notes: list[str] = []
    if isinstance(dataset.features["image"], Image):
        column = dataset.with_format("arrow")[:]["image"]
        embedded = pc.is_valid(pc.struct_field(column, "bytes"))
        paths = pc.if_else(embedded, None, pc.struct_field(column, "path")).to_pylist()
        if root is not None:
            paths = [None if path is None else str(root / path) for path in paths]
    elif holds_paths(dataset, "image"):
        paths = dataset["image"][:]
        check_paths(paths, _PLACE)
        if root is None:
            rule = "must hold images themselves, not paths, in data from the Hub"
            raise InputError(
                Problem(_PLACE, rule, quoted(shortened(path) for path in paths[:1] if path is not None))
            )
        paths, notes = _find_files(paths, root, split)
        dataset = Dataset.from_dict({"image": paths}, features=Features({"image": Value("string")}))
    else:
        paths = []
    dataset = dataset.cast_column("image", PictureFeature())
    if root is None or all(path is None for path in paths):
        return dataset, [None] * len(dataset), notes
    names = [
        Path(os.path.relpath(path, root)).as_posix() if path is not None and can_be_path(path) else None
        for path in paths
    ]
    return dataset, names, notes


def _find_files(paths: list[str | None], root: Path, split: str | None) -> tuple[list[str | None], list[str]]:
    finder = PictureFinder(root, PICTURE_SUFFIXES, split)
    resolved_paths = [None if path is None or not path.strip() else finder.find(path) for path in paths]
    finder.raise_problems()
    files = [path for path in resolved_paths if path is not None]
    if len(files) > 1 and not any(map(is_file, files)):
        rule, shown = (
            "must hold the paths of pictures",
            quoted(shortened(path) for path in paths if path is not None),
        )
        repair = f"There are no such files, from {str(root)!r}. Paths start from the folder of the table."
        raise InputError(Problem(_PLACE, rule, shown, repair))
    return [None if path is None else str(path) for path in resolved_paths], finder.notes()


def note_unlisted(ids: Iterable[str], root: Path, everything: bool) -> list[str]:
    """Return a note on image files that no row of the tables lists.

    Args:
        ids: Files listed in rows, as paths relative to the root.
        root: Folder of the tables.
        everything: Whether to search all folders below the root, or only those that contain listed files.

    Returns:
        List with one note; empty if all image files are listed.
    """

    def is_picture(path: Path) -> bool:
        return path.suffix.lower() in PICTURE_SUFFIXES

    listed = {os.path.normpath(root / name) for name in ids}
    if everything:
        there = [str(path) for path in files_below(root, is_picture)]
    else:
        folders = sorted({Path(name).parent for name in listed})
        there = [
            str(path)
            for folder in folders
            if folder.is_dir()
            for path in sorted(folder.iterdir())
            if is_picture(path) and not path.name.startswith(".")
        ]
    unlisted = [Path(os.path.relpath(path, root)).as_posix() for path in there if path not in listed]
    if not unlisted:
        return []
    return [f"Pictures that no row lists were not read, {len(unlisted)} of {len(there)}: {quoted(unlisted)}."]

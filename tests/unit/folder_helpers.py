"""Data in folders for tests: written, and its labels read."""

import os
from pathlib import Path

import datasets
import pytest

from hf_finetune.data.load import load_source
from hf_finetune.errors import InputError
from hf_finetune.tasks import MODALITIES

__all__ = ["PICTURE", "images", "labels_of", "link", "refusal", "texts", "touch", "write"]

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f61738"
    "550000000049454e44ae426082"
)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(PICTURE if file.suffix != ".txt" else f"text of {name}\n".encode())
    return root


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def labels_of(source):
    """Return the label of each file of each split, by its path from the root."""
    found = {}
    for split, dataset in source.splits.items():
        if "image" in dataset.column_names:
            paths = [
                image["path"]
                for image in dataset.cast_column("image", datasets.Image(decode=False))["image"][:]
            ]
            names = [Path(os.path.relpath(path, source.root)).as_posix() for path in paths]
        else:
            names = list(source.files[split])
        labels = dataset["label"][:]
        if isinstance(dataset.features["label"], datasets.ClassLabel):
            classes = dataset.features["label"].names
            labels = [classes[label] for label in labels]
        found |= {(split, name): label for name, label in zip(names, labels, strict=True)}
    return found


def images(path, **options):
    return load_source(str(path), modality=MODALITIES["image"], **options)


def texts(path, **options):
    return load_source(str(path), modality=MODALITIES["text"], **options)


def refusal(path, modality="image", **options):
    with pytest.raises(InputError) as error:
        load_source(str(path), modality=MODALITIES[modality], **options)
    return str(error.value)

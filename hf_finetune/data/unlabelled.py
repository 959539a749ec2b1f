"""Inputs without labels, in any form that labelled data has, or a folder of images."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets import Dataset

from hf_finetune.data.checks import drop_unusable
from hf_finetune.data.column_types import guess_features
from hf_finetune.data.columns import find_inputs
from hf_finetune.data.image_formats import PICTURE_SUFFIXES, unreadable_problems
from hf_finetune.data.load import Source, load_source
from hf_finetune.data.locate import SPLITS, Modality
from hf_finetune.data.split import choose_subset
from hf_finetune.data.table_options import NO_OPTIONS, TableOptions, table_format
from hf_finetune.data.tables import hash_rows, read_table
from hf_finetune.errors import InputError, Problem

__all__ = ["UnlabelledData", "load_unlabelled"]


@dataclass(frozen=True)
class UnlabelledData:
    """Inputs to adapt a model to.

    Attributes:
        dataset: Columns ``id``, and ``image`` or ``text`` and perhaps ``text_pair``.
        notes: What was inferred and left out, a sentence each.
        fingerprint: SHA-256 over the contents; the same for the same inputs anywhere.
    """

    dataset: Dataset
    notes: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.dataset)


def load_unlabelled(
    path: str,
    *,
    modality: Modality,
    columns: Mapping[str, str | None],
    place: str,
    on_error: Literal["fail", "skip"] = "fail",
    limit: int | None = None,
    seed: int = 0,
    options: TableOptions = NO_OPTIONS,
) -> UnlabelledData:
    """Load inputs and check them. Of data with splits the train split is taken, else the first there is.

    Args:
        path: What labelled data may be, or a folder of images.
        modality: What an example is.
        columns: Column names by what they hold: image, text, text_pair. Others are inferred, or not read.
        place: Where in the recipe the path is, for what is wrong with it.
        on_error: Whether examples that cannot be used are reported or left out.
        limit: Number of examples to keep. None keeps all.
        seed: Chooses what is kept of limited data.
        options: How text files are to be read where that is not recognized.

    Raises:
        InputError: If the data cannot be used.
    """
    with _told_at(place):
        source = _folder_of_images(path) if modality == "image" else None
        source = source or load_source(path, modality=modality, labelled=False, options=options)
        split = next(name for name in SPLITS if name in source.splits)
        dataset = source.splits[split]
        if len(dataset) == 0:
            raise InputError(Problem("data.path", "must hold at least one example"))
        used = find_inputs(guess_features({split: dataset}, source.of_text), modality, columns)
        table = hash_rows(read_table(dataset, used, split, source.root, source.files.get(split)))
        tables, notes, problems = drop_unusable({split: table}, on_error == "skip")
        if problems:
            raise InputError(problems)
    table = tables[split]
    if limit is not None and limit < len(table):
        table = table.take(choose_subset(None, len(table), limit, seed))
    if len(source.splits) > 1:
        notes.append(f"Its {split} split is taken.")
    digest = hashlib.sha256(json.dumps(list(table.contents)).encode()).hexdigest()
    return UnlabelledData(table.dataset, tuple(f"{place}: {note}" for note in notes), digest)


def _folder_of_images(path: str) -> Source | None:
    """Read a folder whose entries are images; None if it is none.

    Raises:
        InputError: If some of them have to be converted first.
    """
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        return None
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if any(entry.is_dir() or table_format(entry) for entry in entries):
        return None
    if problems := unreadable_problems("data.path", entries):
        raise InputError(problems)
    files = [entry for entry in entries if entry.suffix.lower() in PICTURE_SUFFIXES]
    if not files:
        return None
    return Source({"train": Dataset.from_dict({"image": [str(file) for file in files]})}, folder, ())


@contextmanager
def _told_at(place: str) -> Iterator[None]:
    """Say of each problem that it is one of this place, and not of the labelled data."""
    try:
        yield
    except InputError as error:
        raise InputError(
            Problem(
                place if each.place == "data.path" else f"{place}, {each.place}",
                *(each.rule, each.value, each.repair),
            )
            for each in error.problems
        ) from error

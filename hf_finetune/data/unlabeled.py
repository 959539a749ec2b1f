"""Loading of unlabeled inputs, from any layout of labeled data or a plain folder of images."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from datasets import Dataset

from hf_finetune.data.checks import check_readable
from hf_finetune.data.column_types import guess_features
from hf_finetune.data.columns import find_inputs
from hf_finetune.data.load import Source, load_source
from hf_finetune.data.split import choose_subset
from hf_finetune.data.split_names import SPLITS
from hf_finetune.data.table_options import NO_OPTIONS, TableOptions, table_format
from hf_finetune.data.tables import hash_rows, read_table
from hf_finetune.errors import InputError, Problem
from hf_finetune.tasks import Modality

__all__ = ["UnlabeledData", "load_unlabeled"]


@dataclass(frozen=True)
class UnlabeledData:
    """Unlabeled inputs of the domain that a model is adapted to.

    Attributes:
        dataset: Columns ``id``, and those of the modality.
        notes: Messages to the user on what was inferred and skipped, one sentence each.
        fingerprint: SHA-256 over the contents; the same for the same inputs on any machine.
    """

    dataset: Dataset
    notes: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.dataset)


def load_unlabeled(
    path: str,
    *,
    modality: Modality,
    columns: Mapping[str, str | None],
    place: str,
    on_error: Literal["fail", "skip"] = "fail",
    limit: int | None = None,
    seed: int = 0,
    options: TableOptions = NO_OPTIONS,
) -> UnlabeledData:
    """Load unlabeled inputs and check them. If there are several splits, train or else the first one is used.

    Args:
        path: Path or Hub id as for labeled data, or a folder of images.
        modality: Kind of input.
        columns: Column names by role: image, text, text_pair. Missing roles are inferred; others are ignored.
        place: Field of the recipe with the path, for messages.
        on_error: ``fail`` raises an error for unusable examples; ``skip`` skips them.
        limit: Number of examples to keep. None keeps all.
        seed: Seed of the random choice of the examples to keep.
        options: How to parse text files, where that cannot be detected.

    Returns:
        The inputs, notes, and fingerprint.

    Raises:
        InputError: If the data cannot be used.
    """
    with _problems_at(place):
        source = _folder_of_files(path, modality) if modality.opens_files else None
        source = source or load_source(path, modality=modality, labeled=False, options=options)
        split = next(name for name in SPLITS if name in source.splits)
        dataset = source.splits[split]
        if len(dataset) == 0:
            raise InputError(Problem("data.path", "must contain at least one example"))
        used = find_inputs(guess_features({split: dataset}, source.untyped_splits), modality, columns)
        table = hash_rows(read_table(dataset, used, split, source.root, source.files.get(split)))
        tables, notes, problems = check_readable({split: table}, on_error == "skip")
        if problems:
            raise InputError(problems)
    table = tables[split]
    if limit is not None and limit < len(table):
        table = table.take(choose_subset(None, len(table), limit, seed))
    if len(source.splits) > 1:
        notes.append(f"The {split} split is used.")
    digest = hashlib.sha256(json.dumps(list(table.contents)).encode()).hexdigest()
    return UnlabeledData(table.dataset, tuple(f"{place}: {note}" for note in notes), digest)


def _folder_of_files(path: str, modality: Modality) -> Source | None:
    """Read a folder of files without subfolders and tables; return None for any other path."""
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        return None
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if any(entry.is_dir() or table_format(entry) for entry in entries):
        return None
    if problems := modality.unreadable_files("data.path", entries):
        raise InputError(problems)
    files = [entry for entry in entries if entry.suffix.lower() in modality.suffixes]
    if not files:
        return None
    dataset = Dataset.from_dict({modality.main_column: [str(file) for file in files]})
    return Source({"train": dataset}, folder, ())


@contextmanager
def _problems_at(place: str) -> Iterator[None]:
    """Context manager that assigns problems raised in its body to this field of the recipe instead of ``data``."""
    try:
        yield
    except InputError as error:
        raise InputError(
            replace(problem, place=place if problem.place == "data.path" else f"{place}, {problem.place}")
            for problem in error.problems
        ) from error

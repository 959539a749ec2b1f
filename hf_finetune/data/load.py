"""Read labelled data with ``datasets``, whatever form it is in, as one Dataset for each split."""

import errno
import glob
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, load_dataset, load_dataset_builder, load_from_disk
from datasets.exceptions import DatasetNotFoundError, DatasetsError

from hf_finetune.data.class_folders import Labelling
from hf_finetune.data.image_formats import PICTURE_SUFFIXES
from hf_finetune.data.load_folders import load_pictures, load_texts
from hf_finetune.data.locate import FORMATS, Location, Modality, locate
from hf_finetune.data.split_names import split_name
from hf_finetune.data.wording import listed, quoted
from hf_finetune.errors import InputError, Problem

__all__ = ["Source", "load_source"]

# What to do about a file that its reader refuses.
_REPAIRS = {
    "csv": "Every row must have as many cells as the first; a cell with a comma in it stands in quotes.",
    "json": "Each line of a jsonl file is a JSON object; a json file holds a list of them.",
}
# pandas takes labels such as "None" and "NA" for missing values. Only an empty cell is missing here.
_READER_OPTIONS: Mapping[str, Mapping[str, Any]] = {"csv": {"keep_default_na": False, "na_values": [""]}}


@dataclass(frozen=True)
class Source:
    """Labelled data as it was found.

    Attributes:
        splits: Those of train, validation and test that the source has.
        root: The folder that relative paths start from. None on the Hub.
        notes: What was left aside, for the person.
        files: The path of each text that is a file of its own, from the root, by split.
    """

    splits: Mapping[str, Dataset]
    root: Path | None
    notes: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def load_source(
    path: str,
    *,
    modality: Modality,
    config: str | None = None,
    revision: str | None = None,
    metadata: bool = False,
    columns: Mapping[str, Any] | None = None,
    nested: Literal["join", "top"] | None = None,
    labelled: bool = True,
) -> Source:
    """Load every split of a dataset.

    Args:
        path: A folder of class folders, a folder of data files, a csv, json, jsonl or parquet file, a folder
            written by ``save_to_disk``, or a Hub id.
        modality: What an example is.
        config: The configuration of a Hub dataset that has several.
        revision: The branch, tag or commit of a Hub dataset.
        metadata: Whether pictures in class folders get the columns of metadata files beside them.
        columns: Column names by what they hold, as in a recipe; of ``label`` also the pattern for file names.
        nested: What the class of a file in nested class folders is; None refuses them.
        labelled: Whether files need a label.

    Raises:
        InputError: If there is nothing to load, or if it cannot be read.
    """
    label = (columns or {}).get("label")
    pattern = label.get("pattern") if isinstance(label, Mapping) else None
    location = locate(path, modality, Labelling(nested, pattern, labelled))
    files: Mapping[str, tuple[str, ...]] = {}
    notes = list(location.notes)
    if location.kind != "hub" and (config is not None or revision is not None):
        notes.append(
            "data.config and data.revision belong to the Hub; this data is local, so they were not used."
        )
    if location.kind == "hub":
        splits, ignored = _load_from_hub(path, config, revision)
    elif location.kind == "saved":
        splits, ignored = _load_saved(location)
    elif location.examples is not None and location.root is not None:
        if modality == "image":
            name = label.get("name") if isinstance(label, Mapping) else label
            loaded = load_pictures(location.examples, PICTURE_SUFFIXES, label=name, metadata=metadata)
        else:
            loaded = load_texts(location.examples, location.root)
        splits, ignored, files = dict(loaded.splits), [], loaded.files
        notes += loaded.notes
    else:
        splits, ignored = _load_files(location), []
    if ignored:
        notes.append(f"Splits that were not used: {quoted(ignored)}.")
    if not splits:
        raise InputError(Problem("data.path", "must have a train, validation or test split", quoted(ignored)))
    # Data saved with a format (numpy, torch, ...) is read as plain Python values all the same.
    plain = {split: dataset.with_format(None) for split, dataset in splits.items()}
    return Source(plain, location.root, tuple(notes), files)


def _load_files(location: Location) -> dict[str, Dataset]:
    """Read each split by itself, so that an unlabelled test file may lack the label column."""
    splits: dict[str, Dataset] = {}
    problems: list[Problem] = []
    for split, files in location.parts.items():
        reader = FORMATS[files[0].suffix.lower()]
        empty = [file.name for file in files if file.stat().st_size == 0]
        if empty:
            problems.append(Problem(listed(empty), "must hold at least one example", "an empty file"))
            continue
        try:
            splits[split] = _read(
                reader,
                split,
                [glob.escape(str(file)) for file in files],
                place=", ".join(file.name for file in files),
                **_READER_OPTIONS.get(reader, {}),
            )
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return splits


def _read(reader: str, split: str, patterns: list[str], place: str, **options: Any) -> Dataset:
    try:
        builder = load_dataset_builder(reader, data_files={split: patterns}, **options)
        builder.download_and_prepare()
        if builder.info.splits[split].num_examples > 0:  # as_dataset refuses an empty split
            return builder.as_dataset(split)
    except (DatasetsError, OSError, ValueError) as error:
        in_utf8 = not isinstance(_first_cause(error), UnicodeDecodeError)
        repair = _REPAIRS.get(reader, "") if in_utf8 else "Save it again as UTF-8."
        raise _unreadable(error, place, f"must be readable as {reader}", repair) from error
    raise InputError(Problem(f"The {split} split", "must hold at least one example"))


def _load_saved(location: Location) -> tuple[dict[str, Dataset], list[str]]:
    try:
        loaded = load_from_disk(str(location.root))
    except (DatasetsError, OSError, ValueError) as error:
        raise _unreadable(error, str(location.root), "must be readable as a saved dataset") from error
    return _known_splits({"train": loaded} if isinstance(loaded, Dataset) else loaded)


def _load_from_hub(
    path: str, config: str | None, revision: str | None
) -> tuple[dict[str, Dataset], list[str]]:
    here = f"Nothing of that name is in {str(Path.cwd())!r} either."
    try:
        loaded = load_dataset(path, name=config, revision=revision)
    except DatasetNotFoundError as error:
        repair = f"{here} Check the name and the revision, or log in with `hf auth login` if it is private."
        raise InputError(Problem("data.path", "must be a dataset on the Hub", repr(path), repair)) from error
    except ConnectionError as error:
        repair = f"{here} Check the path, or connect and try again."
        problem = Problem("data.path", "must be local while the Hub cannot be reached", repr(path), repair)
        raise InputError(problem) from error
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        # A missing or unknown configuration is a ValueError whose text lists the configurations there are.
        repair = "Check data.config and data.revision."
        raise _unreadable(error, f"The Hub dataset {path!r}", "must be loadable", repair) from error
    return _known_splits(loaded)


def _known_splits(loaded: Mapping[Any, Dataset]) -> tuple[dict[str, Dataset], list[str]]:
    """Sort splits into those of a known name, the first of each, and the names of the others.

    A dataset with a single split of another name (``full``) has no other to train on.
    """
    if len(loaded) == 1 and all(split_name(str(name)) is None for name in loaded):
        return {"train": next(iter(loaded.values()))}, []
    splits: dict[str, Dataset] = {}
    ignored: list[str] = []
    for name, dataset in loaded.items():
        split = split_name(str(name))
        if split is None or split in splits:
            ignored.append(str(name))
        else:
            splits[split] = dataset
    return splits, ignored


def _unreadable(error: Exception, place: str, rule: str, repair: str = "") -> InputError:
    """Make an InputError of what a reader raised. A full disk is no wrong input and stays as it is."""
    cause = _first_cause(error)
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        raise cause
    first_line = next(iter(str(cause).strip().splitlines()), "")
    return InputError(Problem(place, rule, f"{type(cause).__name__}: {first_line}".rstrip(".: "), repair))


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error

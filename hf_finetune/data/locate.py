"""Locate the data of a recipe's ``data.path`` without reading any example."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

from hf_finetune.data.class_folders import ARCHIVES, FolderExamples, LabelSource, find_folder_examples
from hf_finetune.data.folder_tree import Folder, saved_link_target
from hf_finetune.data.locate_files import split_files, split_in_file_name, usable_files
from hf_finetune.data.metadata import is_metadata
from hf_finetune.data.split_folders import single_subfolder
from hf_finetune.data.split_names import split_name
from hf_finetune.data.table_options import TABLE_KINDS, table_format
from hf_finetune.errors import DataNotFoundError, InputError, Problem, join_quoted
from hf_finetune.files import is_valid_path
from hf_finetune.recipe.paths import data_path_problem, is_local
from hf_finetune.tasks import Modality

__all__ = ["Location", "locate"]

_CLASS_FOLDERS = LabelSource()


@dataclass(frozen=True)
class Location:
    """Kind and files of the data at a path.

    Attributes:
        kind: Class folders, data files, a folder written by ``save_to_disk``, or a Hub id.
        root: Folder that relative paths are resolved against. None for Hub data.
        sources: Data files of each split, or the folder with its class folders.
        notes: Messages to the user, mostly about ignored files.
        examples: Files in class folders; None for other kinds.
        tables: Tables next to class folders, which are not read.
    """

    kind: Literal["class_folders", "files", "saved", "hub"]
    root: Path | None = None
    sources: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    examples: FolderExamples | None = None
    tables: tuple[Path, ...] = ()


def locate(path: str, modality: Modality, label_source: LabelSource = _CLASS_FOLDERS) -> Location:
    """Return the kind and the files of the data at ``path``.

    Args:
        path: A folder, a csv, tsv, json, jsonl, parquet or xlsx file, or a Hub id.
        modality: Kind of input. Class folders contain one file per example.
        label_source: Source of the labels of such files.

    Raises:
        InputError: If there is no data at ``path``, or if its layout is not supported.
    """
    if not is_valid_path(path):
        raise DataNotFoundError(data_path_problem(path))
    local = Path(path).expanduser().absolute()
    if local.is_dir():
        return _locate_folder(local, modality, label_source)
    if (target := saved_link_target(local)) is not None and target.is_dir():
        note = f"{path!r} is a link that was saved as a text file; it was followed to {str(target)!r}."
        location = _locate_folder(target, modality, label_source)
        return replace(location, notes=(note, *location.notes))
    if local.is_file():
        return _locate_file(local)
    if not is_local(path) and path not in _PACKAGED_DATASETS_MODULES:
        return Location("hub")
    raise DataNotFoundError(data_path_problem(path))


def _locate_file(file: Path) -> Location:
    if table_format(file) is None:
        known = "Known: csv, tsv, json, jsonl (also with .gz), parquet, xlsx."
        if file.suffix.lower() in ARCHIVES:
            known = "Unpack it, and set data.path to the folder."
        raise InputError(Problem("data.path", "must be a file of a known format", repr(str(file)), known))
    return Location("files", file.parent, {"train": (file,)})


def _locate_folder(folder: Path, modality: Modality, label_source: LabelSource) -> Location:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return Location("saved", folder)
    files, without_table = usable_files(_data_files(folder))
    if not files:
        files, below = usable_files(_data_files(folder / "data"))
        without_table += below
    tree = Folder.open(folder, modality.suffixes)
    if not files and (inner := single_subfolder(tree, _is_data, allow_examples=not modality.opens_files)):
        location = _locate_folder(inner.path, modality, label_source)
        note = (
            f"The data is read from {inner.path.relative_to(folder).as_posix()!r}, the only folder that "
            "contains data."
        )
        return replace(location, notes=(note, *location.notes))
    if _are_class_folders(tree, files, modality, label_source):
        examples = find_folder_examples(tree, label_source, modality=modality, has_label_table=bool(files))
        if examples is not None:
            tables = tuple(file for file in files if not is_metadata(file))
            notes = examples.notes
            if tables:
                note = (
                    f"Files next to the class folders were not read: {join_quoted(file.name for file in tables)}. "
                    "To read one of them instead, set data.path to it."
                )
                notes = (*notes, note)
            sources = {split: (path,) for split, path in examples.folders.items()}
            return Location("class_folders", folder, sources, notes, examples, tables)
    if files:
        chosen, file_notes = split_files(files)
        if without_table:
            file_notes.append(
                f"Files without a table were not read: {join_quoted(file.name for file in without_table)}."
            )
        if not modality.opens_files and (unread := _folders_of_texts(tree)):
            file_notes.append(f"Folders of texts next to the tables were not read: {join_quoted(unread)}.")
        return Location("files", folder, chosen, tuple(file_notes))
    if without_table:  # reading the file raises an error with the reason
        return Location("files", folder, {"train": tuple(without_table[:1])})
    kind = modality.plural if modality.opens_files else f"{' or '.join(sorted(modality.suffixes))} files"
    rule = f"must contain class folders of {kind}, or {TABLE_KINDS} files, or a dataset saved by save_to_disk"
    raise InputError(Problem("data.path", rule, repr(str(folder))))


def _are_class_folders(
    tree: Folder, files: list[Path], modality: Modality, label_source: LabelSource
) -> bool:
    """Return whether the examples of a folder are single image or text files, not rows of its tables."""
    if not files:
        return True
    if not modality.opens_files:
        return False
    if label_source.pattern is not None:
        return True
    named = {split_in_file_name(file) for file in files} - {None}
    if named:
        train_folders = [folder for folder in tree.folders if split_name(folder.name) == "train"]
        return "train" not in named and any(folder.has_example_folders for folder in train_folders)
    # A single folder next to a table contains the files that the table's path column refers to.
    return len(tree.folders) > 1


def _folders_of_texts(tree: Folder) -> list[str]:
    try:
        return [folder.name for folder in tree.folders if folder.examples]
    except InputError:  # broken links, in folders that are not read
        return []


def _is_data(file: Path) -> bool:
    return table_format(file) is not None


def _data_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    visible = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return [entry for entry in visible if entry.is_file() and _is_data(entry)]

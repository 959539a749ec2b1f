"""Tables of examples to predict, read row by row with ``datasets``."""

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Image as ImageFeature
from datasets import IterableDataset, load_dataset
from pyarrow import parquet

from hf_finetune.data.locate import FORMATS
from hf_finetune.data.wording import quoted
from hf_finetune.errors import InputError, Problem, nearest
from hf_finetune.evaluation.items import Inputs, Item, open_stored_image, open_text
from hf_finetune.evaluation.wording import cause_of

__all__ = ["open_table"]

_NAMES = {
    "image": ("image", "img", "picture", "photo", "file", "file_name", "filename", "path", "image_path"),
    "text": ("text", "sentence", "review", "content", "comment", "message", "document", "body"),
}


def open_table(file: Path, image: bool, named: Mapping[str, str]) -> Inputs:
    """Open a csv, json, jsonl or parquet file, and read its first row.

    Args:
        file: The table. Paths in it start from its folder.
        image: Whether an example is an image, else one text or a pair.
        named: Columns by what they hold: image, text, text_pair. What is not named is inferred.

    Raises:
        InputError: If it cannot be read, is empty, or has no such columns.
    """
    reader = FORMATS[file.suffix.lower()]
    options: dict[str, Any] = {"keep_default_na": False, "na_values": [""]} if reader == "csv" else {}
    try:
        table = load_dataset(
            reader, data_files=glob.escape(str(file)), split="train", streaming=True, **options
        )
        for name, feature in (table.features or {}).items():
            if isinstance(feature, ImageFeature):
                table = table.cast_column(name, ImageFeature(decode=False))
        first = next(iter(table), None)
        total = parquet.ParquetFile(file).metadata.num_rows if reader == "parquet" else None
    except Exception as error:  # Each reader of datasets raises errors of its own library.
        raise InputError(Problem(str(file), f"must be readable as {reader}", cause_of(error))) from error
    if first is None:
        raise InputError(Problem(str(file), "must hold at least one row"))
    wanted = ("image",) if image else ("text", "text_pair")
    used = _find_columns(str(file), list(first), wanted, named)
    return Inputs(_read_rows(file, table, used, image), total)


def _find_columns(
    place: str, present: Sequence[str], wanted: Sequence[str], named: Mapping[str, str]
) -> dict[str, str]:
    used = {key: named[key] for key in wanted if key in named}
    problems = [
        Problem(place, f"must have the column that was named for {key}", repr(name), nearest(name, present))
        for key, name in used.items()
        if name not in present
    ]
    main = wanted[0]
    if main not in used:
        likely = [name for name in present if name.lower() in _NAMES[main]]
        found = main if main in present else likely[0] if len(likely) == 1 else None
        if found is None and len(present) == 1:
            found = present[0]
        if found is None:
            rule = f"must have one column that is plainly the {main}"
            problems.append(
                Problem(
                    place, rule, f"columns {quoted(present)}", f"Rename the one with the {main}s to {main!r}."
                )
            )
        else:
            used[main] = found
        if found == "text" and "text_pair" in present:
            used.setdefault("text_pair", "text_pair")
    if problems:
        raise InputError(problems)
    return used


def _read_rows(file: Path, table: IterableDataset, used: Mapping[str, str], image: bool) -> Iterator[Item]:
    row = -1
    try:
        for row, values in enumerate(table):
            name = values.get("id")
            name = f"{file}:{row}" if name is None else str(name)
            if image:
                yield open_stored_image(name, values[used["image"]], file.parent)
            else:
                yield open_text(name, *(values[used[key]] for key in ("text", "text_pair") if key in used))
    except Exception as error:  # A damaged row ends its table: what follows it cannot be told apart.
        yield Item(f"{file}:{row + 1}", error=f"The rest of {file} cannot be read. {cause_of(error)}.")

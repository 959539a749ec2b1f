"""Examples to predict, each read on its own: its content, or the reason why it cannot be read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_finetune.data.file_paths import FileFinder, is_encoded, is_url
from hf_finetune.errors import truncate
from hf_finetune.evaluation.error_text import format_error
from hf_finetune.files import is_valid_path
from hf_finetune.tasks import Modality
from hf_finetune.tasks.examples import ExampleError

__all__ = ["PredictionExample", "PredictionInputs", "read_example", "read_file", "read_line", "read_row"]


@dataclass(frozen=True)
class PredictionExample:
    """Example to predict, or the reason why it cannot be read.

    Attributes:
        id: Id of the example: a path, ``FILE:ROW`` counted from 0, ``FILE:LINE`` counted from 1, or the text itself.
            For a file it is always a valid file name.
        content: Example as ``Modality.pipeline_input`` returns it; None if unreadable.
        error: Sentence with the reason why it cannot be read; None if it can.
        facts: Facts on how it was read, for ``Modality.remarks``; None if there are none.
        row: Cells of its table row by column, if columns are carried along.
    """

    id: str
    content: Any = None
    error: str | None = None
    facts: Any = None
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PredictionInputs:
    """Examples to predict.

    Attributes:
        items: Iterator over the examples, which can be consumed once; each is read on demand.
        total: Number of examples; None if it is not known in advance.
        columns: Columns of the tables, if they are carried along.
    """

    items: Iterator[PredictionExample]
    total: int | None
    columns: tuple[str, ...] = ()


def read_example(modality: Modality, name: str, cells: Mapping[str, Any]) -> PredictionExample:
    """Read an example, as in training.

    Args:
        modality: Kind of input.
        name: Id of the example.
        cells: Value of each column, as for ``Modality.read_example``.

    Returns:
        The example, or the reason why it cannot be read.
    """
    try:
        content, facts = modality.read_example(cells)
    except ExampleError as error:
        subject = (
            f"The {modality.name} cannot be read. It" if modality.opens_files else f"The {modality.file_noun}"
        )
        return PredictionExample(name, error=f"{subject} is {error}.")
    except Exception as error:  # Decoders let errors of any type through.
        return PredictionExample(name, error=f"The {modality.name} cannot be read. {format_error(error)}.")
    return PredictionExample(name, content, facts=facts)


def read_file(modality: Modality, name: str, file: Path | bytes | None) -> PredictionExample:
    """Read the example in a file, or in the bytes of a file; None is an error.

    Args:
        modality: Kind of input.
        name: Id of the example.
        file: Path or content of the file.

    Returns:
        The example, or the reason why it cannot be read.
    """
    if file is None:
        return PredictionExample(name, error=f"There is no {modality.name}.")
    if isinstance(file, Path) and not is_valid_path(file):
        return PredictionExample(name, error=_no_file(modality, str(file)))
    return read_example(modality, name, {modality.main_column: file})


def read_line(modality: Modality, name: str, line: str) -> PredictionExample:
    """Read the example of a line of text: the path of a file, which becomes its id if it is valid, or a text.

    Args:
        modality: Kind of input.
        name: Id of the example, unless the line is the path of a file.
        line: Line without its line break.

    Returns:
        The example, or the reason why it cannot be read.
    """
    if not modality.opens_files:
        return read_example(modality, name, {modality.main_column: line})
    if is_encoded(line) or not is_valid_path(line):
        return PredictionExample(name, error=_no_file(modality, line))
    return read_file(modality, line, Path(line))


def read_row(
    modality: Modality, name: str, cells: Mapping[str, Any], finder: FileFinder
) -> PredictionExample:
    """Read the example of a table row.

    Args:
        modality: Kind of input.
        name: Id of the example.
        cells: Value of each column. A file is a path, the bytes of a file, or both as ``datasets`` stores them.
        finder: Finder of the files, which resolves paths in the same way as in training.

    Returns:
        The example, or the reason why it cannot be read.
    """
    if not modality.opens_files:
        return read_example(modality, name, cells)
    value = cells[modality.main_column]
    if isinstance(value, str) and is_url(value):
        error = f"The {modality.name} is a URL ({value[:100]}); download it, and write the path of the file."
        return PredictionExample(name, error=error)
    if isinstance(value, str) and is_encoded(value):
        return PredictionExample(name, error=_no_file(modality, value))
    if isinstance(value, str) and value.strip():
        path = finder.find(value)
        if not is_valid_path(path):
            return PredictionExample(name, error=_no_file(modality, value))
        return read_file(modality, name, path)
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return read_file(modality, name, value)
    return read_file(modality, name, finder.root / str(value) if value else None)


def _no_file(modality: Modality, value: str) -> str:
    """Return the error text for a value that cannot be the path of a file."""
    text = truncate(value)
    if is_encoded(value):
        repair = f"write the {modality.file_noun} to a file, and put its path there"
        return f"The {modality.name} is base64 or a data URI ({text}); {repair}."
    return f"There is no file of this name ({text!r})."

"""Streaming writers of predictions: csv, jsonl and Parquet files, and JSON lines for standard output."""

import csv
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.predict import Prediction
from hf_finetune.evaluation.prediction_columns import PROBABILITY, TOP_CLASSES, TOP_PROBABILITIES
from hf_finetune.files import atomic_file, is_valid_path
from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.top_scores import MANY_CLASSES

__all__ = ["OUTPUT_SUFFIXES", "json_line", "open_output", "safe_cell"]

OUTPUT_SUFFIXES = (".csv", ".jsonl", ".parquet")

_ROWS_AT_ONCE = 1000
_FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001, as spreadsheets take both widths
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_OUTPUT_COLUMNS = ("id", "prediction", "score", "error")
_STEP = "step"

Write = Callable[[Prediction], None]


@contextmanager
def open_output(
    path: Path, target: TargetName, label_names: Sequence[str], input_columns: Sequence[str] = ()
) -> Iterator[Write]:
    """Open a file for predictions. The file appears at its path, complete, only if the block ends without an error.

    The columns are id, prediction, score, a probability for each class, and error. Only single-label data has a score,
    and regression has neither score nor probabilities. With more than 200 classes the columns top_classes and
    top_probabilities, with the 20 most probable classes, replace the columns of the single classes. A csv cell with
    several values is a JSON list, and a csv text that a spreadsheet would evaluate as a formula is prefixed with an
    apostrophe, see ``safe_cell``. A jsonl line contains the probabilities as ``scores``, without empty values.

    A forecast has one row per step in csv and parquet files, with the column ``step``, counted from 1, and one line in
    jsonl files.

    Columns copied from the input follow the id; a name that an output column has already becomes ``input:NAME``. In
    csv and parquet files they are strings.

    Args:
        path: Path that ends in .csv, .jsonl or .parquet, in an existing folder. An existing file is replaced.
        target: Label type of the model: ``single_label``, ``multi_label`` or ``regression``.
        label_names: Class names in the order of the model.
        input_columns: Columns of the input that predictions contain.

    Yields:
        Function that writes a prediction.

    Raises:
        InputError: If the path cannot be written to.
    """
    suffix = path.suffix.lower()
    problem = _path_problem(path, suffix)
    if problem is not None:
        raise InputError(problem)
    open_writer = {".csv": _open_csv, ".jsonl": _open_jsonl, ".parquet": _open_parquet}[suffix]
    with atomic_file(path) as temporary, open_writer(temporary, target, label_names, input_columns) as write:
        yield write


def json_line(prediction: Prediction) -> str:
    """Return a prediction as one line of JSON, without the line break.

    Args:
        prediction: Prediction, or the error of an example.
    """
    input_cells = _input_cells(prediction.row, ("id", "prediction", "score", "scores", "error"))
    if prediction.error is not None:
        return _json({"id": prediction.id, **input_cells, "error": prediction.error})
    values: dict[str, Any] = {"id": prediction.id, **input_cells, "prediction": prediction.label}
    if prediction.score is not None:
        values["score"] = prediction.score
    if prediction.scores:
        values["scores"] = dict(prediction.scores)
    return _json(values)


def _json(value: Any) -> str:
    """Return JSON on one line; values without a JSON type, such as dates, become strings."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _output_names(names: Iterable[str], output_columns: Collection[str]) -> dict[str, str]:
    """Return the output name of each input column, without ``id``, which the output has already."""
    return {
        name: f"input:{name}" if name in output_columns or name.startswith(PROBABILITY) else name
        for name in names
        if name != "id"
    }


def _input_cells(row: Mapping[str, Any], output_columns: Collection[str]) -> dict[str, Any]:
    names = _output_names(row, output_columns)
    return {names[name]: value for name, value in row.items() if name in names}


def safe_cell(value: Any) -> Any:
    """Return the value of a csv cell, with an apostrophe before text that a spreadsheet would evaluate as a formula.

    Numbers, and texts that are numbers, are returned unchanged.

    Args:
        value: Value of any type.

    Source: OWASP, CSV Injection.
    """
    if isinstance(value, str) and value.startswith(_FORMULA_PREFIXES) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def _path_problem(path: Path, suffix: str) -> Problem | None:
    if suffix not in OUTPUT_SUFFIXES:
        return Problem(
            "--output",
            f"must end in {', '.join(OUTPUT_SUFFIXES[:-1])} or {OUTPUT_SUFFIXES[-1]}",
            repr(str(path)),
        )
    if not is_valid_path(path):
        return Problem("--output", "must be a valid file name", repr(str(path)))
    if path.is_dir():
        return Problem("--output", "must be a file", f"the folder {str(path)!r}")
    if not path.parent.is_dir():
        return Problem("--output", "must be in a folder that exists", repr(str(path)))
    return None


def _fields(target: TargetName, label_names: Sequence[str], input_columns: Sequence[str]) -> dict[str, Any]:
    """Return the columns of the output table with their pyarrow types."""
    import pyarrow as pa

    kind = TARGETS[target]
    fields = {"id": pa.string(), **({_STEP: pa.int64()} if kind.is_vector else {})}
    fields |= dict.fromkeys(_output_names(input_columns, _OUTPUT_COLUMNS).values(), pa.string())
    fields["prediction"] = pa.float64() if kind.is_vector else kind.arrow_type
    if kind.is_exclusive:
        fields["score"] = pa.float64()
    if kind.has_classes:
        if len(label_names) > MANY_CLASSES:
            fields |= {TOP_CLASSES: pa.list_(pa.string()), TOP_PROBABILITIES: pa.list_(pa.float64())}
        else:
            fields |= {PROBABILITY + name: pa.float64() for name in label_names}
    scores = dict.fromkeys(kind.score_columns, pa.float64()) if kind.is_vector else kind.score_columns
    return {**fields, **scores, "error": pa.string()}


def _rows(prediction: Prediction, target: TargetName) -> Iterator[dict[str, Any]]:
    """Yield the cells of the rows of a prediction: one row, or one for each step of a forecast."""
    further = TARGETS[target].score_columns
    if prediction.error is not None or not TARGETS[target].is_vector:
        yield _row(prediction, further)
        return
    values: Any = prediction.label
    for index, value in enumerate(values):
        scores = {name: each[index] for name, each in prediction.scores.items()}
        cells = {name: each[index] for name, each in prediction.row.items()}
        yield {_STEP: index + 1, **_row(replace(prediction, label=value, scores=scores, row=cells), further)}


def _row(prediction: Prediction, further: Collection[str]) -> dict[str, Any]:
    """Return the cells of a prediction; ``further`` are the columns of scores of labels without classes."""
    input_cells = _input_cells(prediction.row, _OUTPUT_COLUMNS)
    return {
        **{name: prediction.scores.get(name) for name in further},
        "id": prediction.id,
        **{name: _text(value) for name, value in input_cells.items()},
        "prediction": prediction.label,
        "score": prediction.score,
        "error": prediction.error,
        TOP_CLASSES: list(prediction.scores),
        TOP_PROBABILITIES: list(prediction.scores.values()),
        **{PROBABILITY + name: score for name, score in prediction.scores.items()},
    }


def _text(value: Any) -> str | None:
    """Return an input cell as text: None for None, JSON for lists, dictionaries and booleans."""
    if value is None or isinstance(value, str):
        return value
    return _json(value) if isinstance(value, list | dict | bool) else str(value)


@contextmanager
def _open_csv(
    path: Path, target: TargetName, label_names: Sequence[str], input_columns: Sequence[str]
) -> Iterator[Write]:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, list(_fields(target, label_names, input_columns)), extrasaction="ignore"
        )
        writer.writerow({name: safe_cell(name) for name in writer.fieldnames})

        def write(prediction: Prediction) -> None:
            for row in _rows(prediction, target):
                for name, value in row.items():
                    if isinstance(value, list):
                        row[name] = json.dumps(value, ensure_ascii=False)
                if prediction.error is not None:
                    row[TOP_CLASSES] = row[TOP_PROBABILITIES] = None
                writer.writerow({name: safe_cell(value) for name, value in row.items()})

        yield write


@contextmanager
def _open_jsonl(
    path: Path, target: TargetName, label_names: Sequence[str], input_columns: Sequence[str]
) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda prediction: print(json_line(prediction), file=file)


@contextmanager
def _open_parquet(
    path: Path, target: TargetName, label_names: Sequence[str], input_columns: Sequence[str]
) -> Iterator[Write]:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(list(_fields(target, label_names, input_columns).items()))
    rows: list[dict[str, Any]] = []
    with parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema))
            rows.clear()

        def write(prediction: Prediction) -> None:
            rows.extend(_rows(prediction, target))
            if len(rows) >= _ROWS_AT_ONCE:
                flush()

        yield write
        flush()

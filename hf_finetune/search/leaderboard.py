"""Leaderboard: the finished runs below a folder, compared by their test metric, size and time."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_finetune.data.content_hashes import HASHES, read_hashes
from hf_finetune.errors import InputError, Problem, suggestion
from hf_finetune.evaluation.metrics import greater_is_better
from hf_finetune.files import read_json_object
from hf_finetune.report.run_record import listed_metrics

__all__ = ["SORT_KEYS", "FinishedRun", "Leaderboard", "read_leaderboards", "sort_runs"]

SORT_KEYS = ("metric", "seconds", "parameters", "bytes", "milliseconds", "name")
"""Values by which runs can be sorted; ``metric`` is that of the leaderboard."""
_UNCOMPARED = ("output_dir", "track", "publish")
"""Fields of a recipe that have no effect on the model."""


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Attributes:
        name: Path of the run directory below the folder that was searched.
        test_data: Fingerprint of its test examples and classes.
        metrics: Test metrics by name.
        intervals: Ends of the 95 % confidence interval of some metrics.
        primary: Name of the first metric of its recipe that is defined.
        seconds: Duration of the run.
        parameters: Number of parameters of the model.
        bytes: Size of the weights files.
        milliseconds: Mean time of a test example, preprocessing included; None for several tasks and earlier versions.
        fields: Fields of the recipe, by dotted path.
    """

    name: str
    test_data: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    primary: str
    seconds: float
    parameters: int
    bytes: int
    milliseconds: float | None
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Leaderboard:
    """Runs that were tested on the same examples, the best first.

    Attributes:
        data: Location of the data.
        metric: Metric by which the runs are compared.
        runs: The runs.
        differing: Dotted paths of the recipe fields in which the runs differ.
    """

    data: str
    metric: str
    runs: tuple[FinishedRun, ...]
    differing: tuple[str, ...]


def read_leaderboards(
    folder: Path, metric: str | None = None, sort: str = "metric"
) -> tuple[list[Leaderboard], int]:
    """Return a leaderboard for each test split on which runs below a folder were evaluated.

    Args:
        folder: Folder that contains run directories, at any depth.
        metric: Metric by which runs are compared; None takes the first metric of the recipe of most runs.
        sort: One of ``SORT_KEYS``.

    Returns:
        The leaderboards, the one with most runs first, and the number of runs that are unfinished or have no
        test metric, which they do not contain.

    Raises:
        InputError: If the folder does not exist, or if no run has the metric.
    """
    if sort not in SORT_KEYS:
        raise InputError(
            Problem(
                "--sort", f"must be one of {', '.join(SORT_KEYS)}", repr(sort), suggestion(sort, SORT_KEYS)
            )
        )
    if not folder.is_dir():
        raise InputError(Problem(str(folder), "must be a folder that contains runs"))
    by_test: dict[str, list[FinishedRun]] = {}
    unfinished = 0
    for path in _run_folders(folder):
        run = _read_run(path, folder)
        if run is None:
            unfinished += 1
        else:
            by_test.setdefault(run.test_data, []).append(run)
    boards = [_leaderboard(runs, metric, sort) for runs in by_test.values()]
    found = [board for board in boards if board is not None]
    if by_test and not found:
        names = list(dict.fromkeys(name for runs in by_test.values() for run in runs for name in run.metrics))
        raise InputError(
            Problem("--metric", "must be a metric of a run", repr(metric), suggestion(str(metric), names))
        )
    return sorted(found, key=lambda board: -len(board.runs)), unfinished


def sort_runs(runs: Sequence[FinishedRun], metric: str, sort: str) -> list[FinishedRun]:
    """Return runs in the order of a leaderboard, runs without the value last.

    Args:
        runs: The runs.
        metric: Metric by which runs are compared.
        sort: One of ``SORT_KEYS``; all but the metric sort from the lowest value to the highest.
    """
    if sort == "name":
        return sorted(runs, key=lambda run: run.name)
    sign = -1.0 if sort == "metric" and greater_is_better(metric.rpartition("/")[2]) else 1.0

    def key(run: FinishedRun) -> tuple[bool, float, str]:
        value = run.metrics.get(metric) if sort == "metric" else getattr(run, sort)
        return value is None, 0.0 if value is None else sign * value, run.name

    return sorted(runs, key=key)


def _leaderboard(runs: Sequence[FinishedRun], metric: str | None, sort: str) -> Leaderboard | None:
    """Return the leaderboard of runs on the same data; None if none of them has the metric."""
    primary = [run.primary for run in runs]
    metric = metric or max(dict.fromkeys(primary), key=primary.count)
    if all(metric not in run.metrics for run in runs):
        return None
    paths = dict.fromkeys(path for run in runs for path in run.fields)
    differing = tuple(path for path in paths if len({json.dumps(run.fields.get(path)) for run in runs}) > 1)
    return Leaderboard(_data_path(runs[0]), metric, tuple(sort_runs(runs, metric, sort)), differing)


def _data_path(run: FinishedRun) -> str:
    paths = [value for path, value in run.fields.items() if path.endswith("data.path")]
    return " and ".join(dict.fromkeys(map(str, paths)))


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yield the run directories in a folder, without those in a run directory, such as those of folds and tasks.

    A link to a folder is followed only if it is a run directory.
    """
    if (folder / "manifest.json").is_file():
        yield folder
        return
    for path in sorted(folder.iterdir()):
        is_link_to_no_run = path.is_symlink() and not (path / "manifest.json").is_file()
        if path.is_dir() and not path.name.startswith(".") and not is_link_to_no_run:
            yield from _run_folders(path)


def _read_run(path: Path, root: Path) -> FinishedRun | None:
    """Return a run; None if it is not finished, has no test metric, or its files are damaged."""
    manifest, metrics = read_json_object(path / "manifest.json"), read_json_object(path / "metrics.json")
    if manifest.get("state") != "done" or not metrics:
        return None
    try:
        return _finished_run(path, root, manifest, metrics)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        return None


def _finished_run(
    path: Path, root: Path, manifest: Mapping[str, Any], metrics: Mapping[str, Any]
) -> FinishedRun | None:
    """Return a finished run; None if it has no test metric."""
    defined = {name: float(value) for name, value in metrics["test"].items() if value is not None}
    defined = {name: value for name, value in defined.items() if math.isfinite(value)}
    recipe = manifest["recipe"]
    primary = next((name for name in (*listed_metrics(recipe, metrics), *defined) if name in defined), None)
    if primary is None:
        return None
    examples = metrics.get("test_examples")
    fields = {path: value for path, value in _flat(recipe) if path.split(".")[0] not in _UNCOMPARED}
    return FinishedRun(
        name=path.relative_to(root).as_posix() if path != root else path.resolve().name,
        test_data=_test_fingerprint(path, manifest["fingerprints"]),
        metrics=defined,
        intervals={
            name: (_number(ends[0]), _number(ends[1]))
            for name, ends in metrics.get("test_interval", {}).items()
            if ends
        },
        primary=primary,
        seconds=_number(metrics["wall_seconds"]),
        parameters=int(_number(metrics["stages"][-1]["total_parameters"])),
        bytes=sum(file.stat().st_size for file in path.rglob("*.safetensors") if _is_saved(file, path)),
        milliseconds=_number(1000 * metrics["test_seconds"] / examples) if examples else None,
        fields=json.loads(json.dumps(fields), parse_constant=str),  # JSON has no NaN and no infinity
    )


def _number(value: Any) -> float:
    """Return a finite number.

    Raises:
        OverflowError, TypeError, ValueError: If the value is something else.
    """
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _is_saved(file: Path, run: Path) -> bool:
    """Return whether a weights file of a run belongs to its model or adapter, not to a stage."""
    return file.relative_to(run).parts[0] in ("model", "adapter")


def _test_fingerprint(path: Path, fingerprints: Mapping[str, str]) -> str:
    """Return a fingerprint of classes and test examples; of all data for a run that did not store them."""
    hashes = read_hashes(path / HASHES) or {}
    if "test" not in hashes:
        return str(fingerprints["data"])
    return str(fingerprints["classes"]) + hashlib.sha256(hashes["test"].tobytes()).hexdigest()


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of each field of a recipe."""
    items: Iterator[tuple[Any, Any]] | None = None
    if isinstance(value, Mapping) and value:
        items = iter(value.items())
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = iter(enumerate(value))
    if items is None:
        yield path, value
        return
    for key, item in items:
        yield from _flat(item, f"{path}.{key}" if path else str(key))

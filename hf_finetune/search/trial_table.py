"""Table of the trials of a search, and the recipe of the selected one."""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t

from hf_finetune.evaluation.intervals import LEVEL
from hf_finetune.evaluation.metrics import metric_for, sign_of
from hf_finetune.files import atomic_file
from hf_finetune.recipe.load import dump_recipe
from hf_finetune.runs.folder import LEADERBOARD
from hf_finetune.search.tune import SearchResult

__all__ = ["RECIPE", "TrialRow", "as_json", "trial_rows", "write_leaderboard", "write_recipe"]

RECIPE = "recipe.yaml"
"""Selected recipe in the folder of a search."""


@dataclass(frozen=True)
class TrialRow:
    """Row of the table of trials.

    Attributes:
        number: Number of the trial, from 1.
        score: Metric of its held-out predictions.
        low: Lower end of the 95 % interval of the score.
        high: Upper end.
        parts: Number of parts on which it was judged.
        seconds: Duration of its trainings.
        parameters: Number of parameters of the model.
        bytes: Size of the weights.
        milliseconds: Mean time of a held-out example, preprocessing included.
        selected: Whether it was selected.
        fields: Fields in which trials differ, by dotted path.
    """

    number: int
    score: float
    low: float
    high: float
    parts: int
    seconds: float
    parameters: int
    bytes: int
    milliseconds: float
    selected: bool
    fields: dict[str, Any]


def trial_rows(result: SearchResult) -> list[TrialRow]:
    """Return the rows of a search, the best trial first.

    Args:
        result: Result of the search.
    """
    selection = result.selection
    rows = []
    for index, (trial, score, error) in enumerate(
        zip(result.trials, selection.values, selection.errors, strict=True)
    ):
        results = list(trial.results.values())
        examples = trial.examples()
        margin = float(t.ppf((1 + LEVEL) / 2, max(len(examples) - 1, 1))) * error
        low, high = score - margin, score + margin
        if metric_for(result.metric, examples).is_fraction:
            low, high = max(low, 0.0), min(high, 1.0)
        rows.append(
            TrialRow(
                number=trial.number or index + 1,
                score=score,
                low=low,
                high=high,
                parts=len(results),
                seconds=round(trial.seconds, 3),
                parameters=results[-1].parameters,
                bytes=results[-1].bytes,
                milliseconds=round(sum(part.milliseconds for part in results) / len(results), 3),
                selected=index == selection.winner,
                fields=dict(trial.fields),
            )
        )
    return sorted(rows, key=lambda row: (-sign_of(result.metric) * row.score, row.number))


def as_json(result: SearchResult) -> dict[str, Any]:
    """Return the result of a search as JSON values.

    Args:
        result: Result of the search.
    """
    return {
        "metric": result.metric,
        "parts": len(result.parts),
        "expected": result.selection.expected,
        "interval": result.selection.interval,
        "trials": [asdict(row) for row in trial_rows(result)],
        "failed": [{"fields": dict(trial.fields), "reason": trial.failure} for trial in result.failed],
        "untried": [dict(fields) for fields in result.untried],
        "too_long": [index + 1 for index in result.too_long],
        "seeds": result.seeds,
    }


def write_leaderboard(result: SearchResult, folder: Path) -> None:
    """Write the table of trials to the folder of a search.

    Args:
        result: Result of the search.
        folder: Folder of the search.
    """
    rows = [asdict(row) for row in trial_rows(result)]
    paths = list(dict.fromkeys(path for row in rows for path in row["fields"]))
    with (
        atomic_file(folder / LEADERBOARD) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        names = [name for name in rows[0] if name != "fields"]
        writer.writerow([*names, *paths])
        for row in rows:
            cells = [json.dumps(row["fields"][path]) if path in row["fields"] else "" for path in paths]
            writer.writerow([*(row[name] for name in names), *cells])


def write_recipe(result: SearchResult, folder: Path) -> None:
    """Write the selected recipe to the folder of a search.

    Args:
        result: Result of the search.
        folder: Folder of the search.
    """
    with atomic_file(folder / RECIPE) as temporary:
        temporary.write_text(dump_recipe(result.winner.recipe), encoding="utf-8")

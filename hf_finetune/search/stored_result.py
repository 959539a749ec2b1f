"""Result of a search, stored before the final run so that this run can be resumed without searching again."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hf_finetune.files import read_json_object
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.search.parts import Part
from hf_finetune.search.selection import Selection
from hf_finetune.search.trials import Trial, TrialRunner
from hf_finetune.search.tune import SearchResult
from hf_finetune.training.manifest import write_json

__all__ = ["read_result", "store_result"]

FILE = "selection.json"
"""File in the folder of the search."""


def store_result(result: SearchResult, folder: Path) -> None:
    """Write the trials and the selection of a search; the predictions of the trials are in the folder already.

    Args:
        result: Result of the search.
        folder: Folder of the search.
    """
    content = {
        "metric": result.metric,
        "trials": [_trial_content(trial) for trial in result.trials],
        "failed": [_trial_content(trial) for trial in result.failed],
        "selection": asdict(result.selection),
        "untried": [dict(fields) for fields in result.untried],
        "too_long": list(result.too_long),
        "seeds": result.seeds,
    }
    write_json(folder / FILE, content)


def _trial_content(trial: Trial) -> dict[str, Any]:
    return {
        "recipe": trial.recipe.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "fields": dict(trial.fields),
        "failure": trial.failure,
        "parts": [part.name for part in trial.results],
    }


def read_result(folder: Path, runner: TrialRunner, parts: Sequence[Part]) -> SearchResult | None:
    """Return the stored result of a search; None if it is not stored.

    Args:
        folder: Folder of the search.
        runner: Reads the predictions of the trials.
        parts: Parts of the search.
    """
    content = read_json_object(folder / FILE)
    if not content:
        return None
    trials, failed = (
        tuple(_read_trial(each, runner, parts) for each in content[name]) for name in ("trials", "failed")
    )
    stored = content["selection"]
    selection = Selection(
        winner=stored["winner"],
        values=tuple(stored["values"]),
        errors=tuple(stored["errors"]),
        expected=stored["expected"],
        interval=stored["interval"] and (stored["interval"][0], stored["interval"][1]),
    )
    return SearchResult(
        trials,
        failed,
        content["metric"],
        tuple(parts),
        selection,
        tuple(content["untried"]),
        tuple(content["too_long"]),
        content["seeds"],
    )


def _read_trial(content: dict[str, Any], runner: TrialRunner, parts: Sequence[Part]) -> Trial:
    trial = Trial(parse_recipe(content["recipe"]), content["fields"], failure=content["failure"])
    runner.read(trial, [part for part in parts if part.name in content["parts"]])
    return trial

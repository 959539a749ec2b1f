"""``hf-finetune auto`` on a dataset, with its correct test predictions and the score that it expected."""

import json
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.contenders.small_run import right_by_id
from hf_finetune.search.auto import auto

__all__ = ["measure"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Search within ``work["limit"]`` seconds or ``work["trials"]`` trials.

    Returns:
        ``right``: whether the prediction is correct for each test example, in the order of the ids. ``expected``,
        ``low`` and ``high``: expected accuracy on the test split with its interval. ``details``: the fields of
        the selected trial, as JSON. ``trials``: number of judged trials. ``seconds``: of the search and the final run.
    """
    start = perf_counter()
    done = auto(
        work["data"],
        Path(work["folder"]) / "run",
        max_seconds=work["limit"],
        max_trials=work["trials"],
        quality=work["quality"],
        models=work["models"],
        started=start,
    )
    seconds = perf_counter() - start
    selection = done.search.selection
    low, high = selection.interval or (None, None)
    return {
        "seconds": seconds,
        "right": right_by_id(done.run.folder / "predictions.parquet"),
        "expected": selection.expected,
        "low": low,
        "high": high,
        "details": json.dumps(dict(done.search.winner.fields)),
        "trials": len(done.search.trials),
    }

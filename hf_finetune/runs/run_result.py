"""Result of a run, as ``run`` returns it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_finetune.errors import Problem

__all__ = ["RunResult"]


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: Run directory.
        metrics: Content of ``metrics.json``; with several processes, it is complete only on the main process.
        primary_metrics: Names of the metrics of the recipe, the primary one first.
        unpublished: Reasons why the model was not published, if the recipe has ``publish``.
        publish_later: Shell command that publishes the model later; empty if it was published or need not be.

    Example:
        >>> from hf_finetune import RunResult, load_recipe, run
        >>> result: RunResult = run(load_recipe("reviews.yaml", ["stages.1.epochs=1"]), "runs/again")
        >>> leading = result.primary_metrics[0]
        >>> leading, result.metrics["test"][leading] >= 0.5, (result.folder / "model").is_dir()
        ('accuracy', True, True)
    """

    folder: Path
    metrics: dict[str, Any]
    primary_metrics: tuple[str, ...]
    unpublished: tuple[Problem, ...] = ()
    publish_later: str = ""

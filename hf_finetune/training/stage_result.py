"""Result of a stage and its closing log lines: the weights that are kept, compared with those at its start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerState

from hf_finetune.cache.prefix_cache import CacheReport
from hf_finetune.performance.execution_modes import ExecutionMode
from hf_finetune.planning.best_epoch import best_entry, evaluations, is_better
from hf_finetune.training.execution import StageExecution
from hf_finetune.training.head_fit import format_fit
from hf_finetune.training.stage_inputs import StageEvaluation

__all__ = ["StageResult", "metrics_of", "result_lines", "stage_result"]

TIMINGS = (
    *("eval_runtime", "eval_samples_per_second", "eval_steps_per_second"),
    "eval_model_preparation_time",
)


@dataclass(frozen=True)
class StageResult:
    """Result of a stage.

    Attributes:
        epochs: Number of epochs trained; early stopping may shorten a stage.
        steps: Number of optimizer steps.
        best_step: Step of the checkpoint that is kept, 0 for the initial weights of the stage; None if no metric
            selects one and the last weights are kept.
        validation: Metrics of the kept weights on the validation split; empty without one.
        mode: Execution mode.
        cache: Report of the prefix cache.
        averaged: Whether the kept weights are the running average (EMA) rather than the raw weights; None without EMA.
        fit: Entry about the fitted head, from ``fit_metadata``; None if the stage was trained in steps.
        start: Validation metrics of the initial weights; empty if they were not evaluated.
        trained: Validation metrics of the best trained weights, with their ``step``; empty unless the initial weights
            are kept.
        limit: Entry about the time limit, from ``StageLimit.result``; None if it has not changed the stage.
        seeds: ``epochs``, ``steps``, ``best_step`` and ``validation`` of each training of a stage with ``seeds``; the
            ``epochs`` of the stage are their mean, its ``steps`` their sum.
    """

    epochs: float
    steps: int
    best_step: int | None
    validation: dict[str, float]
    mode: ExecutionMode
    cache: CacheReport
    averaged: bool | None = None
    fit: dict[str, Any] | None = None
    start: dict[str, float] = field(default_factory=dict)
    trained: dict[str, float] = field(default_factory=dict)
    limit: dict[str, Any] | None = None
    seeds: Sequence[dict[str, Any]] = ()


def stage_result(
    state: TrainerState, evaluation: StageEvaluation, execution: StageExecution, averaged: bool | None
) -> StageResult:
    """Return the result of a stage from the state of its Trainer.

    Args:
        state: State of the Trainer at the end of the stage.
        evaluation: Evaluation settings with the metric that selected the checkpoint.
        execution: Execution mode and prefix cache of the stage.
        averaged: Whether the running average of the weights is kept, see ``StageResult``.
    """
    metric = evaluation.best_metric
    best = state.best_global_step if metric is not None else None
    entries = evaluations(state.log_history)
    metrics = {entry["step"]: metrics_of(entry) for entry in entries}
    trained: dict[str, float] = {}
    if metric is not None and best == 0:
        later = [entry for entry in entries if entry["step"] > 0]
        entry = best_entry(later, metric, greater_is_better=evaluation.greater_is_better)
        trained = {} if entry is None else {**metrics_of(entry), "step": entry["step"]}
    return StageResult(
        epochs=round(state.epoch or 0.0, 4),
        steps=state.global_step,
        best_step=best,
        validation=metrics.get(best if best is not None else state.global_step, {}),
        mode=execution.mode,
        cache=execution.report,
        averaged=averaged,
        start=metrics.get(0, {}),
        trained=trained,
    )


def result_lines(
    stage: str, result: StageResult, metric: str | None, *, leading: str, greater_is_better: bool
) -> list[str]:
    """Return the log lines at the end of a stage.

    Args:
        stage: Name of the stage.
        result: Result of the stage.
        metric: Metric that selected the checkpoint; None if the last weights are kept in any case.
        leading: Metric by which the last weights are compared with the initial ones if ``metric`` is None.
        greater_is_better: Whether higher values of ``leading`` are better.
    """
    lines = []
    kept_start = result.best_step == 0
    if result.fit is not None:
        fitted = result.trained if kept_start else result.validation
        scores = {key: value for key, value in fitted.items() if key != "step"}
        lines.append(format_fit(stage, result.fit, scores))
    if kept_start:
        lines.append(
            f"Stage {stage}: no epoch improved on the initial weights ({_values(result.start, metric)}; best "
            f"evaluation{_when(result)}: {_values(result.trained, metric)}), so they are restored."
        )
    elif result.best_step is not None:
        lines.append(_best_line(stage, result, metric))
    elif result.averaged:
        lines.append(f"Stage {stage}: the averaged weights are kept.")
    if result.seeds:
        singles = "; ".join(filter(None, (_values(each["validation"], leading) for each in result.seeds)))
        values = f" (mean: {_values(result.validation, leading)}; single trainings: {singles})"
        lines.append(
            f"Stage {stage}: the mean of the weights of {len(result.seeds)} trainings is kept"
            f"{values if singles else ''}."
        )
    if (metric is None or result.seeds) and _is_worse(result, leading, greater_is_better):
        reason = "The mean of the weights is" if result.seeds else "With best: null the last weights are"
        lines.append(
            f"Stage {stage}: the model became worse ({_values(result.start, leading)} at the start; "
            f"{_values(result.validation, leading)} at the end). {reason} kept."
        )
    return lines


def _best_line(stage: str, result: StageResult, metric: str | None) -> str:
    value = result.validation.get(str(metric))
    which = {None: "", True: "averaged weights", False: "raw weights"}
    details = [f"{metric} {value:.4f}" if value is not None else "", which[result.averaged]]
    shown = f" ({', '.join(filter(None, details))})" if any(details) else ""
    epoch = _epoch(result, result.best_step or 0)
    return f"Stage {stage}: best checkpoint is epoch {epoch} of {result.epochs:g}{shown}."


def _is_worse(result: StageResult, metric: str, greater_is_better: bool) -> bool:
    """Return whether a stage ends with worse weights than its initial ones; False if either was not evaluated."""
    start, end = (
        {f"eval_{name}": value for name, value in metrics.items()}
        for metrics in (result.start, result.validation)
    )
    return bool(start and end) and is_better(start, end, metric, greater_is_better=greater_is_better)


def _values(metrics: Mapping[str, float], metric: str | None) -> str:
    """Return a metric and the loss as text, as far as they are known."""
    names = [name for name in dict.fromkeys([metric, "loss"]) if name in metrics]
    return ", ".join(f"{name} {metrics[str(name)]:.4f}" for name in names)


def _when(result: StageResult) -> str:
    step = int(result.trained.get("step", 0))
    return f" in epoch {_epoch(result, step)} of {result.epochs:g}" if step else ""


def _epoch(result: StageResult, step: int) -> str:
    return f"{round(result.epochs * step / result.steps, 2):g}"


def metrics_of(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of an evaluation by name, without ``eval_`` and timings.

    Args:
        entry: Entry of the Trainer's log.
    """
    return {
        key.removeprefix("eval_"): value
        for key, value in sorted(entry.items())  # as in a log read from a checkpoint
        if key.startswith("eval_") and key not in TIMINGS
    }

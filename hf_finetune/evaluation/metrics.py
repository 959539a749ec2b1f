"""Metrics by name: those of the registry, per-class and top-k metrics, and those that ``evaluate.load`` finds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_finetune.data.slices import group_of
from hf_finetune.errors import InputError, Problem, suggestion
from hf_finetune.evaluation.error_text import cause_of
from hf_finetune.evaluation.registry import ALIASES, find_metric, known_metrics
from hf_finetune.models.remote_code import FLAG
from hf_finetune.targets import TARGETS
from hf_finetune.targets.class_metrics import COST_METRICS, split_class_metric
from hf_finetune.targets.decisions import decide, probabilities
from hf_finetune.targets.labels import UNKNOWN, TargetName
from hf_finetune.targets.metric import NO_SETTINGS, Metric, MetricSettings
from hf_finetune.targets.scored_examples import ScoredExamples, group_indices, trial_examples

if TYPE_CHECKING:
    from datasets import Dataset
    from evaluate import EvaluationModule

__all__ = [
    "all_metrics",
    "check_metric_names",
    "compute_metrics",
    "decide",
    "default_metrics",
    "defined_metrics",
    "greater_is_better",
    "groups_of",
    "label_array",
    "labels_of",
    "metric_for",
    "metric_problem",
    "misspelled_metric",
    "probabilities",
    "sign_of",
    "suggest_metric",
    "without_nan",
]

_SUM_TOLERANCE = 1e-3
_AMBIGUOUS_NAMES = frozenset({"f1", "precision", "recall", "r_squared", "spearmanr"})
"""Names that mean different metrics in this package and in ``evaluate``, so none is suggested."""
# Modules of evaluate do not declare whether greater is better; for most of them it is.
_EVALUATE_LOWER_IS_BETTER = frozenset({"mse", "mape", "mase", "smape"})
_LOADED_METRICS: dict[str, "EvaluationModule"] = {}
"""Modules that ``metric_problem`` has loaded with the user's permission; only these are computed."""


def all_metrics(
    target: TargetName, classes: int | None = None, settings: MetricSettings = NO_SETTINGS
) -> tuple[str, ...]:
    """Return the names of the metrics that every evaluation computes.

    Args:
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        classes: Number of classes, to omit metrics that are meaningless for so few classes or slow for so many; None
            omits none.
        settings: Settings; if they have costs, the expected-cost metrics are added.
    """
    names = [
        name
        for name, metric in known_metrics(target).items()
        if not metric.on_request
        and (classes is None or metric.min_classes <= classes <= (metric.max_default_classes or classes))
    ]
    return (*names, *_costs(target, settings))


def defined_metrics(target: TargetName, settings: MetricSettings = NO_SETTINGS) -> tuple[str, ...]:
    """Return the names of the metrics that can be requested, those of ``all_metrics`` first.

    Args:
        target: Label type.
        settings: Classes and costs.
    """
    first = all_metrics(target, settings=settings)
    on_request = [name for name in known_metrics(target) if name not in first]
    return (*first, *on_request)


def _costs(target: TargetName, settings: MetricSettings) -> tuple[str, ...]:
    return COST_METRICS if settings.costs and TARGETS[target].is_exclusive else ()


def default_metrics(target: TargetName) -> tuple[str, ...]:
    """Return the metrics to report when the user names none. The first one selects the best checkpoint.

    Args:
        target: Label type.
    """
    return TARGETS[target].default_metrics


def greater_is_better(name: str) -> bool:
    """Return whether greater values are better, which is assumed for metrics of ``evaluate.load`` not listed here.

    Args:
        name: Name of a metric.
    """
    if (metric := known_metrics().get(name)) is not None:
        return metric.greater_is_better
    return name not in COST_METRICS and name not in _EVALUATE_LOWER_IS_BETTER


def sign_of(name: str) -> int:
    """Return 1 if greater values of a metric are better, else -1.

    Args:
        name: Name of a metric.
    """
    return 1 if greater_is_better(name) else -1


def labels_of(dataset: "Dataset", target: TargetName, classes: int) -> np.ndarray:
    """Return the labels of a split as the array that metrics take, see ``label_array``.

    Args:
        dataset: Data with the column ``label``, and perhaps ``unknown``.
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        classes: Number of classes of the model.
    """
    unknown = dataset[UNKNOWN][:] if UNKNOWN in dataset.column_names else None
    return label_array(dataset["label"][:], target, classes, unknown)


def groups_of(dataset: "Dataset | None") -> np.ndarray | None:
    """Return the index of the group of each example of a split [examples]; None if it has no groups, or for no split.

    Args:
        dataset: Data, perhaps with a group column.
    """
    named = None if dataset is None else group_of(dataset)
    return None if named is None else group_indices(named[1])


def label_array(
    labels: Iterable[Any], target: TargetName, classes: int, unknown: Sequence[Sequence[int]] | None = None
) -> np.ndarray:
    """Convert the ``label`` column of a dataset to the array that metrics take.

    Args:
        labels: Class indices, lists of class indices, or regression targets.
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        classes: Number of classes of the model.
        unknown: For each example the classes whose label is unknown; None if there are none.

    Returns:
        Class indices [examples] (int64), regression targets [examples] (float64), or zeros and ones
        [examples, classes]: int64, or float64 with nan for unknown labels if there are any.
    """
    return TARGETS[target].label_array(list(labels), classes, unknown)


def metric_for(name: str, examples: ScoredExamples) -> Metric:
    """Return the metric with a name, for the labels of examples.

    Args:
        name: Name of ``defined_metrics``, ``top_K_accuracy``, a per-class metric (``recall:soup``), or a module of
            ``evaluate`` that ``metric_problem`` has loaded.
        examples: Labels and scores.
    """
    metric = find_metric(name, examples.settings, examples.target)
    return metric or Metric(name, partial(_compute_loaded, name))


def compute_metrics(names: Sequence[str], examples: ScoredExamples) -> dict[str, float]:
    """Compute metrics, in the order of their names.

    Args:
        names: Names of metrics, as for ``metric_for``.
        examples: Labels and scores.

    Returns:
        Value by name; nan where the metric is undefined on these examples (such as ``roc_auc`` when all are of one
        class), or where it needs all probabilities and only the highest are available.

    Raises:
        InputError: If scores are not finite, which means that the training diverged.
        ValueError: If the shapes do not match, or if single-label scores are not probabilities.
    """
    examples = _checked(examples)
    values = {}
    for name in names:
        metric = metric_for(name, examples)
        if metric.needs_all_scores and not examples.has_all_scores:
            values[name] = np.nan
        else:
            values[name] = float(metric.compute(examples if metric.takes_weights else examples.repeated()))
    return values


def _checked(examples: ScoredExamples) -> ScoredExamples:
    """Return the examples with scores in float64, and with probabilities that sum to exactly 1."""
    labels, target = np.asarray(examples.labels), examples.target
    if not examples.has_all_scores:
        _check_finite(examples.scores.values)
        return replace(examples, labels=labels)
    kind = TARGETS[target]
    scores = np.asarray(examples.scores, dtype=kind.score_type)
    dimensions = kind.score_dimensions
    if scores.ndim != dimensions or len(scores) == 0:
        raise ValueError(
            f"{target} scores must be {dimensions}-dimensional and not empty. Got shape {scores.shape}."
        )
    if not kind.labels_fit(labels.shape, scores.shape):
        raise ValueError(
            f"Labels of shape {labels.shape} do not fit {target} scores of shape {scores.shape}."
        )
    if not kind.is_text:
        _check_finite(scores)
    if kind.is_exclusive:
        sums = scores.sum(axis=1, keepdims=True)
        if np.abs(sums - 1).max() > _SUM_TOLERANCE:
            raise ValueError("Single-label scores must be probabilities that sum to 1 in each row.")
        scores = scores / sums
    return replace(examples, labels=labels, scores=scores)


def _check_finite(scores: np.ndarray) -> None:
    not_finite = ~np.isfinite(scores.reshape(len(scores), -1)).all(axis=1)
    if not_finite.any():
        repair = "The training diverged: lower lr, or use speed.precision: fp32."
        value = f"nan or infinity for {not_finite.sum()} of {len(scores)} examples"
        raise InputError(Problem("The model's output", "must be finite numbers", value, repair))


def check_metric_names(
    names: Sequence[str],
    target: TargetName,
    *,
    settings: MetricSettings = NO_SETTINGS,
    place: str = "metrics",
    trust_remote_code: bool = False,
) -> None:
    """Check before training that every metric can be computed.

    Args:
        names: Names of metrics.
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        settings: Classes and costs, for the metrics that need them.
        place: Location of the list in the recipe, for the error texts.
        trust_remote_code: Whether ``evaluate.load`` may run the script of a name outside the registry.

    Raises:
        InputError: With one problem for each metric that cannot be computed.
    """
    checked = [
        metric_problem(name, target, f"{place}[{index}]", settings, trust_remote_code=trust_remote_code)
        for index, name in enumerate(names)
    ]
    problems = [problem for problem in checked if problem is not None]
    if problems:
        raise InputError(problems)


def metric_problem(
    name: str,
    target: TargetName,
    place: str,
    settings: MetricSettings = NO_SETTINGS,
    *,
    trust_remote_code: bool = False,
) -> Problem | None:
    """Return why a metric cannot be computed; None if it can.

    With ``trust_remote_code`` a name outside this package is passed to ``evaluate.load``, which runs the script that it
    finds locally, in its cache or on the Hub, and the metric is computed on a few examples as a test. Otherwise such a
    name is an error, and nothing is looked up.

    Args:
        name: Name of the metric.
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        place: Location of the name in the recipe, for the error text.
        settings: Classes and costs, for the metrics that need them.
        trust_remote_code: Whether ``evaluate.load`` may run the script of a name outside this package.
    """
    if find_metric(name, settings):
        return _definition_problem(name, target, place, settings)
    hint = suggest_metric(name, target, settings)
    score, label = split_class_metric(name)
    if label is not None:
        return Problem(place, f"must be '{score}:' followed by a class of the data", repr(name), hint)
    known = _plain(name) in ALIASES or find_metric(_plain(name), settings) is not None
    if name in COST_METRICS or (known and name not in _AMBIGUOUS_NAMES):
        return Problem(place, f"must be a metric for the label type {target}", repr(name), hint)
    if not trust_remote_code:
        rule = f"must be a metric of this package for the label type {target} unless {FLAG} is given"
        return Problem(place, rule, repr(name), _remote_code_hint(name, hint))
    try:
        _LOADED_METRICS[name] = _load(name)
    except OSError:  # there is no such metric, or the Hub cannot be reached
        rule = f"must be a metric for the label type {target}, or one that evaluate.load finds locally or on the Hub"
        return Problem(place, rule, repr(name), hint)
    except Exception as error:  # The script may raise anything while it is imported.
        return Problem(place, "cannot be loaded by evaluate.load", repr(name), f"{cause_of(error)}.")
    try:
        _compute_loaded(name, trial_examples(target, len(settings.label_names)))
    except Exception as error:
        rule = f"cannot be computed from predictions and references of {target} data"
        return Problem(place, rule, repr(name), f"{cause_of(error)}.")
    return None


def suggest_metric(name: str, target: TargetName, settings: MetricSettings = NO_SETTINGS) -> str:
    """Return a sentence that suggests the metric, or the class of a per-class metric, that was probably meant.

    Args:
        name: The unknown name.
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        settings: Classes and costs, which determine the known metrics.
    """
    label = split_class_metric(name)[1]
    if label is not None:
        return suggestion(label, settings.label_names)
    if name in COST_METRICS and TARGETS[target].is_exclusive:
        return "Set the misclassification costs in evaluation.costs."
    plain = _plain(name)
    alias = ALIASES.get(plain, plain)
    if find_metric(alias, settings, target):
        return f"Use {alias!r}."
    return suggestion(plain, defined_metrics(target, settings))


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_").removeprefix("eval_").removeprefix("test_")


def _definition_problem(
    name: str, target: TargetName, place: str, settings: MetricSettings
) -> Problem | None:
    metric = find_metric(name, settings, target)
    if metric is None:
        known = ", ".join(map(repr, defined_metrics(target, settings)))
        rule = f"must be a metric for the label type {target}"
        return Problem(place, rule, repr(name), f"Known: {known}.")
    classes = len(settings.label_names)
    if name not in known_metrics() and 0 < classes < metric.min_classes:
        return Problem(place, f"must have a k smaller than the number of classes ({classes})", repr(name))
    return None


def misspelled_metric(name: str, place: str) -> Problem | None:
    """Return the problem of a misspelled metric name, for any label type; None for any other name.

    Args:
        name: Name that the user wrote.
        place: Where the user wrote it.
    """
    close = suggestion(_plain(name), list(known_metrics()))
    is_known = find_metric(name, NO_SETTINGS) is not None or split_class_metric(name)[1] is not None
    if is_known or name in COST_METRICS or not close.startswith("Nearest"):
        return None
    return Problem(place, "must be a metric", repr(name), close)


@cache
def _load(name: str) -> "EvaluationModule":
    import evaluate

    return evaluate.load(name, keep_in_memory=True)


def _remote_code_hint(name: str, hint: str) -> str:
    """Return a sentence on the script that ``evaluate.load`` would run for a name: a local one, else one of the Hub."""
    path = Path(name)
    for script in (path, path / f"{path.name}.py"):
        if script.suffix == ".py" and script.is_file():
            return f"With the option, evaluate.load runs the script {str(script.absolute())!r}."
    elsewhere = f"the script {name!r} of the Hub, or its cached copy"
    return f"{hint} With the option, evaluate.load runs {elsewhere}."


def _compute_loaded(name: str, examples: ScoredExamples) -> float:
    """Compute a module of evaluate, and return the value under its own name, or else its only value."""
    if name not in _LOADED_METRICS:
        rule = f"must be a metric of this package unless {FLAG} is given"
        raise InputError(Problem("metrics", rule, repr(name)))
    predictions, references = examples.decisions.tolist(), examples.labels.tolist()
    values = _LOADED_METRICS[name].compute(predictions=predictions, references=references)
    if isinstance(values, dict):
        if name not in values and len(values) != 1:
            raise ValueError(f"it returns several values: {', '.join(map(repr, values))}.")
        values = values[name] if name in values else next(iter(values.values()))
    return float(values)


def without_nan(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return the metrics with None, which is null in JSON, in place of nan and infinity.

    Args:
        metrics: Value of each metric.
    """
    return {name: value if np.isfinite(value) else None for name, value in metrics.items()}

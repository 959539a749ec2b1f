"""Rank checkpoints by how well a linear classifier on their frozen features predicts held-out training examples."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.data.prepare import LabeledData
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.compare import Difference, paired_difference
from hf_finetune.evaluation.intervals import intervals
from hf_finetune.evaluation.linear_probe import check_work
from hf_finetune.evaluation.metrics import (
    compute_metrics,
    default_metrics,
    labels_of,
    probabilities,
    sign_of,
)
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.prepare import prepare_with_data
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.search.frozen import load_network
from hf_finetune.search.log_me import log_me
from hf_finetune.targets import TARGETS
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.training.linear_fit import fit_best, fit_linear
from hf_finetune.training.linear_folds import assign_folds

__all__ = ["RankedCheckpoint", "Ranking", "choose_checkpoint"]

logger = logging.getLogger(__name__)

MAX_EXAMPLES = 5000
"""Largest number of training examples whose features are computed."""
FIRST_ROUND = 1000
"""Number of examples after which candidates that are clearly worse than the best one are dropped."""
NO_TIME = "no time was left"
"""Reason why a checkpoint is not ranked."""
Progress = Callable[[str, int, int], None]
"""Function that is called with the checkpoint, its position from 1, and the number of checkpoints of the round."""


@dataclass(frozen=True)
class RankedCheckpoint:
    """Result of a checkpoint.

    Attributes:
        model: Path or Hub id.
        examples: Number of examples of the last round in which it took part.
        value: Cross-validated metric of a linear classifier on its frozen features.
        interval: Ends of the 95 % interval of the metric; None if it is not defined.
        log_me: LogME score of the features.
        parameters: Number of parameters of the model with its head.
        milliseconds: Time of an example on this machine: preprocessing and a forward pass, in a batch.
        input_size: Size of an input in words.
        pooling: Token pooling of the best features; empty for images.
        difference: Test of the difference of its metric to that of the best checkpoint; None for the best itself, and
            after it was dropped.
        dropped: Whether it was dropped after the first round.
    """

    model: str
    examples: int
    value: float
    interval: tuple[float, float] | None
    log_me: float
    parameters: int
    milliseconds: float
    input_size: str
    pooling: str
    difference: Difference | None = None
    dropped: bool = False

    @property
    def is_as_good(self) -> bool:
        """Whether it is the best checkpoint, or cannot be distinguished from it."""
        return not self.dropped and (
            self.difference is None or self.difference.verdict == "not distinguishable"
        )

    @property
    def comparison(self) -> str:
        """Result of the comparison to the best checkpoint, in words."""
        if self.dropped:
            return "dropped early"
        if self.difference is None:
            return "best"
        return "not distinguishable" if self.is_as_good else "worse"


@dataclass(frozen=True)
class Ranking:
    """Ranking of checkpoints.

    Attributes:
        metric: Metric by which they are ranked.
        ranked: The checkpoints, the best first.
        refused: Reason of each checkpoint that cannot be used, by its name.
    """

    metric: str
    ranked: tuple[RankedCheckpoint, ...]
    refused: dict[str, str]


@dataclass(frozen=True)
class _Scored:
    entry: RankedCheckpoint
    examples: ScoredExamples


def check_solver(command: str, target: str) -> None:
    """Raise ``InputError`` if no solver fits a head on frozen features for a label type.

    Args:
        command: Command that needs one.
        target: Name of the label type.
    """
    if TARGETS[target].linear_solver is None:
        rule = f"does not support {target} labels, whose loss no solver minimizes"
        raise InputError(Problem(command, rule, repair="Choose by tune, with a recipe for each checkpoint."))


def choose_checkpoint(
    models: Iterable[str],
    recipe_for: Callable[[str], Recipe],
    data: LabeledData,
    *,
    deadline: float | None = None,
    progress: Progress | None = None,
    trust_remote_code: bool = False,
) -> Ranking:
    """Rank checkpoints by the cross-validated metric of a linear classifier on their frozen features.

    Features are computed of training examples only. They are kept in the prefix cache, so that an interrupted call
    continues where it stopped. With many examples, checkpoints whose interval is entirely worse than that of the best
    one are dropped after a first round.

    Args:
        models: Paths or Hub ids.
        recipe_for: Function that returns the recipe with a checkpoint.
        data: Labeled data.
        deadline: Time of ``perf_counter`` by which checkpoints are scored, except the first of a round; None is any.
        progress: Called before each checkpoint.
        trust_remote_code: Whether code of checkpoints may run.

    Returns:
        The ranking.

    Raises:
        InputError: If no checkpoint can be used, or no solver fits the head for the label type.
    """
    check_solver("choose", data.target)
    metric = default_metrics(data.target)[0]
    refused: dict[str, str] = {}
    prepared = _prepare(models, recipe_for, data, refused, trust_remote_code)
    sizes = sorted({min(len(data.train), size) for size in (FIRST_ROUND, MAX_EXAMPLES)})
    dropped: list[_Scored] = []
    scored: dict[str, _Scored] = {}
    for size in sizes:
        if scored and deadline is not None and perf_counter() > deadline:
            break
        found = _score_all(prepared, _subset(data, size), metric, refused, progress, deadline)
        late = [model for model in prepared if refused.get(model) == NO_TIME]
        if scored and late:  # the scores of the round before are those of the same examples for all
            for model in late:
                del refused[model]
            break
        scored = found
        if not scored:
            reasons = {model: reason.removesuffix(".") for model, reason in refused.items()}
            raise InputError(
                [Problem(model, f"cannot be ranked: {reason}") for model, reason in reasons.items()]
            )
        if size != sizes[-1]:
            worse = _clearly_worse(scored, metric)
            dropped += [
                replace(scored[model], entry=replace(scored[model].entry, dropped=True)) for model in worse
            ]
            prepared = {model: prepared[model] for model in scored if model not in worse}
    return Ranking(metric, (*_compared(scored, metric), *_ordered(dropped, metric)), refused)


def _score_all(
    prepared: Mapping[str, PreparedRun],
    data: LabeledData,
    metric: str,
    refused: dict[str, str],
    progress: Progress | None,
    deadline: float | None,
) -> dict[str, _Scored]:
    """Score checkpoints; reasons of those that are not scored are added to ``refused``."""
    scored = dict[str, _Scored]()
    for position, (model, run) in enumerate(prepared.items(), 1):
        if scored and deadline is not None and perf_counter() > deadline:
            refused[model] = NO_TIME
            continue
        if progress is not None:
            progress(model, position, len(prepared))
        try:
            scored[model] = _score(model, run, data, metric, deadline if scored else None)
        except CacheUnavailableError as error:
            refused[model] = str(error)
        except InputError as error:
            refused[model] = str(error.problems[0])
    return scored


def _prepare(
    models: Iterable[str],
    recipe_for: Callable[[str], Recipe],
    data: LabeledData,
    refused: dict[str, str],
    trust_remote_code: bool,
) -> dict[str, PreparedRun]:
    """Return the checked run of each checkpoint; reasons of those that cannot be used are added to ``refused``."""
    prepared = {}
    for model in dict.fromkeys(models):
        try:
            prepared[model] = prepare_with_data(recipe_for(model), data, trust_remote_code=trust_remote_code)
        except InputError as error:
            refused[model] = str(error.problems[0])
    return prepared


def _subset(data: LabeledData, size: int) -> LabeledData:
    """Return the data with a random part of the training examples, the same for all checkpoints."""
    if size == len(data.train):
        return data
    rows = np.sort(np.random.default_rng(0).permutation(len(data.train))[:size]).tolist()
    groups = tuple(data.train_groups[row] for row in rows) if data.train_groups else ()
    # features are cached by fingerprint: those of other examples must not be read
    fingerprint = hashlib.sha256(f"{data.fingerprint} {size}".encode()).hexdigest()
    return replace(
        data,
        train=data.train.select(rows),
        train_groups=groups,
        hashes={},
        fingerprint=fingerprint,
        split_fingerprints={},
    )


def _score(
    model: str, prepared: PreparedRun, data: LabeledData, metric: str, deadline: float | None
) -> _Scored:
    """Compute the features of the training examples, and the metric of held-out predictions.

    Raises:
        CacheUnavailableError: If the features cannot be computed, or not by the deadline, or a fit to them would take
            too long.
        InputError: If the weights cannot be loaded, or the features are not finite.
    """
    frozen = load_network(prepared, data)
    recipe, milliseconds = prepared.recipe, frozen.milliseconds()
    if deadline is not None and perf_counter() + milliseconds * len(data.train) / 1000 > deadline:
        raise CacheUnavailableError(NO_TIME)
    by_pooling = frozen.features()
    target, classes = data.target, len(data.label_names)
    check_work(by_pooling, classes)
    labels = labels_of(data.train, target, classes)
    folds = assign_folds(data.train["label"][:], target, 1, recipe.seed, groups=data.train_groups)
    pooling, fit, _ = fit_best(by_pooling, labels, target, classes, folds)
    outputs = _held_out_outputs(by_pooling[pooling], labels, target, classes, fit.inverse_strength, folds)
    is_grouped = len(set(data.train_groups)) < len(data.train_groups)
    groups = np.asarray(data.train_groups) if is_grouped else None
    examples = ScoredExamples(labels, probabilities(outputs, target), target, prepared.decision_rule, groups)
    batch = frozen.inputs.collate([frozen.inputs.train[0]])
    entry = RankedCheckpoint(
        model=model,
        examples=len(data.train),
        value=compute_metrics([metric], examples)[metric],
        interval=intervals([metric], examples, seed=recipe.seed)[metric],
        log_me=log_me(by_pooling[pooling], _one_hot(labels, classes)),
        parameters=sum(weight.numel() for weight in frozen.network.parameters()),
        milliseconds=milliseconds,
        input_size=prepared.task.modality.format_size(batch),
        pooling=pooling,
    )
    return _Scored(entry, examples)


def _held_out_outputs(
    features: np.ndarray,
    labels: np.ndarray,
    target: TargetName,
    classes: int,
    inverse_strength: float,
    folds: np.ndarray,
) -> np.ndarray:
    """Return the outputs for each example of the linear layer that was fitted to the other folds.

    Args:
        features: Features [examples, features].
        labels: Labels as in ``fit_linear``.
        target: Label type.
        classes: Number of classes; 1 for regression.
        inverse_strength: Inverse regularization strength of all fits.
        folds: Fold number of each example, from ``assign_folds``.

    Returns:
        Logits, or continuous predictions, [examples, outputs].
    """
    parts = []
    for fold in np.unique(folds).tolist():
        held_out = folds == fold
        fit = fit_linear(features[~held_out], labels[~held_out], target, classes, (inverse_strength,))
        parts.append(fit(features[held_out]))
    outputs = np.empty((len(features), parts[0].shape[1]))
    outputs[np.argsort(folds, kind="stable")] = np.concatenate(parts)
    return outputs


def _one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return labels as numbers [examples, outputs]."""
    if labels.ndim == 2:
        return np.nan_to_num(labels)
    return np.eye(classes)[labels] if labels.dtype.kind == "i" else labels[:, None]


def _ordered(scored: Iterable[_Scored], metric: str) -> list[RankedCheckpoint]:
    return sorted((result.entry for result in scored), key=lambda entry: -sign_of(metric) * entry.value)


def _clearly_worse(scored: dict[str, _Scored], metric: str) -> list[str]:
    """Return the checkpoints whose interval does not reach that of the best checkpoint."""
    leader = _ordered(scored.values(), metric)[0]
    if leader.interval is None:
        return []
    end = 1 if sign_of(metric) > 0 else 0  # the end of an interval that is nearer to better values
    limit = sign_of(metric) * leader.interval[1 - end]
    return [
        name
        for name, result in scored.items()
        if result.entry.interval and sign_of(metric) * result.entry.interval[end] < limit
    ]


def _compared(scored: dict[str, _Scored], metric: str) -> Sequence[RankedCheckpoint]:
    """Return the checkpoints in order, each with the test of its difference to the best one."""
    ranked = _ordered(scored.values(), metric)
    best = scored[ranked[0].model].examples
    compared = [ranked[0]]
    for entry in ranked[1:]:
        difference = paired_difference(metric, best, scored[entry.model].examples, seed=0)
        compared.append(replace(entry, difference=difference))
    return compared

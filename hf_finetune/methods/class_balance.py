"""Correct class imbalance by class weights, logit adjustment, focal loss or class-balanced sampling.

Each loss here is a sum over the micro-batch divided by the number of labels in the whole batch, as in ``loss_for``, so
the gradient does not depend on the number of micro-batches and processes. Computed single-label weights have a mean of
1 over the training examples, so learning rates keep their meaning; normalizing by the weights in a batch instead would
cancel their effect in small batches.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import Sampler

from hf_finetune.data.sampling import generator_of, sample_with_cycling, shuffle_by_length
from hf_finetune.errors import Problem, suggestion
from hf_finetune.methods.base import Loss, Method, StageContext
from hf_finetune.planning.stages import StagePlan
from hf_finetune.recipe.balance import BalanceSpec, EffectiveNumber, FocalLoss, LogitAdjustment, WithWeights
from hf_finetune.recipe.method_rules import CLASS_BALANCE
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.stage_fields import StageSettings, StageSpec
from hf_finetune.targets import TARGETS
from hf_finetune.targets.cross_entropy import weighted_cross_entropy
from hf_finetune.targets.losses import label_weights, loss_for, valid_labels

__all__ = [
    "BalancedSampler",
    "ClassBalance",
    "balanced_loss",
    "build_class_balance",
    "class_weights",
    "effective_numbers",
    "label_problems",
]


@dataclass(frozen=True)
class ClassBalance(Method):
    """Correct the class imbalance of a training split.

    Attributes:
        class_weights: Class weights [classes]: factor on the loss of a class's examples (multi-label: of its positive
            labels); None is 1.
        logit_adjustments: Logit adjustments [classes], added to the logits in the loss only; None for none.
        gamma: Exponent of the focal loss; None for cross-entropy.
        classes: Class index of each training example for class-balanced sampling; None for the default sampler.
    """

    class_weights: tuple[float, ...] | None = None
    logit_adjustments: tuple[float, ...] | None = None
    gamma: float | None = None
    classes: tuple[int, ...] | None = None

    rules = CLASS_BALANCE

    @classmethod
    def is_used(cls, recipe: Recipe, spec: StageSpec, plan: StagePlan) -> bool:
        """Return whether the stage has a correction."""
        return spec.balance.method != "none"

    @classmethod
    def build(cls, context: StageContext) -> "ClassBalance | None":
        """Return the correction for a single-task recipe; in a multi-task recipe, the joint loss includes it."""
        if len(context.tasks) != 1:
            return None
        task = context.tasks[0]
        return build_class_balance(context.stage.spec.balance, task.target, task.labels, task.label_names)

    def base_loss(self, target: str, label_smoothing: float) -> Loss:
        """Return the balanced loss of the labels."""
        return balanced_loss(target, self, label_smoothing)

    def fit_options(self) -> Mapping[str, Any]:
        """Return class weights and logit adjustments."""
        return {"class_weights": self.class_weights, "logit_adjustments": self.logit_adjustments}

    def sampler(
        self, seed: int, lengths: Sequence[int] | None, examples_per_step: int
    ) -> "BalancedSampler | None":
        """Return the class-balanced sampler, or None for another correction."""
        if self.classes is None:
            return None
        return BalancedSampler(self.classes, seed, lengths, examples_per_step)


def build_class_balance(
    spec: BalanceSpec, target: str, labels: Iterable[Any], label_names: Sequence[str]
) -> ClassBalance | None:
    """Return the class-balancing settings of a recipe for a training split; None if the method is ``none``.

    Args:
        spec: ``balance`` of a recipe in which ``label_problems`` finds no problem.
        target: ``single_label`` or ``multi_label``.
        labels: Class index, or list of class indices, of each training example.
        label_names: Names of the classes.
    """
    if spec.method == "none":
        return None
    if spec.method == "sampler":
        return ClassBalance(classes=tuple(labels))
    by_class = spec.weights if isinstance(spec, WithWeights) else None
    weights = None if by_class is None else tuple(by_class.get(name, 1.0) for name in label_names)
    if isinstance(spec, FocalLoss):
        return ClassBalance(class_weights=weights, gamma=spec.gamma)
    if weights is not None:
        return ClassBalance(class_weights=weights)
    labels = list(labels)
    examples = len(labels)
    class_sizes = _class_sizes(labels, target, len(label_names))
    if isinstance(spec, LogitAdjustment):
        return ClassBalance(logit_adjustments=_logit_adjustments(class_sizes, examples, target, spec.tau))
    beta = spec.beta if isinstance(spec, EffectiveNumber) else None
    return ClassBalance(class_weights=class_weights(class_sizes, examples, target, beta))


def class_weights(
    class_sizes: Sequence[int], examples: int, target: str, beta: float | None = None
) -> tuple[float, ...]:
    """Compute class weights that are inversely proportional to class sizes.

    Single-label: examples / (classes x class size), as scikit-learn's ``balanced``, so all classes have the same total
    weight. Multi-label: each class is a binary problem, and its positives get the weight negatives / positives, as
    torch suggests for ``pos_weight``. With ``beta``, effective numbers replace the class sizes, and single-label
    weights are scaled to a mean of 1 over all examples, whereas in the paper they sum to the number of classes.

    Args:
        class_sizes: Number of examples of each class; 0 is counted as 1.
        examples: Number of examples.
        target: ``single_label`` or ``multi_label``.
        beta: Parameter of the effective number, in [0, 1); None uses the class sizes.

    Returns:
        Weight of each class, above 0.

    Source: King & Zeng 2001, and scikit-learn's ``compute_class_weight``; with ``beta`` Cui et al. 2019,
        Class-Balanced Loss Based on Effective Number of Samples.
    """
    positive_counts = [max(1, size) for size in class_sizes]
    positives = effective_numbers(positive_counts, beta)
    if TARGETS[target].has_several_classes:
        negative_counts = [max(1, examples - size) for size in class_sizes]
        negatives = effective_numbers(negative_counts, beta)
        return tuple(negative / positive for negative, positive in zip(negatives, positives, strict=True))
    total = sum(size / number for size, number in zip(class_sizes, positives, strict=True))
    return tuple(examples / total / number for number in positives)


def effective_numbers(sizes: Sequence[int], beta: float | None) -> list[float]:
    """Return the effective number of examples of each class: the n-th example adds beta^(n - 1).

    Args:
        sizes: Number of examples of each class.
        beta: Weight of each example relative to the previous one, in [0, 1); None returns the sizes.

    Source: Cui et al. 2019: (1 - beta^n) / (1 - beta).
    """
    if beta is None:
        return [float(size) for size in sizes]
    return [(1 - beta**size) / (1 - beta) for size in sizes]


def _logit_adjustments(
    class_sizes: Sequence[int], examples: int, target: str, tau: float
) -> tuple[float, ...]:
    """Return the logit adjustment of each class: tau times its log frequency, or its log odds (multi-label).

    Source: Menon et al. 2021, Long-tail learning via logit adjustment: f(x) + tau x log(frequency) in the loss.
    """
    sizes = [max(1, size) for size in class_sizes]
    if TARGETS[target].has_several_classes:
        return tuple(tau * log(size / max(1, examples - size)) for size in sizes)
    return tuple(tau * log(size / examples) for size in sizes)


def _class_sizes(labels: Sequence[Any], target: str, classes: int) -> list[int]:
    """Return the number of examples of each class."""
    sizes = [0] * classes
    for label in labels:
        for index in label if TARGETS[target].has_several_classes else (label,):
            sizes[index] += 1
    return sizes


def balanced_loss(
    target: str, balance: ClassBalance | None, label_smoothing: float = 0.0
) -> Callable[..., torch.Tensor]:
    """Return the loss function of a stage, see ``loss_for``, with class weights, logit adjustment or focal loss.

    Args:
        target: ``single_label`` or ``multi_label``; without a balance also any other.
        balance: Correction of class imbalance, from ``build_class_balance``; None for none.
        label_smoothing: Fraction of each label that is distributed over all classes, in [0, 1). With class weights,
            the loss of an example, including the smoothed part, is weighted by the class of the example. torch weights
            the smoothed part by the classes over which it is distributed, so with very different weights, examples of
            other classes are predicted as a rare class.

    Returns:
        Function from outputs, labels and ``num_items_in_batch`` to a scalar.
    """
    plain = loss_for(target, label_smoothing)
    if balance is None or (
        balance.class_weights is None and balance.logit_adjustments is None and balance.gamma is None
    ):
        return plain

    def loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        logits = (outputs["logits"] if isinstance(outputs, dict) else outputs[0]).float()
        if balance.logit_adjustments is not None:
            adjusted = logits + logits.new_tensor(balance.logit_adjustments)
            return plain((adjusted,), labels, num_items_in_batch)
        weights = None if balance.class_weights is None else logits.new_tensor(balance.class_weights)
        valid = valid_labels(labels)
        items = label_weights(labels, target).sum() if num_items_in_batch is None else num_items_in_batch
        if TARGETS[target].has_several_classes or labels.ndim > 1:
            labels = labels.where(valid, 0).to(logits)
        if balance.gamma is not None:
            losses = _focal(logits, labels, target, balance.gamma, weights)
        elif TARGETS[target].has_several_classes:
            losses = functional.binary_cross_entropy_with_logits(
                logits, labels, pos_weight=weights, reduction="none"
            )
        else:
            losses = _weighted(logits, labels, weights, label_smoothing)
        # probability labels include the example's weight, and are 0 for padding examples
        total = (losses * valid).sum() if losses.ndim == valid.ndim else losses.sum()
        return total / items

    return loss


def _weighted(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """Return the cross-entropy of each example [batch], smoothed and then weighted by its class.

    Args:
        logits: Logits [batch, classes].
        labels: Class indices [batch], -100 to ignore; or class probabilities [batch, classes].
        weights: Class weights [classes]; None is 1.
        smoothing: Fraction of each label that is distributed over all classes.
    """
    probabilities = _as_probabilities(labels, logits) * (1.0 if weights is None else weights)
    return weighted_cross_entropy(logits, probabilities, smoothing)


def _as_probabilities(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Return labels as class probabilities [batch, classes]; ignored labels (-100) become class 0."""
    if labels.ndim > 1:
        return labels
    return functional.one_hot(labels.clamp(min=0), logits.shape[-1]).to(logits)


def _focal(
    logits: torch.Tensor, labels: torch.Tensor, target: str, gamma: float, weights: torch.Tensor | None
) -> torch.Tensor:
    """Return the focal loss of each example [batch], or of each label [batch, classes] (multi-label).

    The cross-entropy is multiplied by (1 - p)^gamma, where p is the probability of the true label, so confident correct
    predictions have less weight.

    Args:
        logits: Logits [batch, classes].
        labels: Class indices [batch], -100 to ignore; or class probabilities [batch, classes]; or zeros and ones
            [batch, classes] (multi-label).
        target: ``single_label`` (softmax) or ``multi_label`` (sigmoid).
        gamma: Exponent.
        weights: Class weights [classes], the paper's alpha; None is 1.

    Source: Lin et al. 2017, Focal Loss for Dense Object Detection.
    """
    weights = logits.new_ones(logits.shape[-1]) if weights is None else weights
    if TARGETS[target].has_several_classes:
        log_positive, log_negative = functional.logsigmoid(logits), functional.logsigmoid(-logits)
        positives = labels * weights * _focal_modulator(log_positive, gamma) * log_positive
        return -(positives + (1 - labels) * _focal_modulator(log_negative, gamma) * log_negative)
    log_probabilities = functional.log_softmax(logits, dim=-1)
    weighted = _as_probabilities(labels, logits) * weights
    return -(weighted * _focal_modulator(log_probabilities, gamma) * log_probabilities).sum(dim=-1)


def _focal_modulator(log_probability: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return (1 - p)^gamma, with 1 - p clamped from below: for gamma < 1 the gradient at p = 1 would be infinite."""
    epsilon = torch.finfo(log_probability.dtype).eps
    modulator: torch.Tensor = (-torch.expm1(log_probability)).clamp(min=epsilon) ** gamma
    return modulator


class BalancedSampler(Sampler[int]):
    """Sample all classes equally often; the length of an epoch is the number of examples.

    The examples of a class are cycled through in random order: those of a rare class are sampled several times per
    epoch, and some of a frequent class not at all. The sample depends on seed and epoch only, so it is the same after a
    resume and on all processes.

    Args:
        classes: Class index of each example.
        seed: Random seed.
        lengths: Number of tokens of each example, to group examples of similar length; None for random order.
        examples_per_step: Number of examples per optimizer step, over all processes.

    Source: Kang et al. 2020, class-balanced sampling.
    """

    def __init__(
        self,
        classes: Sequence[int],
        seed: int,
        lengths: Sequence[int] | None = None,
        examples_per_step: int = 1,
    ):
        self.size = len(classes)
        self.seed = seed
        self.lengths = lengths
        self.examples_per_step = examples_per_step
        self.epoch = 0
        indices: dict[int, list[int]] = {}
        for index, label in enumerate(classes):
            indices.setdefault(label, []).append(index)
        self.class_indices = [torch.tensor(indices[label]) for label in sorted(indices)]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, on which the sample depends.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = generator_of(self.seed, self.epoch)
        per_class, remainder = divmod(self.size, len(self.class_indices))
        with_extra = set(torch.randperm(len(self.class_indices), generator=generator)[:remainder].tolist())
        sample = torch.cat(
            [
                sample_with_cycling(indices, per_class + (number in with_extra), generator)
                for number, indices in enumerate(self.class_indices)
            ]
        )
        return shuffle_by_length(sample, self.lengths, self.examples_per_step, generator)


def label_problems(
    stage: StageSettings, place: str, target: str, label_names: Sequence[str]
) -> list[Problem]:
    """Return the problems of label smoothing and class balance of a stage for the label type.

    Args:
        stage: Stage or strategy of a recipe.
        place: Path of the stage in the recipe.
        target: Label type.
        label_names: Names of the classes.

    Returns:
        The problems; empty if there are none.
    """
    problems = []
    if stage.label_smoothing and not TARGETS[target].is_exclusive:
        rule = "must be 0 unless each example has exactly one class"
        problems.append(Problem(f"{place}.label_smoothing", rule, str(stage.label_smoothing)))
    method = stage.balance.method
    if method != "none" and not TARGETS[target].has_classes:
        problems.append(Problem(f"{place}.balance", f"must be none for {target} labels", repr(method)))
    elif method != "none" and not TARGETS[target].has_standard_loss:
        rule = f"must be none for the label type {target}, which has its own loss"
        problems.append(Problem(f"{place}.balance", rule, repr(method)))
    elif method == "sampler" and TARGETS[target].has_several_classes:
        repair = (
            "Oversampling a rare class also oversamples the other classes of its examples. Use class_weights."
        )
        rule = "must not be sampler for multi-label data"
        problems.append(Problem(f"{place}.balance", rule, "", repair))
    elif isinstance(stage.balance, WithWeights):
        for name in stage.balance.weights or ():
            if name not in label_names:
                rule = "must contain only classes of the data"
                problems.append(
                    Problem(f"{place}.balance.weights", rule, repr(name), suggestion(name, label_names))
                )
    return problems

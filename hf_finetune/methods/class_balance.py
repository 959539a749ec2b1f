"""Give scarce classes their share: by what the loss of an example counts, or by how often it is drawn.

Every loss here is a sum over the micro-batch, divided by the labels of the whole batch, as ``loss_for`` gives it: so
the gradient does not depend on how many micro-batches and processes share a batch. Weights that are worked out have
the mean 1 over the training examples, so that rates mean what they mean without them; to divide by the weights of a
batch instead would take them away again where a batch is small.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import Sampler

from hf_finetune.data.sampling import generator_of, sample_with_cycling, shuffle_by_length
from hf_finetune.errors import Problem, nearest
from hf_finetune.recipe.balance import BalanceSpec
from hf_finetune.recipe.schema import StageSettings
from hf_finetune.targets.losses import label_weights, loss_for, valid_labels, weighted_cross_entropy

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
class ClassBalance:
    """How scarce classes get their share, for one set of training examples.

    Attributes:
        factors: For each class the factor on the loss of its examples; of multi-label data on that of its members.
        shifts: For each class what is added to its logit in the loss, and nowhere else.
        gamma: Exponent of the focal loss; None for the usual one.
        classes: The class of each training example, if each class is to be drawn alike.
    """

    factors: tuple[float, ...] | None = None
    shifts: tuple[float, ...] | None = None
    gamma: float | None = None
    classes: tuple[int, ...] | None = None


def build_class_balance(
    spec: BalanceSpec, target: str, labels: Iterable[Any], label_names: Sequence[str]
) -> ClassBalance | None:
    """Work out what a recipe's ``balance`` means for some training examples; None if nothing is to be done.

    Args:
        spec: From a recipe, without what ``label_problems`` finds in it.
        target: ``single_label`` or ``multi_label``.
        labels: Of each training example its class, or its classes.
        label_names: The classes.
    """
    if spec.method == "none":
        return None
    if spec.method == "sampler":
        return ClassBalance(classes=tuple(labels))
    given = spec.weights
    factors = None if given is None else tuple(given.get(name, 1.0) for name in label_names)
    if spec.method == "focal":
        return ClassBalance(factors=factors, gamma=spec.gamma)
    if factors is not None:
        return ClassBalance(factors=factors)
    labels = list(labels)
    members, examples = _count(labels, target, len(label_names)), len(labels)
    if spec.method == "logit_adjustment":
        return ClassBalance(shifts=_log_shares(members, examples, target, spec.tau))
    beta = spec.beta if spec.method == "effective_number" else None
    return ClassBalance(factors=class_weights(members, examples, target, beta))


def class_weights(
    members: Sequence[int], examples: int, target: str, beta: float | None = None
) -> tuple[float, ...]:
    """Give each class the weight that makes up for its size.

    Each class of single-label data is to weigh alike: examples / (classes x members), as scikit-learn's ``balanced``.
    Each class of multi-label data is a question of its own, in which members weigh as much as all others together:
    others / members, as torch suggests for ``pos_weight``. With ``beta`` the effective number of members takes the
    place of their number, and the weights of single-label data are scaled to the mean 1 over all examples, where the
    paper lets them sum to the number of classes.

    Args:
        members: Number of examples of each class. A class without any is counted as 1.
        examples: Number of examples.
        target: ``single_label`` or ``multi_label``.
        beta: Of the effective number, in [0, 1); None for the number itself.
    Source: King & Zeng 2001, and scikit-learn's ``compute_class_weight``; with ``beta`` Cui et al. 2019,
        Class-Balanced Loss Based on Effective Number of Samples.
    """
    sizes = [max(1, count) for count in members]
    worth = [float(size) for size in sizes] if beta is None else effective_numbers(sizes, beta)
    if target == "multi_label":
        others = [max(1, examples - count) for count in members]
        against = [float(other) for other in others] if beta is None else effective_numbers(others, beta)
        return tuple(rest / own for rest, own in zip(against, worth, strict=True))
    total = sum(count / each for count, each in zip(members, worth, strict=True))
    return tuple(examples / total / each for each in worth)


def effective_numbers(sizes: Sequence[int], beta: float) -> list[float]:
    """Count what the examples of each class are worth, if each adds ``beta`` times what the one before it did.

    Source: Cui et al. 2019: (1 - beta^n) / (1 - beta).
    """
    return [(1 - beta**size) / (1 - beta) for size in sizes]


def _log_shares(members: Sequence[int], examples: int, target: str, tau: float) -> tuple[float, ...]:
    """Give what logit adjustment adds to each logit; of multi-label data the log-odds of each class.

    Source: Menon et al. 2021, Long-tail learning via logit adjustment: the loss takes f(x) + tau x log(share).
    """
    sizes = [max(1, count) for count in members]
    if target == "multi_label":
        return tuple(tau * log(size / max(1, examples - size)) for size in sizes)
    return tuple(tau * log(size / examples) for size in sizes)


def _count(labels: Sequence[Any], target: str, classes: int) -> list[int]:
    """Count the examples of each class."""
    found = [0] * classes
    for label in labels:
        for each in label if target == "multi_label" else (label,):
            found[each] += 1
    return found


def balanced_loss(
    target: str, balance: ClassBalance | None, label_smoothing: float = 0.0
) -> Callable[..., torch.Tensor]:
    """Give the loss of a stage, see ``loss_for``, with what a balance changes of it.

    Args:
        target: ``single_label`` or ``multi_label``; without a balance ``regression`` too.
        balance: From ``build_class_balance``.
        label_smoothing: Share of each label's weight that is spread over all classes, in [0, 1). With weights, the
            whole loss of an example gets that of its class. torch gives what is spread the weight of the class that
            it goes to, by which a scarce class wins the examples of the others where weights are far apart.
    """
    plain = loss_for(target, label_smoothing)
    if balance is None or (balance.factors is None and balance.shifts is None and balance.gamma is None):
        return plain

    def loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        logits = (outputs["logits"] if isinstance(outputs, dict) else outputs[0]).float()
        if balance.shifts is not None:
            return plain((logits + logits.new_tensor(balance.shifts),), labels, num_items_in_batch)
        factors = None if balance.factors is None else logits.new_tensor(balance.factors)
        known = valid_labels(labels)
        items = label_weights(labels, target).sum() if num_items_in_batch is None else num_items_in_batch
        if target == "multi_label" or labels.ndim > 1:
            labels = labels.where(known, 0).to(logits)
        if balance.gamma is not None:
            each = _focal(logits, labels, target, balance.gamma, factors)
        elif target == "multi_label":
            each = functional.binary_cross_entropy_with_logits(
                logits, labels, pos_weight=factors, reduction="none"
            )
        else:
            each = _weighted(logits, labels, factors, label_smoothing)
        # labels that are shares of the classes have the weight in them, and fillers no share
        total = (each * known).sum() if each.ndim == known.ndim else each.sum()
        return total / items

    return loss


def _weighted(
    logits: torch.Tensor, labels: torch.Tensor, factors: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """Give the cross-entropy of each example [batch], smoothed, and then weighted by its class.

    Args:
        logits: [batch, classes].
        labels: Classes [batch], -100 for none; or the share of each class [batch, classes].
        factors: Of each class; None is 1.
        smoothing: Share of each label that is spread over all classes.
    """
    shares = _as_shares(labels, logits) * (1.0 if factors is None else factors)
    return weighted_cross_entropy(logits, shares, smoothing)


def _as_shares(labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Write classes as the share of each class [batch, classes]; those that are unknown become the first one."""
    if labels.ndim > 1:
        return labels
    return functional.one_hot(labels.clamp(min=0), logits.shape[-1]).to(logits)


def _focal(
    logits: torch.Tensor, labels: torch.Tensor, target: str, gamma: float, factors: torch.Tensor | None
) -> torch.Tensor:
    """Give the focal loss of each example [batch], or of each class of each example [batch, classes].

    What the model is sure of counts less: the cross-entropy is taken (1 - p)^gamma times, p being the probability of
    what is right.

    Args:
        logits: [batch, classes].
        labels: Classes [batch], -100 for none; or the share of each class [batch, classes].
        target: ``single_label`` (softmax) or ``multi_label`` (sigmoid).
        gamma: Exponent.
        factors: Of each class, the paper's alpha; None is 1.
    Source: Lin et al. 2017, Focal Loss for Dense Object Detection.
    """
    weights = logits.new_ones(logits.shape[-1]) if factors is None else factors
    if target == "multi_label":
        right, wrong = functional.logsigmoid(logits), functional.logsigmoid(-logits)
        members = labels * weights * _doubt(right, gamma) * right
        return -(members + (1 - labels) * _doubt(wrong, gamma) * wrong)
    right = functional.log_softmax(logits, dim=-1)
    return -(_as_shares(labels, logits) * weights * _doubt(right, gamma) * right).sum(dim=-1)


def _doubt(log_probability: torch.Tensor, gamma: float) -> torch.Tensor:
    """Give (1 - p)^gamma; its slope at p = 1 would be infinite for a gamma below 1."""
    least = torch.finfo(log_probability.dtype).eps
    doubt: torch.Tensor = (-torch.expm1(log_probability)).clamp(min=least) ** gamma
    return doubt


class BalancedSampler(Sampler[int]):
    """Draw every class equally often; as many examples as there are, in an order that seed and epoch decide.

    The examples of a class come in turn, in an order of their own each time: those of a scarce class several times
    in an epoch, and of a frequent one some not at all. A resumed epoch is drawn as it was, and all processes draw
    alike.

    Args:
        classes: The class of each example.
        seed: Of the draws.
        lengths: Number of tokens of each example, to put those of about one length together; None for any order.
        group: Number of examples of an optimiser step, over all processes.
    Source: Kang et al. 2020, class-balanced sampling.
    """

    def __init__(
        self, classes: Sequence[int], seed: int, lengths: Sequence[int] | None = None, group: int = 1
    ):
        self.size, self.seed, self.lengths, self.group, self.epoch = len(classes), seed, lengths, group, 0
        found: dict[int, list[int]] = {}
        for index, label in enumerate(classes):
            found.setdefault(label, []).append(index)
        self.members = [torch.tensor(found[label]) for label in sorted(found)]

    def set_epoch(self, epoch: int) -> None:
        """Draw others from here on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = generator_of(self.seed, self.epoch)
        share, left = divmod(self.size, len(self.members))
        luckier = set(torch.randperm(len(self.members), generator=generator)[:left].tolist())
        drawn = torch.cat(
            [
                sample_with_cycling(members, share + (number in luckier), generator)
                for number, members in enumerate(self.members)
            ]
        )
        return shuffle_by_length(drawn, self.lengths, self.group, generator)


def label_problems(
    stage: StageSettings, place: str, target: str, label_names: Sequence[str]
) -> list[Problem]:
    """Say what a stage asks of the labels that these labels do not give.

    Args:
        stage: A stage, or a strategy.
        place: Where it stands in the recipe.
        target: What a label is.
        label_names: The classes.
    """
    problems = []
    if stage.label_smoothing and target != "single_label":
        rule = "must be 0 unless each example has one label"
        problems.append(Problem(f"{place}.label_smoothing", rule, str(stage.label_smoothing)))
    method = stage.balance.method
    if method != "none" and target == "regression":
        problems.append(Problem(f"{place}.balance", "must be none where labels are amounts", repr(method)))
    elif method == "sampler" and target == "multi_label":
        repair = "Who draws a scarce class draws the other classes of its examples too. Take class_weights."
        rule = "must not be sampler where an example has several labels"
        problems.append(Problem(f"{place}.balance", rule, "", repair))
    elif stage.balance.weights is not None:
        for name in stage.balance.weights:
            if name not in label_names:
                rule = "must name classes of the data"
                problems.append(
                    Problem(f"{place}.balance.weights", rule, repr(name), nearest(name, label_names))
                )
    return problems

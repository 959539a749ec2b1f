"""Learn from a larger model too: a part of the loss asks for its probabilities, softened by a temperature."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from hf_finetune.targets.losses import label_weights

__all__ = ["Teacher", "distillation_loss", "loss_with_teacher"]

Loss = Callable[..., torch.Tensor]


class Teacher:
    """A finished model, which is asked about each batch that another one trains on.

    Attributes:
        temperature: By which the logits of both are divided.
        weight: Share of the loss that it gives, in [0, 1].
        logits: What it said of the newest batch [batch, classes], in the student's order; None if it was not asked.
    """

    def __init__(self, model: PreTrainedModel, order: Sequence[int], temperature: float, weight: float):
        """Take a model.

        Args:
            model: The teacher; its weights do not change.
            order: For each class of the student, the index of that class in the teacher.
            temperature: By which the logits of both are divided.
            weight: Share of the loss that it gives, in [0, 1].
        """
        self.model = model.eval().requires_grad_(False)
        self.order = list(order)
        self.temperature, self.weight = temperature, weight
        self.logits: torch.Tensor | None = None

    def see(self, inputs: Mapping[str, Any]) -> None:
        """Predict a batch, as it was augmented."""
        batch = {name: value for name, value in inputs.items() if name != "labels"}
        device = next(iter(batch.values())).device
        with torch.no_grad():
            self.logits = self.model.to(device)(**batch).logits.float()[:, self.order]

    def forget(self) -> None:
        """Leave the next loss to the labels alone."""
        self.logits = None


def distillation_loss(
    logits: torch.Tensor, wanted: torch.Tensor, target: str, temperature: float
) -> torch.Tensor:
    """Say how far a student's answers are from its teacher's.

    The divergence of softened probabilities is multiplied by the square of the temperature, by which its gradient
    would otherwise shrink.

    Args:
        logits: Of the student [batch, classes].
        wanted: Of the teacher [batch, classes].
        target: ``single_label`` (softmax), ``multi_label`` (sigmoid) or ``regression`` (squared difference; the
            temperature is not used).
        temperature: By which both are divided.

    Returns:
        [batch], or [batch, classes] for multi-label data.

    Source: Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network.
    """
    if target == "regression":
        return functional.mse_loss(logits.view(-1), wanted.view(-1), reduction="none")
    student, teacher = logits / temperature, wanted / temperature
    if target == "single_label":
        wanted_log = functional.log_softmax(teacher, dim=-1)
        each = functional.kl_div(
            functional.log_softmax(student, dim=-1), wanted_log, reduction="none", log_target=True
        ).sum(dim=-1)
    else:
        shares = teacher.sigmoid()
        least = functional.binary_cross_entropy_with_logits(teacher, shares, reduction="none")
        each = functional.binary_cross_entropy_with_logits(student, shares, reduction="none") - least
    return temperature**2 * each


def loss_with_teacher(loss: Loss, teacher: Teacher, target: str) -> Loss:
    """Let a teacher give its share of a loss, as a sum over the micro-batch divided as the labels' is.

    Args:
        loss: What ``loss_for`` gives.
        teacher: Has seen the batch, or else the labels alone count.
        target: As in ``loss_for``.
    """

    def shared(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        hard = loss(outputs, labels, num_items_in_batch)
        if teacher.logits is None:
            return hard
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        weights = label_weights(labels, target)
        each = distillation_loss(logits.float(), teacher.logits, target, teacher.temperature)
        total = (each * weights.view(each.shape)).sum()
        soft = total / (num_items_in_batch if num_items_in_batch is not None else weights.sum())
        return (1 - teacher.weight) * hard + teacher.weight * soft

    return shared

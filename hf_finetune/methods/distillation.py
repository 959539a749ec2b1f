"""Knowledge distillation: part of the loss is the divergence from a teacher's softened probabilities."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from hf_finetune.methods.base import Loss, Method
from hf_finetune.recipe.method_rules import DISTILLATION
from hf_finetune.targets import TARGETS
from hf_finetune.targets.losses import label_weights

__all__ = ["Teacher", "distillation_loss", "loss_with_teacher"]


class Teacher(Method):
    """Method: a trained model predicts each batch, and its softened probabilities are part of the student's loss.

    Attributes:
        temperature: Divisor of the logits of teacher and student.
        weight: Share of the distillation loss in the total loss, in [0, 1].
        logits: Logits of the current batch [batch, classes] in the student's class order; None if the batch was not
            predicted.
    """

    rules = DISTILLATION

    def __init__(self, model: PreTrainedModel, order: Sequence[int], temperature: float, weight: float):
        """Freeze the model and set it to eval mode.

        Args:
            model: Teacher model; its weights do not change.
            order: Index in the teacher of each of the student's classes.
            temperature: Divisor of the logits of teacher and student.
            weight: Share of the distillation loss in the total loss, in [0, 1].
        """
        self.model = model.eval().requires_grad_(False)
        self.order = list(order)
        self.temperature, self.weight = temperature, weight
        self.logits: torch.Tensor | None = None

    def see(self, inputs: Mapping[str, Any]) -> None:
        """Predict a batch with the student's augmented inputs, and store the logits.

        Args:
            inputs: Model inputs of the batch; ``labels`` are ignored.
        """
        batch = {name: value for name, value in inputs.items() if name != "labels"}
        device = next(iter(batch.values())).device
        with torch.no_grad():
            self.logits = self.model.to(device)(**batch).logits.float()[:, self.order]

    def forget(self) -> None:
        """Drop the logits, so that the next loss uses the labels only."""
        self.logits = None

    def on_inputs(self, inputs: dict[str, Any], *, training: bool) -> dict[str, Any]:
        """Predict the batch in training; the inputs do not change."""
        if training:
            self.see(inputs)
        else:
            self.forget()
        return inputs

    def wrap_loss(self, loss: Loss, target: str) -> Loss:
        """Return the weighted mean of the loss and the distillation loss."""
        return loss_with_teacher(loss, self, target)


def distillation_loss(
    logits: torch.Tensor, wanted: torch.Tensor, target: str, temperature: float
) -> torch.Tensor:
    """Compute the Kullback-Leibler divergence of a student's softened probabilities from its teacher's.

    It is multiplied by the square of the temperature, by which its gradient would otherwise shrink.

    Args:
        logits: Logits of the student [batch, classes].
        wanted: Logits of the teacher [batch, classes].
        target: ``single_label`` (softmax), ``multi_label`` (sigmoid) or ``regression`` (squared difference; the
            temperature is not used).
        temperature: Divisor of both logits.

    Returns:
        Loss of each example [batch], or of each label [batch, classes] (multi-label).

    Source: Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network.
    """
    if not TARGETS[target].has_classes:
        return functional.mse_loss(logits.view(-1), wanted.view(-1), reduction="none")
    student, teacher = logits / temperature, wanted / temperature
    if TARGETS[target].is_exclusive:
        wanted_log = functional.log_softmax(teacher, dim=-1)
        losses = functional.kl_div(
            functional.log_softmax(student, dim=-1), wanted_log, reduction="none", log_target=True
        ).sum(dim=-1)
    else:
        shares = teacher.sigmoid()
        least = functional.binary_cross_entropy_with_logits(teacher, shares, reduction="none")
        losses = functional.binary_cross_entropy_with_logits(student, shares, reduction="none") - least
    return temperature**2 * losses


def loss_with_teacher(loss: Loss, teacher: Teacher, target: str) -> Loss:
    """Return the weighted mean of a loss and the distillation loss; both are divided by the labels of the whole batch.

    Args:
        loss: Loss function of the labels, as ``loss_for`` returns it.
        teacher: Teacher that has predicted the batch; without its logits only the labels count.
        target: Kind of the labels, as in ``loss_for``.
    """

    def shared(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        hard = loss(outputs, labels, num_items_in_batch)
        if teacher.logits is None:
            return hard
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        weights = label_weights(labels, target)
        losses = distillation_loss(logits.float(), teacher.logits, target, teacher.temperature)
        total = (losses * weights.view(losses.shape)).sum()
        soft = total / (num_items_in_batch if num_items_in_batch is not None else weights.sum())
        return (1 - teacher.weight) * hard + teacher.weight * soft

    return shared

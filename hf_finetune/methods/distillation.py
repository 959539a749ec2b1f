"""Knowledge distillation: the loss includes the divergence from a teacher's softened probabilities."""

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
    """Predict each batch with a trained model, and add the divergence from its softened probabilities to the loss.

    Attributes:
        temperature: Divisor of the logits of teacher and student.
        weight: Weight of the distillation loss in the weighted mean with the loss of the labels, in [0, 1].
        logits: Logits of the current batch [batch, classes] in the student's class order; None if the batch was not
            predicted.
    """

    rules = DISTILLATION

    def __init__(self, model: PreTrainedModel, order: Sequence[int], temperature: float, weight: float):
        """Freeze the model and set it to eval mode.

        Args:
            model: Teacher model; its weights do not change.
            order: Class index of the teacher for each class of the student.
            temperature: Divisor of the logits of teacher and student.
            weight: Weight of the distillation loss, in [0, 1].
        """
        self.model = model.eval().requires_grad_(False)
        self.order = list(order)
        self.temperature = temperature
        self.weight = weight
        self.logits: torch.Tensor | None = None

    def predict_batch(self, inputs: Mapping[str, Any]) -> None:
        """Predict a batch with the student's augmented inputs, and store the logits.

        Args:
            inputs: Model inputs of the batch; ``labels`` are ignored.
        """
        batch = {name: value for name, value in inputs.items() if name != "labels"}
        device = next(iter(batch.values())).device
        with torch.no_grad():
            self.logits = self.model.to(device)(**batch).logits.float()[:, self.order]

    def clear_logits(self) -> None:
        """Clear the logits, so that the next loss uses the labels only."""
        self.logits = None

    def on_inputs(self, inputs: dict[str, Any], *, training: bool) -> dict[str, Any]:
        """Predict the batch in training; the inputs do not change."""
        if training:
            self.predict_batch(inputs)
        else:
            self.clear_logits()
        return inputs

    def wrap_loss(self, loss: Loss, target: str) -> Loss:
        """Return the weighted mean of the loss and the distillation loss."""
        return loss_with_teacher(loss, self, target)


def distillation_loss(
    logits: torch.Tensor, teacher_logits: torch.Tensor, target: str, temperature: float
) -> torch.Tensor:
    """Compute the Kullback-Leibler divergence of a student's softened probabilities from its teacher's.

    It is multiplied by the square of the temperature, because its gradient is divided by that square.

    Args:
        logits: Logits of the student [batch, classes].
        teacher_logits: Logits of the teacher [batch, classes].
        target: ``single_label`` (softmax), ``multi_label`` (sigmoid) or ``regression`` (squared difference; the
            temperature is not used).
        temperature: Divisor of both logits.

    Returns:
        Loss of each example [batch], or of each label [batch, classes] (multi-label).

    Raises:
        ValueError: If labels have neither classes nor the squared error.

    Source: Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network.
    """
    kind = TARGETS[target]
    if kind.has_squared_error:
        return functional.mse_loss(logits.view(-1), teacher_logits.view(-1), reduction="none")
    if not kind.has_classes:
        raise ValueError(f"no distillation loss is defined for {target} labels")
    student, teacher = logits / temperature, teacher_logits / temperature
    if kind.is_exclusive:
        losses = functional.kl_div(
            functional.log_softmax(student, dim=-1),
            functional.log_softmax(teacher, dim=-1),
            reduction="none",
            log_target=True,
        ).sum(dim=-1)
    else:
        teacher_probabilities = teacher.sigmoid()
        teacher_entropy = functional.binary_cross_entropy_with_logits(
            teacher, teacher_probabilities, reduction="none"
        )
        cross_entropy = functional.binary_cross_entropy_with_logits(
            student, teacher_probabilities, reduction="none"
        )
        losses = cross_entropy - teacher_entropy
    return temperature**2 * losses


def loss_with_teacher(loss: Loss, teacher: Teacher, target: str) -> Loss:
    """Return the weighted mean of a loss and the distillation loss; both are divided by the labels of the whole batch.

    Args:
        loss: Loss function of the labels, as ``loss_for`` returns it.
        teacher: Teacher that has predicted the batch; without its logits, only the loss of the labels is used.
        target: Label type, as in ``loss_for``.
    """

    def distilled_loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        label_loss = loss(outputs, labels, num_items_in_batch)
        if teacher.logits is None:
            return label_loss
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        weights = label_weights(labels, target)
        losses = distillation_loss(logits.float(), teacher.logits, target, teacher.temperature)
        total = (losses * weights.view(losses.shape)).sum()
        teacher_loss = total / (num_items_in_batch if num_items_in_batch is not None else weights.sum())
        return (1 - teacher.weight) * label_loss + teacher.weight * teacher_loss

    return distilled_loss

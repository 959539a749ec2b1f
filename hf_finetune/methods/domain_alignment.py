"""Domain alignment (Deep CORAL, DANN): a loss term that aligns the feature distributions of two domains."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from accelerate import PartialState
from torch import distributed, nn
from torch.nn import functional
from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.cache.call_recording import eval_mode
from hf_finetune.data.paired_domains import PairedCollate, PairedExamples
from hf_finetune.errors import InputError, Problem
from hf_finetune.methods.base import CallbackMethod, Collate, Loss
from hf_finetune.models.layout import head_names
from hf_finetune.models.tensor_files import STATE_ERRORS, broken_state, read_tensors
from hf_finetune.planning.domain_adaptation import is_aligned
from hf_finetune.planning.stages import StagePlan
from hf_finetune.recipe.method_rules import DOMAIN_ALIGNMENT
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.targets.losses import valid_labels

__all__ = [
    "DomainAlignment",
    "HeadInput",
    "aligned_loss",
    "coral_loss",
    "domain_loss",
    "reversal_strength",
    "reverse_gradient",
]

logger = logging.getLogger(__name__)

CLASSIFIER_UNITS = 100
"""Units of the domain classifier's hidden layer, as in the small networks of Ganin et al. 2016."""
CLASSIFIER_LR = 1e-3
"""Learning rate of the domain classifier's Adam optimizer, without schedule."""
STATE_FILE = "domain.pt"
"""File of a checkpoint with the state of the domain classifier and its optimizer."""
STATE_KEY = "judge"
"""Key of the domain classifier's weights in ``STATE_FILE``, as in checkpoints of earlier versions."""
MIN_CORAL_SHARE = 0.01
"""Fraction of the training loss below which the CORAL loss has almost no effect."""


def coral_loss(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Compute the CORAL loss, the distance of two feature covariances: ||C_s - C_t||_F^2 / (4 d^2).

    Args:
        source: Features of the source domain [examples, d].
        target: Features of the target domain [examples, d].

    Returns:
        Scalar; 0 if either domain has fewer than 2 examples.

    Source: Sun & Saenko 2016, Deep CORAL: Correlation Alignment for Deep Domain Adaptation, equation 1.
    """
    if len(source) < 2 or len(target) < 2:
        return 0.0 * (source.sum() + target.sum())
    width = source.shape[1]
    difference = torch.cov(source.T).view(width, -1) - torch.cov(target.T).view(width, -1)
    return difference.square().sum() / (4 * width**2)


def reversal_strength(progress: float) -> float:
    """Return the factor of the reversed gradient, 2 / (1 + exp(-10 p)) - 1: from 0 at the start to almost 1.

    Args:
        progress: Completed fraction of the stage, p, in [0, 1].

    Source: Ganin et al. 2016, Domain-Adversarial Training of Neural Networks, section 5.2.
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, strength: float) -> torch.Tensor:
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(features: torch.Tensor, strength: float) -> torch.Tensor:
    """Return the features unchanged; in the backward pass their gradient is multiplied by ``-strength``.

    Args:
        features: Tensor of any shape.
        strength: Factor, 0 or more.

    Source: Ganin et al. 2016, equations 16 and 17.
    """
    reversed_features: torch.Tensor = _Reversed.apply(features, strength)
    return reversed_features


def domain_loss(logits: torch.Tensor, sources: int) -> torch.Tensor:
    """Return the mean binary cross-entropy of a domain classifier; 0 if there are no examples.

    Args:
        logits: Logits of the target domain (class 1) against the source domain (class 0) [examples], source examples
            first.
        sources: Number of source examples.
    """
    domains = torch.zeros_like(logits)
    domains[sources:] = 1.0
    total = functional.binary_cross_entropy_with_logits(logits, domains, reduction="sum")
    return total / max(len(logits), 1)


class HeadInput:
    """Forward hooks that record the feature vector of each example from which the head computes its logits.

    It is the input of the first head layer that takes one vector per example, that is, after pooling. If the head has
    no such layer, it is the vector of the last non-padding token, from which decoders compute their logits, or the
    mean over the positions of an image.

    Args:
        model: Classifier on which to register the hooks; ``remove`` removes them.
    """

    def __init__(self, model: nn.Module):
        owners = list(dict.fromkeys(name.rpartition(".")[0] for name in head_names(model)))
        self.vectors: list[torch.Tensor] = []
        self.sequences: list[torch.Tensor] = []
        self.mask: torch.Tensor | None = None
        modules = [(model, self._reset), *((model.get_submodule(name), self._record) for name in owners)]
        self._handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module, hook in modules]

    def _reset(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.vectors = []
        self.sequences = []
        self.mask = kwargs.get("attention_mask")

    def _record(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        head_input = next(
            (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None
        )
        if head_input is None or not head_input.is_floating_point():
            return
        flat = head_input.flatten(1)
        is_vector = head_input.ndim > 1 and flat.shape[1] == head_input.shape[1]
        (self.vectors if is_vector else self.sequences).append(head_input)

    def pop(self) -> torch.Tensor:
        """Return the vectors of the last forward pass, fp32 [examples, d], and clear them.

        Raises:
            InputError: If no layer of the head received features as its input.
        """
        vectors, self.vectors = self.vectors, []
        sequences, self.sequences = self.sequences, []
        if vectors:
            return vectors[0].flatten(1).float()
        if not sequences:
            rule = "must not be coral or dann for this architecture"
            repair = "Its head receives no feature vector. Use continue_pretraining."
            raise InputError(Problem("domain_adaptation.method", rule, repair=repair))
        first = sequences[0].float()
        if first.ndim != 3:
            return first.flatten(2).mean(dim=2)
        if self.mask is None:
            return first.mean(dim=1)
        last = (self.mask * torch.arange(first.shape[1], device=first.device)).argmax(dim=1)
        return first[torch.arange(len(first), device=first.device), last]

    def remove(self) -> None:
        """Remove the hooks from the model."""
        for handle in self._handles:
            handle.remove()


class DomainAlignment(CallbackMethod):
    """Add the alignment loss to a stage, and train the domain classifier of ``dann``.

    Each training example is paired with an input of the target domain. The classifier is not part of the model: it has
    its own optimizer, its gradients are averaged over the processes, and its state is saved in each checkpoint.

    Args:
        examples: Unlabeled inputs of the target domain, preprocessed like the training examples; indexable.
        method: ``coral`` or ``dann``.
        weight: Factor on the alignment loss.

    Attributes:
        features: Input of the model's head, from ``prepare`` on.
        classifier: Domain classifier of ``dann``, from ``prepare`` on; None for ``coral``.
    """

    rules = DOMAIN_ALIGNMENT
    compiles: ClassVar[bool] = False  # hooks read features inside the model
    features: HeadInput
    classifier: nn.Module | None = None

    def __init__(self, examples: Any, method: Literal["coral", "dann"], weight: float):
        self.examples = examples
        self.method = method
        self.weight = weight
        self.progress = 0.0
        self.step_losses: list[torch.Tensor] = []

    @classmethod
    def is_used(cls, recipe: Recipe, spec: StageSpec, plan: StagePlan) -> bool:
        """Return whether the features of the stage are aligned."""
        return is_aligned(recipe.domain_adaptation, spec, plan)

    def prepare(
        self, model: PreTrainedModel, train: Any, collate: Collate, seed: int
    ) -> tuple[PairedExamples, PairedCollate]:
        """Register hooks on the head's input, create the domain classifier, and pair the training examples.

        Args:
            model: Model to train.
            train: Training examples.
            collate: Collate function.
            seed: Seed of the pairs and of the classifier's initial weights.
        """
        batch = dict(collate([self.examples[0], self.examples[len(self.examples) - 1]]))
        self.features = HeadInput(model)
        with torch.no_grad(), eval_mode(model):
            device = next(model.parameters()).device
            model(**{name: value.to(device) for name, value in batch.items()})
        width = self.features.pop().shape[1]
        # the device of the model in training: optimizer state is loaded onto the device of the weights
        device = PartialState().device
        if self.method == "dann":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                classifier = nn.Sequential(
                    nn.Linear(width, CLASSIFIER_UNITS), nn.ReLU(), nn.Linear(CLASSIFIER_UNITS, 1)
                )
            self.classifier = classifier.to(device)
            self.optimizer = torch.optim.Adam(self.classifier.parameters(), lr=CLASSIFIER_LR)
        return PairedExamples(train, self.examples, seed), PairedCollate(collate)

    def alignment_loss(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compute the alignment loss of a micro-batch, a scalar without the factor ``weight``.

        Args:
            source: Features of the source domain [examples, d].
            target: Features of the target domain [examples, d].
        """
        with torch.autocast(source.device.type, enabled=False):
            if self.classifier is None:
                return coral_loss(source, target)
            features = torch.cat([source, target])
            logits = self.classifier(reverse_gradient(features, reversal_strength(self.progress)))
            return domain_loss(logits.squeeze(1), len(source))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compute the progress from the state alone, so that a resumed stage continues it; reset gradients."""
        self.progress = state.global_step / max(state.max_steps, 1)
        self.step_losses = []
        if self.classifier is not None:
            self.optimizer.zero_grad(set_to_none=True)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Average the domain classifier's gradients over all processes, and undo the fp16 loss scale."""
        if self.classifier is None:
            return
        scaler = getattr(kwargs.get("optimizer"), "scaler", None)
        scale = args.world_size * (scaler.get_scale() if scaler is not None else 1.0)
        for parameter in self.classifier.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if args.world_size > 1:
                distributed.all_reduce(parameter.grad)
            parameter.grad /= scale

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the domain classifier, unless the model's step was skipped (fp16)."""
        if self.classifier is None or kwargs["optimizer"].step_was_skipped:
            return
        if all(
            bool(parameter.grad.isfinite().all())
            for parameter in self.classifier.parameters()
            if parameter.grad is not None
        ):
            self.optimizer.step()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the alignment loss over all processes, without the factor ``weight``, as ``domain_loss``."""
        if "loss" in state.log_history[-1] and self.step_losses:
            value = torch.stack(self.step_losses).sum()
            if args.world_size > 1:
                distributed.all_reduce(value)
            state.log_history[-1]["domain_loss"] = value.item()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the fraction of CORAL in the loss, which depends on the scale of the features."""
        logged = [entry for entry in state.log_history if "domain_loss" in entry]
        total_loss = sum(entry["loss"] for entry in logged)
        if self.classifier is None and total_loss > 0 and state.is_world_process_zero:
            share = self.weight * sum(entry["domain_loss"] for entry in logged) / total_loss
            hint = (
                ""
                if share >= MIN_CORAL_SHARE
                else "; this is too little to have an effect: try a larger weight"
            )
            logger.info("The CORAL loss was %.2g of the training loss%s.", share, hint)

    def save(self, folder: Path) -> None:
        """Write the state of the domain classifier and its optimizer into a checkpoint."""
        if self.classifier is not None:
            state = {STATE_KEY: self.classifier.state_dict(), "optimizer": self.optimizer.state_dict()}
            torch.save(state, folder / STATE_FILE)

    def load(self, folder: Path) -> None:
        """Load the state of the domain classifier and its optimizer from a checkpoint.

        Raises:
            InputError: If the file does not contain the state of this classifier.
        """
        if self.classifier is None:
            return
        state = read_tensors(folder / STATE_FILE)
        try:
            self.classifier.load_state_dict(state[STATE_KEY])
            self.optimizer.load_state_dict(state["optimizer"])
        except STATE_ERRORS as error:
            raise InputError(
                broken_state(folder / STATE_FILE, "the state of another domain classifier")
            ) from error

    def wrap_loss(self, loss: Loss, target: str) -> Loss:
        """Return the loss with the alignment loss added."""
        return aligned_loss(loss, self)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Context manager: remove the hooks from the model at the end."""
        try:
            yield
        finally:
            self.features.remove()


def aligned_loss(loss: Loss, alignment: DomainAlignment) -> Loss:
    """Return a loss function with the alignment loss added, for batches with target inputs after the labeled ones.

    Over an optimizer step, the alignment loss is the mean over micro-batches, weighted by their numbers of labels: for
    ``dann`` this is the mean over all examples of the step, on any number of processes.

    Args:
        loss: Loss function of the labels, as ``loss_for`` returns it.
        alignment: Domain alignment whose hooks have recorded the features of the batch.
    """

    def total_loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        count = len(labels)
        features = alignment.features.pop()
        if len(logits) == count:
            return loss(outputs, labels, num_items_in_batch)
        known = valid_labels(labels)
        is_real = known.view(count, -1).any(dim=1)  # a padding example counts in neither domain
        fraction = known.sum() / (num_items_in_batch if num_items_in_batch is not None else known.sum())
        alignment_loss = alignment.alignment_loss(features[:count][is_real], features[count:][is_real])
        alignment.step_losses.append((fraction * alignment_loss).detach())
        label_loss = loss({"logits": logits[:count]}, labels, num_items_in_batch)
        return label_loss + alignment.weight * fraction * alignment_loss

    return total_loss

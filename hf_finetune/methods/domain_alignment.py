"""Features that are alike in two domains: what is added to the loss of a stage, and what that needs."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from torch import distributed, nn
from torch.nn import functional
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.cache.call_recording import evaluating
from hf_finetune.data.paired_domains import PairedCollate, PairedExamples
from hf_finetune.errors import InputError, Problem
from hf_finetune.models.layout import head_names
from hf_finetune.models.tensor_files import BROKEN, broken_state, read_tensors
from hf_finetune.targets.losses import valid_labels

__all__ = [
    "AlignmentInputs",
    "DomainAlignment",
    "HeadInput",
    "aligned_loss",
    "coral_loss",
    "domain_loss",
    "reversal_strength",
    "reverse_gradient",
]

logger = logging.getLogger(__name__)

Loss = Callable[..., torch.Tensor]
HIDDEN = 100
"""Units of the domain classifier's hidden layer, as in the small networks of Ganin et al. 2016."""
RATE = 1e-3
"""Learning rate of the domain classifier, by Adam: it is no part of the model, and has no schedule."""
FILE = "domain.pt"
LEAST = 0.01
"""Share of the loss below which coral changes next to nothing."""


def coral_loss(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Say how far apart the covariances of two sets of features are: ||C_s - C_t||_F^2 / (4 d^2).

    Args:
        source: [examples, d].
        target: [examples, d]; of each at least 2 examples, or else the loss is 0.

    Source: Sun & Saenko 2016, Deep CORAL: Correlation Alignment for Deep Domain Adaptation, equation 1.
    """
    if len(source) < 2 or len(target) < 2:
        return 0.0 * (source.sum() + target.sum())
    apart = torch.cov(source.T).view(source.shape[1], -1) - torch.cov(target.T).view(source.shape[1], -1)
    return apart.square().sum() / (4 * source.shape[1] ** 2)


def reversal_strength(progress: float) -> float:
    """Give the factor of the reversed gradient, 2 / (1 + exp(-10 p)) - 1: from 0 at the start to almost 1.

    Args:
        progress: How much of the stage is done, p, in [0, 1].

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
    """Give features as they are, whose gradient is taken ``-strength`` times on its way back.

    Source: Ganin et al. 2016, equations 16 and 17.
    """
    reversed_features: torch.Tensor = _Reversed.apply(features, strength)
    return reversed_features


def domain_loss(logits: torch.Tensor, sources: int) -> torch.Tensor:
    """Give the mean binary cross-entropy of a domain classifier, 0 without examples.

    Args:
        logits: Of the other domain against the own one [examples], those of the own one first.
        sources: Number of examples of the own domain.
    """
    wanted = torch.zeros_like(logits)
    wanted[sources:] = 1.0
    each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
    return each / max(len(logits), 1)


class HeadInput:
    """The vector that the head of a model makes its logits of, of each example of the newest forward pass.

    It is the input of the first layer of the head that takes a vector for each example, so behind the choice or the
    mean of tokens. Where the head has no such layer, it is that of the last token which is no padding, of which
    decoders make their logits, or of an image the mean over its places.

    Args:
        model: Any classifier. The hooks stay until ``remove``.
    """

    def __init__(self, model: nn.Module):
        owners = list(dict.fromkeys(name.rpartition(".")[0] for name in head_names(model)))
        self.vectors: list[torch.Tensor] = []
        self.others: list[torch.Tensor] = []
        self.mask: torch.Tensor | None = None
        modules = [(model, self._begin), *((model.get_submodule(name), self._see) for name in owners)]
        self._handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module, hook in modules]

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.vectors, self.others, self.mask = [], [], kwargs.get("attention_mask")

    def _see(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
        if given is None or not given.is_floating_point():
            return
        flat = given.flatten(1)
        is_vector = given.ndim > 1 and flat.shape[1] == given.shape[1]
        (self.vectors if is_vector else self.others).append(given)

    def take(self) -> torch.Tensor:
        """Give the vectors [examples, d] in fp32, and forget them.

        Raises:
            InputError: If the head was given none.
        """
        found, self.vectors, others, self.others = self.vectors, [], self.others, []
        if found:
            return found[0].flatten(1).float()
        if not others:
            rule = (
                "must be 'continue_pretraining' for an architecture whose head takes no features as its input"
            )
            raise InputError(Problem("domain_adaptation.method", rule))
        first = others[0].float()
        if first.ndim != 3:
            return first.flatten(2).mean(dim=2)
        if self.mask is None:
            return first.mean(dim=1)
        last = (self.mask * torch.arange(first.shape[1], device=first.device)).argmax(dim=1)
        return first[torch.arange(len(first), device=first.device), last]

    def remove(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()


@dataclass(frozen=True)
class AlignmentInputs:
    """Inputs of another domain, and how features are made alike.

    Attributes:
        examples: Gives the inputs by index, prepared as the training examples are.
        method: ``coral`` or ``dann``.
        weight: Factor on what is added to the loss.
    """

    examples: Any
    method: Literal["coral", "dann"]
    weight: float

    def join(
        self, model: PreTrainedModel, train: Any, collate: Callable[..., Any], seed: int
    ) -> tuple[PairedExamples, PairedCollate, "DomainAlignment"]:
        """Set an input beside each training example, and give what is added to the loss.

        Args:
            model: What is trained.
            train: The training examples.
            collate: Makes a batch.
            seed: Of the stage.
        """
        batch = dict(collate([self.examples[0], self.examples[len(self.examples) - 1]]))
        alignment = DomainAlignment(model, batch, self.method, self.weight, seed)
        return PairedExamples(train, self.examples, seed), PairedCollate(collate), alignment


class DomainAlignment(TrainerCallback):
    """What is added to a stage's loss, and the classifier of domains that it needs.

    That classifier is no part of the model: it has an optimizer of its own, processes share its gradients, and its
    state lies in each checkpoint.

    Args:
        model: What is trained.
        batch: A batch of it without labels, by which the size of the head's input is found.
        method: ``coral`` or ``dann``.
        weight: Factor on what is added.
        seed: Of the classifier's weights.
    """

    def __init__(
        self, model: PreTrainedModel, batch: Any, method: Literal["coral", "dann"], weight: float, seed: int
    ):
        self.weight, self.progress = weight, 0.0
        self.seen: list[torch.Tensor] = []
        self.features = HeadInput(model)
        with torch.no_grad(), evaluating(model):
            device = next(model.parameters()).device
            model(**{name: value.to(device) for name, value in batch.items()})
        width = self.features.take().shape[1]
        self.judge: nn.Module | None = None
        # where the model will be: an optimizer's state is loaded to where the weights are
        device = PartialState().device
        if method == "dann":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                judge = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
            self.judge = judge.to(device)
            self.optimizer = torch.optim.Adam(self.judge.parameters(), lr=RATE)

    def value(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Give the loss of a micro-batch, not yet weighted.

        Args:
            source: Features of the own domain [examples, d].
            target: Features of the other.
        """
        with torch.autocast(source.device.type, enabled=False):
            if self.judge is None:
                return coral_loss(source, target)
            both = torch.cat([source, target])
            logits = self.judge(reverse_gradient(both, reversal_strength(self.progress)))
            return domain_loss(logits.squeeze(1), len(source))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the progress from the state alone, so that a resumed stage goes on with it."""
        self.progress = state.global_step / max(state.max_steps, 1)
        self.seen = []
        if self.judge is not None:
            self.optimizer.zero_grad(set_to_none=True)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the classifier of domains the gradients of all processes, at their own scale."""
        if self.judge is None:
            return
        scaler = getattr(kwargs.get("optimizer"), "scaler", None)
        scale = args.world_size * (scaler.get_scale() if scaler is not None else 1.0)
        for parameter in self.judge.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if args.world_size > 1:
                distributed.all_reduce(parameter.grad)
            parameter.grad /= scale

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Train the classifier of domains, unless the model's step was passed over, as in fp16 it may be."""
        if self.judge is None or kwargs["optimizer"].step_was_skipped:
            return
        if all(bool(each.grad.isfinite().all()) for each in self.judge.parameters() if each.grad is not None):
            self.optimizer.step()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write down what was added to the loss, not yet weighted: ``domain_loss``, over all processes."""
        if "loss" in state.log_history[-1] and self.seen:
            value = torch.stack(self.seen).sum()
            if args.world_size > 1:
                distributed.all_reduce(value)
            state.log_history[-1]["domain_loss"] = value.item()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say which share of the loss coral was: its size depends on that of the features."""
        logged = [entry for entry in state.log_history if "domain_loss" in entry]
        whole = sum(entry["loss"] for entry in logged)
        if self.judge is None and whole > 0 and state.is_world_process_zero:
            share = self.weight * sum(entry["domain_loss"] for entry in logged) / whole
            hint = (
                "" if share >= LEAST else "; with so little it changes next to nothing: try a larger weight"
            )
            logger.info("coral was %.2g of the loss%s.", share, hint)

    def save(self, folder: Path) -> None:
        """Write the state of the classifier of domains into a checkpoint."""
        if self.judge is not None:
            state = {"judge": self.judge.state_dict(), "optimizer": self.optimizer.state_dict()}
            torch.save(state, folder / FILE)

    def load(self, folder: Path) -> None:
        """Read it from a checkpoint.

        Raises:
            InputError: If the file does not hold it.
        """
        if self.judge is None:
            return
        state = read_tensors(folder / FILE)
        try:
            self.judge.load_state_dict(state["judge"])
            self.optimizer.load_state_dict(state["optimizer"])
        except BROKEN as error:
            raise InputError(
                broken_state(folder / FILE, "the state of another classifier of domains")
            ) from error

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Leave the model without hooks at the end."""
        try:
            yield
        finally:
            self.features.remove()


def aligned_loss(loss: Loss, alignment: DomainAlignment) -> Loss:
    """Add the alignment to a loss, for batches that hold inputs of the other domain behind the labelled ones.

    Over a step it is the mean of its micro-batches' values, each weighted with its share of the step's labels: for dann
    so the mean over all examples of the step, on any number of processes.

    Args:
        loss: What ``loss_for`` gives.
        alignment: Has seen the batch.
    """

    def both(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        count = len(labels)
        features = alignment.features.take()
        if len(logits) == count:
            return loss(outputs, labels, num_items_in_batch)
        known = valid_labels(labels)
        real = known.view(count, -1).any(dim=1)  # a filler counts in neither domain
        added = alignment.value(features[:count][real], features[count:][real])
        share = known.sum() / (num_items_in_batch if num_items_in_batch is not None else known.sum())
        alignment.seen.append((share * added).detach())
        return loss({"logits": logits[:count]}, labels, num_items_in_batch) + alignment.weight * share * added

    return both

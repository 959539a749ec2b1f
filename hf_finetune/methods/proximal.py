"""L1 and L2-SP regularization by proximal steps after each optimizer step, and gradient noise before it.

l1 and l2_sp are penalties on the weights. Here they are not terms of the loss: adaptive optimizers such as Adam would
rescale their gradients, and gradient clipping would include them. Instead each is a proximal step of size learning
rate x strength after the optimizer step, so a strength means the same for every optimizer, zeros are exact, and no
strength overshoots. For plain SGD and a small learning rate it approximates a step along the penalty's gradient.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.methods.base import CallbackMethod, StageContext
from hf_finetune.planning.groups import ParameterGroup
from hf_finetune.planning.stages import Plan
from hf_finetune.recipe.method_rules import GRADIENT_NOISE, PROXIMAL
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.tasks.seeded_augmentation import derive_seed

__all__ = [
    "GradientNoise",
    "ProximalSteps",
    "add_noise",
    "noise_variance",
    "pretrained_weights",
    "shrink_towards_start",
    "soft_threshold",
]

logger = logging.getLogger(__name__)

NOISE_DECAY_EXPONENT = 0.55
"""Exponent of the decay of the gradient noise's variance."""


def soft_threshold(weight: torch.Tensor, threshold: float) -> None:
    """Shrink each element towards 0, in place: sign(w) x max(|w| - threshold, 0).

    Args:
        weight: Tensor of any shape.
        threshold: Threshold, 0 or more.

    Source: the proximal step of ``threshold * |w|``, as in ISTA (Daubechies et al. 2004; Beck & Teboulle 2009).
    """
    weight.sub_(weight.clamp(-threshold, threshold))


def shrink_towards_start(weight: torch.Tensor, start: torch.Tensor, strength: float) -> None:
    """Shrink a weight towards its initial value, in place: start + (weight - start) / (1 + strength).

    Args:
        weight: Tensor of any shape.
        start: Initial value, of the same shape and on the same device.
        strength: Strength of the penalty, 0 or more.

    Source: the proximal step of ``strength / 2 * |w - start|^2``, the L2-SP penalty of Li, Grandvalet & Davoine 2018,
        Explicit Inductive Bias for Transfer Learning with Convolutional Networks.
    """
    weight.lerp_(start, strength / (1 + strength))


class ProximalSteps(CallbackMethod):
    """After each optimizer step, shrink weights towards 0 (l1) and towards the checkpoint's weights (l2_sp).

    Only the optimizer's parameters change, so frozen weights stay the same; parameters without a gradient are skipped,
    as the optimizer does, and so are the steps that the fp16 gradient scaler skips.

    Args:
        groups: Planned parameter groups, in the optimizer's order.
        l1: Strength of the L1 penalty.
        l1_names: Names of the parameters to which ``l1`` applies.
        l2_sp: Strength of the L2-SP penalty.
        pretrained: Weights of the checkpoint by name; l2_sp applies only to these parameters.
    """

    rules = PROXIMAL

    def __init__(
        self,
        groups: Sequence[ParameterGroup],
        *,
        l1: float = 0.0,
        l1_names: Collection[str] = (),
        l2_sp: float = 0.0,
        pretrained: Mapping[str, torch.Tensor] | None = None,
    ):
        self.groups = tuple(groups)
        self.l1 = l1
        self.l1_names = set(l1_names) if l1 else set()
        self.l2_sp = l2_sp
        self.pretrained = dict(pretrained or {}) if l2_sp else {}

    @classmethod
    def build(cls, context: StageContext) -> "ProximalSteps | None":
        """Return the method, or None without l1 and l2_sp; l1 applies to the parameters with weight decay."""
        spec, plan = context.stage.spec.regularize, context.stage.plan
        if not spec.l1 and not spec.l2_sp:
            return None
        l1_names = [parameter.name for parameter in plan.layout.parameters if parameter.decays]
        return cls(
            plan.groups, l1=spec.l1, l1_names=l1_names, l2_sp=spec.l2_sp, pretrained=context.pretrained
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the checkpoint's weights of the trained parameters to the device of the parameters."""
        self.pretrained = {
            name: self.pretrained[name].to(weight.device)
            for name, weight, _ in _optimizer_parameters(kwargs["optimizer"], self.groups)
            if name in self.pretrained
        }

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Apply the proximal steps, with the learning rates of this step."""
        optimizer = kwargs["optimizer"]
        if optimizer.step_was_skipped:
            return
        with torch.no_grad():
            for name, weight, rate in _optimizer_parameters(optimizer, self.groups):
                if weight.grad is None:
                    continue
                if name in self.pretrained:
                    shrink_towards_start(weight, self.pretrained[name], rate * self.l2_sp)
                if name in self.l1_names:
                    soft_threshold(weight, rate * self.l1)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the number of weights that l1 has set to exactly 0."""
        weights = [
            weight
            for name, weight, _ in _optimizer_parameters(kwargs["optimizer"], self.groups)
            if name in self.l1_names
        ]
        if weights and state.is_world_process_zero:
            zeros = sum(int(weight.eq(0).sum()) for weight in weights)
            size = sum(weight.numel() for weight in weights)
            logger.info(
                "After l1 regularization, %s of %s trained weights are exactly 0.", f"{zeros:,}", f"{size:,}"
            )


def pretrained_weights(
    model: PreTrainedModel, stages: Sequence[StageSpec], plan: Plan
) -> dict[str, torch.Tensor]:
    """Return copies of the backbone weights that the stages with l2_sp train, as they are in the checkpoint.

    Args:
        model: Model with the weights of the checkpoint, before any stage.
        stages: Stages of the recipe.
        plan: Plan of the stages.

    Returns:
        Weights by parameter name; empty if no stage uses l2_sp.
    """
    names = {
        name
        for spec, stage_plan in zip(stages, plan.stages, strict=True)
        if spec.regularize.l2_sp
        for name in stage_plan.trainable
    }
    layout = plan.layout
    names &= {parameter.name for parameter in layout.parameters if parameter.group < layout.head_group}
    return {name: value.detach().clone() for name, value in model.named_parameters() if name in names}


def noise_variance(eta: float, step: int) -> float:
    """Return the variance of the gradient noise: eta / (1 + step)^0.55.

    Args:
        eta: Variance at step 0.
        step: Number of steps before this one.

    Source: Neelakantan et al. 2015, Adding Gradient Noise Improves Learning for Very Deep Networks.
    """
    return eta / (1 + step) ** NOISE_DECAY_EXPONENT


def add_noise(gradients: Iterable[torch.Tensor], variance: float, seed: int) -> None:
    """Add Gaussian noise to gradients, in place; equal seeds result in equal noise on devices of the same kind.

    Args:
        gradients: Gradients, in the same order on all processes.
        variance: Variance of the noise.
        seed: Seed of the noise.
    """
    generators: dict[torch.device, torch.Generator] = {}
    for gradient in gradients:
        device = gradient.device
        if device not in generators:
            generators[device] = torch.Generator(device).manual_seed(seed)
        noise = torch.randn(gradient.shape, generator=generators[device], device=device, dtype=gradient.dtype)
        gradient.add_(noise, alpha=variance**0.5)


class GradientNoise(CallbackMethod):
    """Add noise to the gradients after clipping; the noise is the same on all processes and after a resume.

    Args:
        groups: Planned parameter groups, in the optimizer's order.
        eta: Variance at the first step.
        seed: Seed of the stage.
    """

    rules = GRADIENT_NOISE

    def __init__(self, groups: Sequence[ParameterGroup], eta: float, seed: int):
        self.groups = tuple(groups)
        self.eta = eta
        self.seed = seed

    @classmethod
    def build(cls, context: StageContext) -> "GradientNoise | None":
        """Return the method if the stage sets ``gradient_noise``, or None."""
        stage = context.stage
        variance = stage.spec.regularize.gradient_noise
        return cls(stage.plan.groups, variance, stage.seed) if variance else None

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the noise; transformers 5.23 has already unscaled fp16 gradients, with or without clipping."""
        step = state.global_step
        parameters = _optimizer_parameters(kwargs["optimizer"], self.groups)
        gradients = [weight.grad for _, weight, _ in parameters if weight.grad is not None]
        add_noise(gradients, noise_variance(self.eta, step), derive_seed(self.seed, step))


def _optimizer_parameters(
    optimizer: Any, groups: Sequence[ParameterGroup]
) -> Iterator[tuple[str, nn.Parameter, float]]:
    """Yield name, parameter and current learning rate of each parameter of the optimizer."""
    for planned, group in zip(groups, optimizer.param_groups, strict=True):
        for name, weight in zip(planned.parameters, group["params"], strict=True):
            yield name, weight, float(group["lr"])

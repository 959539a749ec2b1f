"""L1 and L2-SP regularization by proximal steps after each optimizer step, and gradient noise before it.

l1 and l2_sp are penalties on the weights. Here they are not part of the loss: adaptive optimizers such as Adam would
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
from hf_finetune.recipe.schema import StageSpec
from hf_finetune.tasks.seeded_augmentation import seed_of

__all__ = [
    "GradientNoise",
    "ProximalSteps",
    "add_noise",
    "noise_variance",
    "pretrained_weights",
    "pull_back",
    "soft_threshold",
]

logger = logging.getLogger(__name__)

FADING = 0.55
"""Exponent of the decay of the gradient noise's variance."""


def soft_threshold(weight: torch.Tensor, by: float) -> None:
    """Shrink each element towards 0, in place: sign(w) x max(|w| - by, 0).

    Args:
        weight: Tensor of any shape.
        by: Threshold, 0 or more.

    Source: the proximal step of ``by * |w|``, as in ISTA (Daubechies et al. 2004; Beck & Teboulle 2009).
    """
    weight.sub_(weight.clamp(-by, by))


def pull_back(weight: torch.Tensor, start: torch.Tensor, by: float) -> None:
    """Pull a weight towards its initial value, in place: start + (weight - start) / (1 + by).

    Args:
        weight: Tensor of any shape.
        start: Initial value, of the same shape and on the same device.
        by: Strength of the pull, 0 or more.

    Source: the proximal step of ``by / 2 * |w - start|^2``, the L2-SP penalty of Li, Grandvalet & Davoine 2018,
        Explicit Inductive Bias for Transfer Learning with Convolutional Networks.
    """
    weight.lerp_(start, by / (1 + by))


class ProximalSteps(CallbackMethod):
    """Method that, after each optimizer step, shrinks weights (l1) and pulls them to the checkpoint's (l2_sp).

    It applies to the optimizer's parameters only, so frozen ones do not change, and skips parameters without a
    gradient, as the optimizer does. It skips the steps that the fp16 gradient scaler skips.

    Args:
        groups: Planned parameter groups, in the optimizer's order.
        l1: Strength of the L1 penalty.
        shrunk: Names of the parameters to which ``l1`` applies.
        l2_sp: Strength of the pull to the checkpoint's weights.
        pretrained: Weights of the checkpoint by name; other parameters are not pulled.
    """

    rules = PROXIMAL

    def __init__(
        self,
        groups: Sequence[ParameterGroup],
        *,
        l1: float = 0.0,
        shrunk: Collection[str] = (),
        l2_sp: float = 0.0,
        pretrained: Mapping[str, torch.Tensor] | None = None,
    ):
        self.groups, self.l1, self.shrunk, self.l2_sp = tuple(groups), l1, set(shrunk) if l1 else set(), l2_sp
        self.starts = dict(pretrained or {}) if l2_sp else {}

    @classmethod
    def build(cls, context: StageContext) -> "ProximalSteps | None":
        """Return the steps of l1, for the parameters that weight decay applies to, and of l2_sp."""
        spec, plan = context.stage.spec.regularize, context.stage.plan
        if not spec.l1 and not spec.l2_sp:
            return None
        shrunk = [parameter.name for parameter in plan.layout.parameters if parameter.decays]
        return cls(plan.groups, l1=spec.l1, shrunk=shrunk, l2_sp=spec.l2_sp, pretrained=context.pretrained)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the checkpoint's weights of the trained parameters to the device of the parameters."""
        held = _held(kwargs["optimizer"], self.groups)
        self.starts = {
            name: self.starts[name].to(weight.device) for name, weight, _ in held if name in self.starts
        }

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Apply the proximal steps, with the learning rates of this step."""
        optimizer = kwargs["optimizer"]
        if optimizer.step_was_skipped:
            return
        with torch.no_grad():
            for name, weight, rate in _held(optimizer, self.groups):
                if weight.grad is None:
                    continue
                if name in self.starts:
                    pull_back(weight, self.starts[name], rate * self.l2_sp)
                if name in self.shrunk:
                    soft_threshold(weight, rate * self.l1)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the number of weights that l1 has set to exactly 0."""
        held = [weight for name, weight, _ in _held(kwargs["optimizer"], self.groups) if name in self.shrunk]
        if held and state.is_world_process_zero:
            zeros = sum(int(weight.eq(0).sum()) for weight in held)
            size = sum(weight.numel() for weight in held)
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
    wanted = {
        name
        for stage, planned in zip(stages, plan.stages, strict=True)
        if stage.regularize.l2_sp
        for name in planned.trainable
    }
    layout = plan.layout
    wanted &= {parameter.name for parameter in layout.parameters if parameter.group < layout.backbone_groups}
    return {name: value.detach().clone() for name, value in model.named_parameters() if name in wanted}


def noise_variance(eta: float, step: int) -> float:
    """Return the variance of the gradient noise: eta / (1 + step)^0.55.

    Args:
        eta: Variance at step 0.
        step: Number of steps before this one.

    Source: Neelakantan et al. 2015, Adding Gradient Noise Improves Learning for Very Deep Networks.
    """
    return eta / (1 + step) ** FADING


def add_noise(gradients: Iterable[torch.Tensor], variance: float, seed: int) -> None:
    """Add Gaussian noise to gradients, in place; equal seeds draw equal noise on devices of the same kind.

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
        drawn = torch.randn(gradient.shape, generator=generators[device], device=device, dtype=gradient.dtype)
        gradient.add_(drawn, alpha=variance**0.5)


class GradientNoise(CallbackMethod):
    """Method that adds noise to the gradients after clipping, the same on all processes and after a resume.

    Args:
        groups: Planned parameter groups, in the optimizer's order.
        eta: Variance at the first step.
        seed: Seed of the stage.
    """

    rules = GRADIENT_NOISE

    def __init__(self, groups: Sequence[ParameterGroup], eta: float, seed: int):
        self.groups, self.eta, self.seed = tuple(groups), eta, seed

    @classmethod
    def build(cls, context: StageContext) -> "GradientNoise | None":
        """Return the noise of a stage that asks for it."""
        stage = context.stage
        variance = stage.spec.regularize.gradient_noise
        return cls(stage.plan.groups, variance, stage.seed) if variance else None

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the noise; transformers 5.23 has already unscaled fp16 gradients, with or without clipping."""
        step = state.global_step
        held = [weight.grad for _, weight, _ in _held(kwargs["optimizer"], self.groups)]
        seed = seed_of(self.seed, step)
        add_noise([grad for grad in held if grad is not None], noise_variance(self.eta, step), seed)


def _held(optimizer: Any, groups: Sequence[ParameterGroup]) -> Iterator[tuple[str, nn.Parameter, float]]:
    """Yield name, parameter and current learning rate of each parameter that the optimizer holds."""
    for planned, group in zip(groups, optimizer.param_groups, strict=True):
        for name, weight in zip(planned.parameters, group["params"], strict=True):
            yield name, weight, float(group["lr"])

"""The defences of the regularisers: what they reach, what they draw, and what a resume finds again."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from mutation import Mutation
from mutation_removals import mean_loss, nothing, the_trainers

__all__ = ["OF_REGULAR"]

PROXIMAL = "hf_finetune.methods.proximal"
AVERAGING = "hf_finetune.methods.ema"
TRAINER = "hf_finetune.training.trainer:StagedTrainer"
UNIT = "tests/unit/"
OF_PROXIMAL = f"{UNIT}test_methods_proximal.py::test_"
OF_AVERAGING = f"{UNIT}test_methods_ema.py::test_"
OF_MIXING = f"{UNIT}test_methods_mixup.py::test_"
OF_TWICE = f"{UNIT}test_methods_r_drop.py::test_"
RESUMED = "tests/integration/test_regularize_resumed.py::test_"


def every_parameter(original: Any) -> Any:
    """Shrink all of the model, and not what the optimizer holds."""

    def instead(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if kwargs["optimizer"].step_was_skipped:
            return
        rate = kwargs["optimizer"].param_groups[0]["lr"]
        with torch.no_grad():
            for name, weight in kwargs["model"].named_parameters():
                if name in self.shrunk:
                    weight.sub_(weight.clamp(-rate * self.l1, rate * self.l1))

    return instead


def unheeded_skips(original: Any) -> Any:
    """Go over what the optimizer holds of a step that it has not taken, too."""

    def instead(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kwargs["optimizer"].step_was_skipped = False
        original(self, args, state, control, **kwargs)

    return instead


def global_noise(original: Any) -> Callable[..., None]:
    """Draw from torch's own generator, which no two processes share."""

    def instead(gradients: Any, variance: float, seed: int) -> None:
        for gradient in gradients:
            gradient.add_(torch.randn_like(gradient), alpha=variance**0.5)

    return instead


def global_draws(original: Any) -> Any:
    """Mix as torch's own generator says."""

    def instead(self: Any, batch: Any, seed: int) -> Any:
        return original(self, batch, int(torch.randint(2**31, ())))

    return instead


def without_statistics(original: Any) -> Any:
    return lambda planned: list(planned.trainable)


def leave_it(original: Any) -> Any:
    """Do not take the weights back."""

    def instead(self: Any) -> Any:
        with torch.no_grad():
            for name, place in self.moving.items():
                place.copy_(self.average[name])
        return nullcontext()

    return instead


OF_REGULAR = (
    Mutation(
        "l1 reaches only what the optimizer holds",
        f"{PROXIMAL}:ProximalSteps.on_optimizer_step",
        "every parameter of the model",
        every_parameter,
        (
            f"{OF_PROXIMAL}l1_makes_what_decays_exactly_zero_and_touches_nothing_else[bert]",
            f"{OF_PROXIMAL}l1_makes_what_decays_exactly_zero_and_touches_nothing_else[timm/test_resnet]",
        ),
    ),
    Mutation(
        "A step that fp16's scaler left out shrinks nothing",
        f"{PROXIMAL}:ProximalSteps.on_optimizer_step",
        "every step",
        unheeded_skips,
        (f"{OF_PROXIMAL}a_step_that_the_scaler_left_out_moves_nothing",),
    ),
    Mutation(
        "The noise on the gradient is the same on every process",
        f"{PROXIMAL}:add_noise",
        "torch's own generator",
        global_noise,
        (f"{OF_PROXIMAL}the_noise_is_normal_and_depends_on_the_seed_alone",),
    ),
    Mutation(
        "What is mixed depends on seed, step, batch and process alone",
        "hf_finetune.methods.mixup:BatchMixer.mix",
        "torch's own generator",
        global_draws,
        (f"{OF_MIXING}what_is_drawn_depends_on_seed_step_batch_and_process_alone",),
    ),
    Mutation(
        "Labels are mixed before they are counted",
        f"{TRAINER}.get_batch_samples",
        "the Trainer's own",
        the_trainers("get_batch_samples"),
        (f"{OF_MIXING}the_loss_of_a_stage_is_the_mean_over_its_mixed_examples[mixup]",),
    ),
    Mutation(
        "The disagreement of two passes is a sum over the labels of the whole batch",
        "hf_finetune.methods.r_drop:r_drop_loss",
        "a mean over the forward pass",
        mean_loss,
        (
            f"{OF_TWICE}parts_of_a_batch_add_up_to_it[single_label-labels0]",
            f"{OF_TWICE}a_stage_adds_the_disagreement_of_its_two_passes",
        ),
    ),
    Mutation(
        "The average of the weights is evaluated beside them",
        f"{TRAINER}.evaluation_loop",
        "the Trainer's own",
        the_trainers("evaluation_loop"),
        (f"{OF_AVERAGING}what_was_best_goes_on[scores0-2-True]",),
    ),
    Mutation(
        "An evaluation of the average leaves the weights as they were",
        f"{AVERAGING}:AveragedWeights.in_place",
        "the average stays",
        leave_it,
        (
            f"{OF_AVERAGING}what_was_best_goes_on[scores1-4-False]",
            f"{OF_AVERAGING}the_better_of_the_two_by_the_stages_metric_is_told[True-0.5-0.75-True]",
        ),
    ),
    Mutation(
        "The average has the BatchNorm statistics that belong to it",
        f"{AVERAGING}:_moving",
        "the parameters only",
        without_statistics,
        (f"{OF_AVERAGING}without_validation_the_average_goes_on_and_nothing_frozen_moves[timm/test_resnet]",),
    ),
    Mutation(
        "The average is part of a checkpoint",
        f"{AVERAGING}:AveragedWeights.save",
        "nothing",
        nothing,
        (f"{RESUMED}a_run_that_is_interrupted_in_every_stage_ends_the_same[text]",),
    ),
)

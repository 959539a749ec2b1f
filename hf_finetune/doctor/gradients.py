"""Check of the loss scaling: gradient accumulation does not change the gradient of the batch."""

from pathlib import Path

from hf_finetune.distributed import start_processes
from hf_finetune.doctor.check_target import CheckTarget
from hf_finetune.doctor.result import CheckResult
from hf_finetune.doctor.steps import (
    FirstGradient,
    difference,
    force_eval_mode,
    plain_gradient,
    shorten,
    take_steps,
)
from hf_finetune.errors import counted

__all__ = ["TOLERANCE", "check_loss_scaling", "widest_stage"]

LOSS_SCALING = "loss scaling"
TOLERANCE = 1e-2
"""Largest difference of two gradients, as a fraction of their norm. Rounding causes 1e-6 in fp32 and 1e-3 in TF32; the
errors to detect are factors of 2 and more."""
REPAIR = (
    "Gradient accumulation would change the effective learning rate. Set accumulation: 1 in every stage, and update "
    "transformers and accelerate."
)


def check_loss_scaling(subject: CheckTarget, folder: Path) -> CheckResult:
    """Check that 1 batch of 8 and 4 accumulated batches of 2 give the same gradient as plain torch on all 8 examples.

    The gradient is taken right before the optimizer step.

    Args:
        subject: Model to check.
        folder: Folder for the output of the steps.
    """
    index = widest_stage(subject)
    spec, plan = subject.prepared.recipe.stages[index], subject.prepared.plan.stages[index]
    count, target = len(subject.examples), subject.prepared.data.target
    splits = ((1, count), (4, count // 4))
    gradients = []
    for accumulation, batch_size in splits:
        first = FirstGradient()
        take_steps(
            subject.model,
            shorten(spec, plan, steps=1, batch_size=batch_size, accumulation=accumulation),
            target=target,
            sequences=subject.inputs.sequences,
            examples=list(subject.examples),
            collate=subject.inputs.collate,
            folder=folder / f"{accumulation}x{batch_size}",
            prepare=force_eval_mode,
            callbacks=[first],
        )
        gradients.append(first.gradient)
    batch = subject.inputs.collate([dict(example) for example in subject.examples])
    device, smoothing = start_processes().device, spec.label_smoothing
    reference = plain_gradient(
        *(subject.model, plan.trainable, batch, target, subject.inputs.sequences),
        label_smoothing=smoothing,
        device=device,
    )
    names = [f"{counted(batches, 'batch', 'batches')} of {size}" for batches, size in splits]
    compared = [difference(gradient, reference) for gradient in gradients]
    worst = max(error for _, error in compared)
    if not worst <= TOLERANCE:
        ratios = [f"{ratio:.3g} ({name})" for (ratio, _), name in zip(compared, names, strict=True)]
        measured = (
            f"The gradient norm is {' and '.join(ratios)} times that of plain torch; "
            f"the gradients differ by up to {worst:.1%} of it."
        )
        return CheckResult(LOSS_SCALING, "fail", measured, REPAIR)
    same = f"{' and '.join(names)} have the same gradient as plain torch"
    return CheckResult(LOSS_SCALING, "pass", f"{same}, within {worst:.0e} of its norm.")


def widest_stage(subject: CheckTarget) -> int:
    """Return the index of the stage that trains the most parameters; the last one in a tie."""
    sizes = [plan.trainable_size for plan in subject.prepared.plan.stages]
    return max(range(len(sizes)), key=lambda index: (sizes[index], index))

"""Check of a model on a few examples before training, and before anything is written."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_finetune.errors import InputError, Problem, join_quoted
from hf_finetune.models.adapters import uncalled_layers
from hf_finetune.models.find_head import head_names
from hf_finetune.models.head_spec import head_error, head_problem
from hf_finetune.models.linear_head import nonlinear_reason
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.tasks import Inputs

__all__ = ["check_forward", "padding_notes"]

PADDING_TOLERANCE = 1e-3
"""Largest accepted change of a logit by padding, relative to the largest logit. Rounding in fp32 stays far below it."""


def check_forward(model: PreTrainedModel, prepared: PreparedRun, inputs: Inputs) -> None:
    """Run the first, longest and largest examples through the model, to find errors before training.

    Args:
        model: Classifier on the CPU, with the adapter of the recipe.
        prepared: Checked run.
        inputs: Model inputs of training and validation.

    Raises:
        InputError: If the model fails on an example, its architecture does not suit ``model.head``, a head to be fitted
            with a solver is not linear, or a layer with an adapter is never called.
    """
    batch = prepared.task.modality.synthetic_batch(prepared.processor)
    if reason := head_problem(model, batch):
        raise head_error(model.config, reason)
    first = _first_example(inputs, prepared)
    with uncalled_layers(model) as uncalled:
        _forward_backward(model, prepared, [batch])
        _forward_backward(model, prepared, [_collated(inputs, prepared, [first])])
        extremes = _extremes(inputs, prepared)
        _forward_backward(
            model, prepared, [_collated(inputs, prepared, [first, *extreme]) for extreme in extremes]
        )
    fitted = [(index, spec) for index, spec in enumerate(prepared.recipe.stages) if solver_of(spec)]
    if fitted and (reason := nonlinear_reason(model, head_names(model), batch)):
        rule = "must be gradient unless the head is one linear layer"
        repair = f"In this model, {reason}."
        index, spec = fitted[0]
        raise InputError(Problem(f"stages[{index}].fit", rule, repr(spec.fit), repair))
    if uncalled:
        rule, names = "must not contain layers that the model never calls", sorted(uncalled)
        repair = "The model uses their weights without calling them, so an adapter has no effect. Choose other layers."
        raise InputError(Problem("model.adapter.target", rule, join_quoted(names, 1), repair))


def padding_notes(model: PreTrainedModel, prepared: PreparedRun) -> list[str]:
    """Return a note if padding changes the logits of a short text; no note for images.

    Args:
        model: Classifier on the CPU.
        prepared: Checked run.
    """
    if not prepared.task.modality.has_tokens:
        return []
    processor = prepared.processor
    pair = processor(
        [*prepared.task.modality.uneven_texts()],
        padding=True,
        truncation=True,
        max_length=processor.model_max_length,
        return_tensors="pt",
    )
    with torch.no_grad():
        alone = model.eval()(**prepared.task.modality.synthetic_batch(processor)).logits[0].float()
        padded = model(**pair).logits[0].float()
    largest = alone.abs().max()
    change = float((padded - alone).abs().max() / largest) if largest > 0 else 0.0
    if change <= PADDING_TOLERANCE:
        return []
    return [
        "The predictions of this model depend on padding: the logits of a short text change by "
        f"{100 * change:.2g} % (of the largest logit) when it is batched with a longer text. "
        "Set evaluation.batch_size: 1, and run evaluate and predict with --batch-size 1, or use a checkpoint that "
        "masks padding."
    ]


def _forward_backward(
    model: PreTrainedModel, prepared: PreparedRun, batches: Sequence[Mapping[str, torch.Tensor]]
) -> None:
    """Compute the logits of each batch, and for the last batch also the gradient of the first trained parameter."""
    trained = {name for plan in prepared.plan.stages for name in plan.trainable}
    size = prepared.recipe.data.image_size
    for batch in batches:
        weight = next((value for name, value in model.named_parameters() if name in trained), None)
        try:
            with torch.set_grad_enabled(batch is batches[-1]):
                logits = model.eval()(**batch).logits
                if logits.requires_grad and weight is not None and weight.requires_grad:
                    torch.autograd.grad(logits.float().sum(), [weight], allow_unused=True)
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            shapes = "; ".join(f"{name} {list(tensor.shape)}" for name, tensor in batch.items())
            repair = _error_hint(error)
            if isinstance(error, IndexError):
                repair += f"; input shapes: {shapes}."
            if size:
                problem = Problem(
                    "data.image_size", "must be a size that the model can process", str(size), repair
                )
            else:
                rule, path = "must be a model that can process the data", prepared.recipe.model.path
                problem = Problem("model.path", rule, repr(path), repair)
            raise InputError(problem) from error


def _collated(
    inputs: Inputs, prepared: PreparedRun, examples: list[dict[str, Any]]
) -> Mapping[str, torch.Tensor]:
    # the labels of training and validation examples may differ in form, and the model needs no labels
    unlabeled = [{name: value for name, value in example.items() if name != "labels"} for example in examples]
    try:
        batch = dict(inputs.collate(unlabeled))
    except (RuntimeError, ValueError) as error:
        values = [value for example in examples for value in example.values()]
        shapes = sorted({tuple(value.shape) for value in values if hasattr(value, "shape")})
        rule = "must have an image processor that resizes all images to one size, so that they can be batched"
        value = " and ".join("x".join(map(str, shape)) for shape in shapes)
        repair = "Set data.image_size, or enable cropping in the image processor."
        raise InputError(Problem("model.path", rule, value, repair)) from error
    return batch


def _extremes(inputs: Inputs, prepared: PreparedRun) -> list[list[dict[str, Any]]]:
    """Return for each split the longest text, or the images of extreme size and shape."""
    splits = [
        ("train", prepared.data.train, inputs.train),
        ("validation", prepared.data.validation, inputs.validation),
    ]
    extremes = []
    for name, raw, transformed in splits:
        if raw is None or transformed is None or len(raw) != len(transformed):
            continue
        rows = prepared.task.modality.extreme_rows(raw, inputs.lengths if name == "train" else None)
        extremes.append([transformed[row] for row in rows])
    return extremes


def _first_example(inputs: Inputs, prepared: PreparedRun) -> dict[str, Any]:
    named = prepared.recipe.data.augment.transforms
    try:
        return inputs.train[0]
    except (RuntimeError, ValueError, TypeError) as error:
        if not named:
            raise
        names = ", ".join(repr(transform.name) for transform in named)
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        rule = f"failed on the first training image: {reason}"
        raise InputError(Problem("data.augment.transforms", rule, names)) from error


def _error_hint(error: Exception) -> str:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "The model does not support it." if "INTERNAL ASSERT" in first else f"Model error: {first}"

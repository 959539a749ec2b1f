"""Models to check: a recipe's checkpoint with its head, or two tiny models; all with synthetic inputs."""

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Value
from transformers import PreTrainedModel

from hf_finetune.data.model_inputs import prepare_inputs
from hf_finetune.data.prepare import LabeledData
from hf_finetune.errors import DataNotFoundError, InputError, Problem
from hf_finetune.models.build import BuiltModel
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.forward_check import check_forward
from hf_finetune.runs.prepare import load_available_data, prepare_with_data
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.targets import ASSUMED_TARGET, TARGETS
from hf_finetune.targets.labels import TargetName
from hf_finetune.tasks import TASKS, Inputs, Modality

__all__ = ["CheckTarget", "load_check_target", "sets_optional_column", "synthetic_data", "tiny_recipes"]

EXAMPLES = 8
"""Number of synthetic examples."""


@dataclass(frozen=True)
class CheckTarget:
    """Model to check, with synthetic inputs. The checks copy the model before they train it.

    Attributes:
        prepared: Recipe with its processor, its plan and the synthetic data.
        model: Model from the checkpoint, with the head for the recipe's labels; on the CPU, in fp32.
        inputs: Synthetic examples, with the recipe's preprocessing and augmentation.
        examples: The same examples, preprocessed once, so that random augmentation cannot change them.
        notes: Sentences on the loaded weights.
        weight_problems: Problems of missing or unexpected weights.
        remark: Note for the user, printed before the checks; may be empty.
    """

    prepared: PreparedRun
    model: PreTrainedModel
    inputs: Inputs
    examples: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]
    weight_problems: tuple[Problem, ...] = ()
    remark: str = ""


def load_check_target(recipe: Recipe, *, trust_remote_code: bool = False) -> CheckTarget:
    """Load a recipe's checkpoint and create synthetic inputs; the recipe's data is used only for the class names.

    Args:
        recipe: Recipe of a single task, whose checkpoint to load.
        trust_remote_code: Whether code from the checkpoint may run.

    Returns:
        Model and synthetic inputs.

    Raises:
        InputError: If the recipe does not fit the checkpoint, or the checkpoint cannot be read.
    """
    modality = TASKS[recipe.task].modality
    data, remark = None, ""
    with suppress(DataNotFoundError):
        data = load_available_data(recipe)
    if data is not None:
        target, names = data.target, data.label_names
    else:
        label_type = TASKS[recipe.task].label_type(recipe.data.target)
        target = ASSUMED_TARGET if label_type == "auto" else label_type
        names = TARGETS[target].output_names((), modality.synthetic_classes)
        remark = f"The data {recipe.data.path!r} is not available: the number of labels is assumed to be {len(names)}."
    pair = sets_optional_column(recipe)
    synthetic = synthetic_data(modality, target, names, pair=pair)
    prepared = prepare_with_data(_without_metrics(recipe), synthetic, trust_remote_code=trust_remote_code)
    built, weight_problems = _load(prepared)
    inputs = prepare_inputs(prepared.task, prepared.data, prepared.processor, recipe.data, recipe.seed)
    check_forward(built.model, prepared, inputs)
    examples = tuple(inputs.train[index % len(inputs.train)] for index in range(EXAMPLES))
    return CheckTarget(prepared, built.model, inputs, examples, built.notes, weight_problems, remark)


def sets_optional_column(recipe: Recipe) -> bool:
    """Return whether a recipe names an optional column of its examples, such as the second text of a pair."""
    roles = TASKS[recipe.task_type].modality.roles
    return any(getattr(recipe.data.columns, role.name) is not None for role in roles if role.optional)


def synthetic_data(
    modality: Modality, target: TargetName, names: Sequence[str], *, words: int = 16, pair: bool = False
) -> LabeledData:
    """Return 8 synthetic labeled examples, the same at every call.

    Args:
        modality: Kind of the inputs.
        target: Label type.
        names: Class names; one name for regression.
        words: Number of words of the longest text; the shortest has at least a quarter as many.
        pair: Whether optional columns are filled too.
    """
    rng = random.Random(0)
    examples = modality.synthetic_examples(EXAMPLES, rng, length=words, pair=pair)
    types = modality.features()
    columns: dict[str, list[Any]] = {"id": [f"made-up:{index}" for index in range(EXAMPLES)], **examples}
    features = {"id": Value("string"), **{name: types[name] for name in examples}}
    columns["label"] = [TARGETS[target].synthetic_label(rng, len(names)) for _ in range(EXAMPLES)]
    features["label"] = TARGETS[target].feature(names)
    dataset = Dataset.from_dict(columns, Features(features))
    return LabeledData(dataset, None, None, target, tuple(names), (), "made up")


def tiny_recipes(folder: Path) -> tuple[Recipe, ...]:
    """Write a tiny checkpoint with random weights for each task, and return their recipes.

    Args:
        folder: Folder for the checkpoints.

    Returns:
        Recipe of each task.
    """
    torch.manual_seed(0)
    recipes = []
    for task in TASKS.values():
        stages = [
            {"name": "head", "train": "head" if task.has_new_head else "last:1", "epochs": 1, "lr": 1e-2},
            {"name": "all", "train": "all", "epochs": 1, "lr": 1e-3, "layer_decay": 0.9},
        ]
        checkpoint = folder / f"tiny-{task.modality.name}"
        task.modality.save_tiny_checkpoint(checkpoint)
        data = str(folder / "none")  # does not exist, so synthetic data is used
        recipe = {"task": task.name, "model": str(checkpoint), "data": data, "stages": stages}
        recipes.append(parse_recipe(recipe))
    return tuple(recipes)


def _load(prepared: PreparedRun) -> tuple[BuiltModel, tuple[Problem, ...]]:
    """Return the model, and the problems of missing and unexpected weights.

    If there are any, the model is loaded with ``allow_missing: .*`` so that the other checks can run.
    """
    try:
        return load_pretrained(prepared), ()
    except InputError as error:
        spec = prepared.recipe.model.model_copy(update={"allow_missing": (".*",)})
        lenient = replace(prepared, recipe=prepared.recipe.model_copy(update={"model": spec}))
        return load_pretrained(lenient), error.problems


def _without_metrics(recipe: Recipe) -> Recipe:
    """Return a copy of the recipe without metrics, best checkpoints, early stopping and pruning.

    The first three need the real data; pruning would change the checkpoint that is to be checked.
    """
    disabled = {"best": None, "early_stopping": None, "compress": None}
    stages = tuple(spec.model_copy(update=disabled) for spec in recipe.stages)
    return recipe.model_copy(update={"metrics": (), "stages": stages})

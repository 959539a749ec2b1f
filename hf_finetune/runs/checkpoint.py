"""The checkpoint of a recipe: its config with the labels and the head, its layer groups, and its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.metrics import labels_of
from hf_finetune.models.adapters import add_adapter
from hf_finetune.models.build import BuiltModel, build_model, build_skeleton, load_processor, read_config
from hf_finetune.models.head_bias import output_bias, set_output_bias
from hf_finetune.models.head_spec import set_head
from hf_finetune.models.joining import join_tasks
from hf_finetune.models.layer_sum import set_layers
from hf_finetune.models.layout import head_names, read_layout
from hf_finetune.models.pooling import default_pooling, uses_default_pooling
from hf_finetune.models.remote_code import check_declared
from hf_finetune.models.vocabulary import fit_vocabulary
from hf_finetune.planning.layers import Layout
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.targets.decisions import constant_logits
from hf_finetune.tasks import TASKS

__all__ = [
    "add_recipe_adapter",
    "build_joint_skeleton",
    "check_channels",
    "load_pretrained",
    "read_model_layout",
    "read_task_config",
]

RGB = 3
"""Number of channels of the images that models read."""


def load_pretrained(prepared: PreparedRun) -> BuiltModel:
    """Return the checkpoint's model with a new head and the recipe's adapter, with the same weights at every call."""
    built = {name: _load_task(task) for name, task in prepared.tasks.items()}
    model = join_tasks(
        {name: task.model for name, task in built.items()}, learns_weights=prepared.recipe.learns_task_weights
    )
    notes = dict.fromkeys(note for task in built.values() for note in task.notes)
    return BuiltModel(model, tuple(notes), any(task.has_new_head for task in built.values()))


def _load_task(prepared: PreparedRun) -> BuiltModel:
    """Return the checkpoint's model with the head of one task and the recipe's adapter."""
    spec = prepared.recipe.model
    # While the TrainingArguments of an earlier stage exist, transformers 5.23 would shard the model for DeepSpeed's
    # ZeRO-3 as it loads it, and leave empty tensors. The engine of the stage shards it.
    unset_hf_deepspeed_config()
    task = TASKS[prepared.recipe.task_type]
    built = build_model(
        spec.path,
        prepared.config,
        task=task,
        revision=spec.revision,
        allow_missing=spec.allow_missing,
        trust_remote_code=prepared.trust_remote_code,
        seed=prepared.recipe.seed,
    )
    task.complete_model(built.model, prepared.processor)
    if built.has_new_head and spec.head.bias is not None:
        data, classes = prepared.data, len(prepared.data.label_names)
        logits = constant_logits(labels_of(data.train, data.target, classes), data.target, classes)
        set_output_bias(built.model, head_names(built.model), logits)
    return replace(built, notes=(*built.notes, *add_recipe_adapter(built.model, prepared.recipe)))


def add_recipe_adapter(model: PreTrainedModel, recipe: Recipe) -> list[str]:
    """Add the adapter of a recipe, if it has one, to a model, and return a note on the layers that have it.

    Args:
        model: Model, which is changed in place.
        recipe: Recipe, with or without an adapter.

    Returns:
        The note, or no note without an adapter.
    """
    spec = recipe.model.adapter
    if spec is None:
        return []
    return [add_adapter(model, head_names(model), spec, recipe.seed)]


def read_model_layout(
    recipe: Recipe, configs: Mapping[str, PreTrainedConfig]
) -> tuple[Layout, tuple[str, ...]]:
    """Return the layer groups of a recipe's model, and notes on its adapter; loads no weights.

    Args:
        recipe: Recipe of one task or of several.
        configs: Config of the model of each task.

    Raises:
        InputError: If the tasks or the adapter do not suit the architecture.
    """
    skeleton = build_joint_skeleton(recipe, configs)
    for name, single in recipe.by_task().items():
        if single.model.head.bias is not None:
            _check_bias(build_skeleton(configs[name], TASKS[recipe.task_type]))
    notes = add_recipe_adapter(skeleton, recipe)
    return read_layout(skeleton), tuple(notes)


def _check_bias(skeleton: PreTrainedModel) -> None:
    if output_bias(skeleton, head_names(skeleton)) is None:
        rule = "must not be set for a head without biases in its last layer"
        raise InputError(Problem("model.head.bias", rule, repr("frequencies"), "Remove it."))


def build_joint_skeleton(recipe: Recipe, configs: Mapping[str, PreTrainedConfig]) -> PreTrainedModel:
    """Return the model of a recipe without weights and without its adapter.

    Args:
        recipe: Recipe of one task or of several.
        configs: Config of the model of each task.
    """
    skeletons = {name: build_skeleton(config, TASKS[recipe.task_type]) for name, config in configs.items()}
    return join_tasks(skeletons, learns_weights=recipe.learns_task_weights)


def read_task_config(
    recipe: Recipe, label_names: Sequence[str], target: str, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """Read the checkpoint's config, and set the labels and the head of a recipe in it.

    Args:
        recipe: Recipe of a single task.
        label_names: Class names.
        target: Label type.
        trust_remote_code: Whether code that comes with the checkpoint may run.

    Returns:
        The config with labels and head.

    Raises:
        InputError: If there is no such checkpoint, or the recipe declares code that may not run.
    """
    spec = recipe.model
    check_declared(spec.trust_remote_code, trust_remote_code, spec.path, spec.revision)
    config = read_config(
        spec.path,
        label_names,
        target,
        revision=spec.revision,
        dropout=spec.dropout,
        drop_path=spec.drop_path,
        trust_remote_code=trust_remote_code,
    )
    modality = TASKS[recipe.task_type].modality
    head = spec.head
    default = default_pooling(config, spec.path, spec.revision)
    if uses_default_pooling(recipe, default):
        head = head.model_copy(update={"pool": default.name})
    set_head(config, None if head.is_plain else head.fields(), spec.dropout)
    set_layers(config, head.layers)
    if not modality.has_tokens:
        check_channels(config, spec.path)
        return config
    try:
        tokenizer = load_processor(
            spec.path, modality, revision=spec.revision, trust_remote_code=trust_remote_code
        )
    except InputError:
        return config  # reported where the tokenizer is loaded for use
    fit_vocabulary(config, tokenizer, spec.path, resize=spec.resize_embeddings)
    return config


def check_channels(config: PreTrainedConfig, path: str) -> None:
    """Check that a model takes RGB images: this package and transformers' pipelines convert every image to RGB.

    Args:
        config: Config of the model; one that does not state the number of channels is accepted.
        path: Checkpoint, for the error message.

    Raises:
        InputError: If the model takes another number of channels than 3.
    """
    timm_size = (getattr(config, "pretrained_cfg", None) or {}).get("input_size")
    stated: list[Any] = [
        (getattr(config, "model_args", None) or {}).get("in_chans"),
        timm_size[0] if timm_size else None,
        getattr(config, "num_channels", None),
        getattr(getattr(config, "vision_config", None), "num_channels", None),
    ]
    channels = next((number for number in stated if isinstance(number, int)), RGB)
    if channels != RGB:
        rule = "must be a model for images with 3 channels: all images are read as RGB, also by pipeline()"
        value = f"{path!r} with {channels} channel{'s' if channels != 1 else ''}"
        repair = (
            "Use a checkpoint for RGB images, or repeat or sum the weights of its first layer to 3 channels."
        )
        raise InputError(Problem("model.path", rule, value, repair))

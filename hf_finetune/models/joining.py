"""Join single-task classifiers into one multi-task model, and extract the weights of single tasks from it."""

import copy
from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_finetune.errors import InputError, Problem
from hf_finetune.models.find_head import head_names
from hf_finetune.models.task_heads import TaskHeads

__all__ = ["extract_task_weights", "join_tasks", "task_heads"]


def join_tasks(models: Mapping[str, PreTrainedModel], *, learns_weights: bool = False) -> PreTrainedModel:
    """Move the last layers of all models into the first model, in place, and return it. A single model is unchanged.

    The last layer is the module whose shape depends on the number of labels. All layers between the backbone and it
    (DistilBERT's pre_classifier, a pooler, a hidden layer) are shared.

    Args:
        models: Classifier of each task, by task name, all from one checkpoint; may be on the meta device.
        learns_weights: Whether each task gets a learned variance that weights its loss.

    Raises:
        InputError: If the architecture has no such last layer, or several when ``learns_weights`` is set.
    """
    first = next(iter(models.values()))
    if len(models) == 1:
        return first
    layer_names = _last_layers(first)
    if not layer_names or (learns_weights and len(layer_names) > 1):
        rule = "must be a classifier whose logits come from a final layer if there are several tasks"
        value = f"{type(first).__name__}, which has none"
        if layer_names:
            rule = "must be a classifier with a single final layer if weighting is uncertainty"
            value = f"{type(first).__name__} with {', '.join(layer_names)}"
        raise InputError(Problem("model.path", rule, value))
    for layer_name in layer_names:
        layers = {name: model.get_submodule(layer_name) for name, model in models.items()}
        first.set_submodule(layer_name, TaskHeads(layers, learns_weights))
    return first


def task_heads(model: nn.Module) -> dict[str, TaskHeads]:
    """Return the modules of a joined model that hold one layer per task, by module name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, TaskHeads)}


def extract_task_weights(model: nn.Module, task: str) -> dict[str, torch.Tensor]:
    """Return the weights and buffers of one task in a joined model, by their names in a single-task classifier."""
    heads = task_heads(model)
    renamed = {
        f"{layer_name}.{key}": f"{layer_name}.{plain_name}"
        for layer_name, module in heads.items()
        for key, plain_name in module.state_dict_keys(task).items()
    }
    state = model.state_dict()
    shared = {
        name: value
        for name, value in state.items()
        if not any(name.startswith(f"{layer_name}.") for layer_name in heads)
    }
    return {**shared, **{plain_name: state[name] for name, plain_name in renamed.items()}}


def _last_layers(model: PreTrainedModel) -> list[str]:
    """Return the names of the head's modules whose shapes depend on the number of labels."""
    config = copy.deepcopy(model.config)
    count = config.num_labels + 1
    config.id2label = {index: f"label {index}" for index in range(count)}
    config.label2id = {name: index for index, name in config.id2label.items()}
    with torch.device("meta"):
        resized = dict(type(model)._from_config(config).named_parameters())
    head = set(head_names(model))
    changed = [
        name
        for name, parameter in model.named_parameters()
        if name in head and name in resized and resized[name].shape != parameter.shape
    ]
    return list(dict.fromkeys(name.rpartition(".")[0] for name in changed))

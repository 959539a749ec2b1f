"""Join classifiers of several tasks to one model, and take those of single tasks out of it again."""

import copy
from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_finetune.errors import InputError, Problem
from hf_finetune.models.find_head import head_names
from hf_finetune.models.task_heads import TaskHeads

__all__ = ["join_tasks", "task_heads", "weights_of_task"]


def join_tasks(models: Mapping[str, PreTrainedModel], *, learns_weights: bool = False) -> PreTrainedModel:
    """Put the last layers of all models on the first one, which is changed in place.

    The last layer is what has another shape for another number of labels. Whatever an architecture has between its
    backbone and that (DistilBERT's pre_classifier, a pooler, a hidden layer) is shared.

    Args:
        models: A classifier for each task, by its name, all of one checkpoint; those on the meta device will do.
        learns_weights: Whether each task gets a variance, by which its loss is weighted.

    Raises:
        InputError: If the architecture gives its logits otherwise.
    """
    first = next(iter(models.values()))
    places = _last_layers(first)
    if not places or (learns_weights and len(places) > 1):
        rule = "must be of an architecture with one last layer that gives the logits"
        if places:
            rule = "must be of an architecture with a single last layer when weighting is uncertainty"
        found = f"{type(first).__name__} with {', '.join(places) or 'none'}"
        raise InputError(Problem("model.path", rule, found))
    for place in places:
        layers = {name: model.get_submodule(place) for name, model in models.items()}
        first.set_submodule(place, TaskHeads(layers, learns_weights))
    return first


def task_heads(model: nn.Module) -> dict[str, TaskHeads]:
    """Give the places of a joined model where each task has a layer of its own."""
    return {name: module for name, module in model.named_modules() if isinstance(module, TaskHeads)}


def weights_of_task(model: nn.Module, task: str) -> dict[str, torch.Tensor]:
    """Give a joined model's weights and buffers as the classifier of one task has them."""
    heads = task_heads(model)
    renamed = {
        f"{place}.{key}": f"{place}.{own}"
        for place, module in heads.items()
        for key, own in module.keys_of(task).items()
    }
    state = model.state_dict()
    shared = {
        name: value
        for name, value in state.items()
        if not any(name.startswith(f"{place}.") for place in heads)
    }
    return {**shared, **{own: state[name] for name, own in renamed.items()}}


def _last_layers(model: PreTrainedModel) -> list[str]:
    """Name the modules of the head whose weights have other shapes for other labels."""
    config = copy.deepcopy(model.config)
    count = config.num_labels + 1
    config.id2label = {index: f"label {index}" for index in range(count)}
    config.label2id = {name: index for index, name in config.id2label.items()}
    with torch.device("meta"):
        other = dict(type(model)._from_config(config).named_parameters())
    head = set(head_names(model))
    changed = [
        name
        for name, parameter in model.named_parameters()
        if name in head and name in other and other[name].shape != parameter.shape
    ]
    return list(dict.fromkeys(name.rpartition(".")[0] for name in changed))

"""Classification head of a recipe: write it into a config, check it on a model, load it from a checkpoint."""

import copy
import inspect
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, TimmWrapperConfig
from transformers import TimmWrapperForImageClassification as TimmClassifier

from hf_finetune.errors import InputError, Problem
from hf_finetune.models import classifier_head
from hf_finetune.models.classifier_head import (
    FIELD,
    MODEL_TYPE,
    VERSION,
    ClassificationHead,
    HeadConfig,
    classifier_class,
    is_given,
)
from hf_finetune.models.remote_code import check_settings
from hf_finetune.tasks import Modality

__all__ = [
    "CODE",
    "check_head_pooling",
    "get_pooling",
    "head_error",
    "head_problem",
    "load_config",
    "requiring_gradients",
    "set_head",
    "with_head",
]

logger = logging.getLogger(__name__)

CODE = Path(classifier_head.__file__)
"""Source file that is saved next to the weights of a model with a head of this package."""
UNUSED_SUFFIXES = ("mask_token",)
"""Suffixes of pretraining weights that some classifiers keep without using them."""
MAX_LISTED = 3
"""Largest number of class names in an error message."""
LAYER_COUNT_FIELD = re.compile(r"(num_)?((hidden|encoder|decoder)_)?layers|n_layers?|num_hidden_groups")
"""Names of config settings that hold a number of layers."""
MAX_LAYERS = 10_000
"""Largest number of layers that is accepted: each one takes time and memory, even without weights."""
FORWARD_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, IndexError)


def load_config(path: str | Path, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Load a checkpoint's config, as ``AutoConfig`` does.

    The config of a model with a head of this package is loaded by this package; the code next to its weights is not
    run.

    Raises:
        OSError, ValueError: If there is no config, if a setting has a value of the wrong type, if the head is of
            another version, or if the config would cause code to run or other files to be read.
    """
    try:
        content, _ = PreTrainedConfig.get_config_dict(path, revision=revision)
        check_settings(content, trust_remote_code)
        _check_types(content)
        if content.get("model_type") != MODEL_TYPE:
            return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
    except (AttributeError, TypeError, AssertionError, StrictDataclassError) as error:
        raise ValueError(f"a setting has an invalid value: {' '.join(str(error).split())}") from error
    version = content.get(FIELD, {}).get("version")
    if version != VERSION:
        raise ValueError(f"its head has version {version}, but this hf-finetune supports version {VERSION}")
    code = Path(path) / CODE.name
    if Path(path).is_dir() and not (code.is_file() and code.read_bytes() == CODE.read_bytes()):
        logger.warning("%s is from another version: plain transformers may compute different results.", code)
    content.pop("auto_map", None)
    return HeadConfig.from_dict(content, name_or_path=str(path))


def _check_types(content: Mapping[str, Any]) -> None:
    """Check the types of config settings that transformers does not check.

    Raises:
        ValueError: If ``id2label`` is not a mapping, ``architectures`` is not a list of names, or a number of layers
            is negative or above ``MAX_LAYERS``.
    """
    for name, count in content.items():
        if LAYER_COUNT_FIELD.fullmatch(name) and isinstance(count, int) and not 0 <= count <= MAX_LAYERS:
            raise ValueError(f"{name} must be a number of layers, at most {MAX_LAYERS:,}. Got {count:,}.")
    names, classes = content.get("id2label"), content.get("architectures")
    if names is not None and not isinstance(names, dict):
        some = names[:MAX_LISTED] if isinstance(names, list) else ("cake", "soup")
        mapping = json.dumps({str(index): str(name) for index, name in enumerate(some)})
        raise ValueError(f"id2label must be a mapping such as {mapping}. Got a {type(names).__name__}.")
    if classes is not None and not (
        isinstance(classes, list) and all(isinstance(class_name, str) for class_name in classes)
    ):
        raise ValueError(f"architectures must be a list of class names. Got {classes!r}.")


def set_head(config: PreTrainedConfig, head: Mapping[str, Any] | None, dropout: float | None = None) -> None:
    """Write the head specification of a model into its config, in place.

    timm's native head with a hidden layer is used if it matches the specification, so that the model remains a plain
    timm model.

    Args:
        config: Config of a checkpoint. A head specification that it already has is removed.
        head: Head specification from ``HeadSpec.fields``; None is the architecture's own head.
        dropout: Dropout probability of the model before its head; timm's native head has a single probability.
    """
    config.__dict__.pop(FIELD, None)
    if head is None:
        return
    known = {name: value for name, value in head.items() if value is not None}
    arguments = None
    if isinstance(config, TimmWrapperConfig) and dropout in (None, known.get("dropout")):
        arguments = _timm_head_arguments(config, known)
    if arguments is not None:
        config.model_args = arguments
    setattr(config, FIELD, {"version": VERSION, "native": arguments is not None, **known})


def _timm_head_arguments(config: TimmWrapperConfig, head: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the timm arguments that build this head natively; None if timm cannot build it."""
    if head["type"] != "mlp" or "pool" in head or len(head["hidden"]) != 1:
        return None
    with torch.device("meta"):
        plain: Any = TimmClassifier._from_config(config)
        if "head_hidden_size" not in inspect.signature(type(plain.timm_model).__init__).parameters:
            return None
        candidate = copy.deepcopy(config)
        head_arguments = {"head_hidden_size": head["hidden"][0], "drop_rate": head["dropout"]}
        candidate.model_args = {**(config.model_args or {}), **head_arguments}
        model: Any = TimmClassifier._from_config(candidate)
    layers = getattr(getattr(model.timm_model, "head", None), "pre_logits", None)
    hidden, activation = getattr(layers, "fc", None), type(getattr(layers, "act", None)).__name__.lower()
    fits = isinstance(hidden, nn.Linear) and head.get("activation", activation) == activation
    return dict(candidate.model_args) if fits else None


def with_head(config: PreTrainedConfig, model_class: Any) -> Any:
    """Return the class of a config's model: the architecture's own, or a subclass with the head that the config has."""
    if not is_given(config):
        return model_class
    return classifier_class(model_class, bool(getattr(config, FIELD).get("pool")))


def get_pooling(config: PreTrainedConfig) -> str | None:
    """Return the pooling of this package's head in a config; None if it does not pool, or if the head is another."""
    spec = getattr(config, FIELD, None) or {}
    pool: str | None = None if spec.get("native") else spec.get("pool")
    return pool


def check_head_pooling(model: PreTrainedModel, modality: Modality) -> None:
    """Raise an error if the head pools a class token that the architecture does not have.

    Args:
        model: Model on any device.
        modality: Kind of input.

    Raises:
        InputError: If the pooling is ``cls`` and the model has no class token that attends to the other tokens.
    """
    pools = [head.pool for head in _heads(model) if head.pool is not None]
    reason = modality.pooling_objection(model, pools[0].kind) if pools else None
    if reason is not None:
        raise head_error(model.config, reason)


def head_error(config: PreTrainedConfig, reason: str) -> InputError:
    """Return the error for an architecture that cannot have the head in its config, with the reason."""
    spec = getattr(config, FIELD)
    value = spec["type"] if not spec.get("pool") else f"{spec['type']}, pool: {spec['pool']}"
    name = getattr(config, "architecture", config.model_type)
    rule = f"must be supported by the architecture {name}"
    return InputError(Problem("model.head", rule, value, f"Reason: {reason}."))


def head_problem(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> str:
    """Return the reason why a head of this package does not work in a model; empty if it works or there is none.

    The head must be called once, its output must be the logits, and a head that pools must leave no weight of the
    backbone unused.

    Args:
        model: Model with weights.
        batch: Inputs without labels.
    """
    heads = _heads(model)
    if not heads:
        return ""
    outputs: list[torch.Tensor] = []
    handle = heads[0].register_forward_hook(lambda module, args, output: outputs.append(output))
    parameters = {
        name: value for name, value in model.named_parameters() if not name.endswith(UNUSED_SUFFIXES)
    }
    try:
        with torch.enable_grad(), requiring_gradients(model, True):
            logits = model.eval()(**batch).logits
            gradients = torch.autograd.grad(logits.sum(), list(parameters.values()), allow_unused=True)
    except FORWARD_ERRORS as error:
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        return f"the backbone fails with it ({first})"
    finally:
        handle.remove()
    if len(outputs) != 1 or not _equals_head_output(logits, outputs[0]):
        return "its own head computes the logits with more than a linear layer"
    unused = [name for name, value in zip(parameters, gradients, strict=True) if value is None]
    if unused and heads[0].pool is not None:
        return f"some weights would not be used, such as {unused[0]}"
    return ""


@contextmanager
def requiring_gradients(model: nn.Module, required: bool) -> Iterator[None]:
    """Require gradients of all floating-point weights within the block, or of none; restore all flags afterwards."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(required and parameter.is_floating_point())
    try:
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)


def _equals_head_output(logits: torch.Tensor, given: torch.Tensor) -> bool:
    """Return whether logits [batch, classes] equal the output of a head: [batch, classes], or one of its tokens."""
    if given.shape == logits.shape:
        return torch.equal(given, logits)
    same = given.ndim == 3 and given.shape[::2] == logits.shape
    return same and bool((given == logits[:, None]).all(dim=-1).any(dim=1).all())


def _heads(model: nn.Module) -> list[ClassificationHead]:
    return [module for module in model.modules() if isinstance(module, ClassificationHead)]

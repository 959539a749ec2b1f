"""The head that a recipe asks for: written into a config, tried on a model, and read again from a folder."""

import copy
import inspect
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, TimmWrapperConfig
from transformers import TimmWrapperForImageClassification as TimmClassifier
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

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

__all__ = [
    "CODE",
    "head_problem",
    "load_config",
    "pooling_of",
    "refuse_head",
    "set_head",
    "unsuited_head",
    "with_head",
]

logger = logging.getLogger(__name__)

CODE = Path(classifier_head.__file__)
"""The file that lies beside the weights of a model with such a head."""
NEVER_USED = ("mask_token",)
"""Weights of pretraining that some classifiers keep."""
MOST_NAMES = 3
"""Class names that a message shows."""
LAYERS = re.compile(r"(num_)?((hidden|encoder|decoder)_)?layers|n_layers?|num_hidden_groups")
"""Names of the settings that say how many layers a model has."""
MOST_LAYERS = 10_000
"""A model with more is not built: each layer takes time and memory, even without weights."""
FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, IndexError)


def load_config(path: str | Path, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Read a checkpoint's config, as ``AutoConfig`` does.

    That of a model under a head of this package is read by this package. The code beside its weights is not run.

    Raises:
        OSError, ValueError: If there is none, if a setting has a value of another type than it must have, if it is of
            a later version of this package, or if it would have code run or other files read.
    """
    try:
        content, _ = PreTrainedConfig.get_config_dict(path, revision=revision)
        check_settings(content, trust_remote_code)
        _check_types(content)
        if content.get("model_type") != MODEL_TYPE:
            return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
    except (AttributeError, TypeError, AssertionError, StrictDataclassError) as error:
        raise ValueError(
            f"a setting has a value that it cannot have: {' '.join(str(error).split())}"
        ) from error
    version = content.get(FIELD, {}).get("version")
    if version != VERSION:
        raise ValueError(f"its head is of version {version}, and this hf-finetune knows version {VERSION}")
    code = Path(path) / CODE.name
    if Path(path).is_dir() and not (code.is_file() and code.read_bytes() == CODE.read_bytes()):
        logger.warning("%s is not this version's: plain transformers may compute something else.", code)
    content.pop("auto_map", None)
    return HeadConfig.from_dict(content, name_or_path=str(path))


def _check_types(content: Mapping[str, Any]) -> None:
    """Check the types of settings of a config that transformers takes for granted.

    Raises:
        ValueError: If ``id2label`` is no mapping, ``architectures`` no list of names, or a number of layers is not
            one that a model can have.
    """
    for name, count in content.items():
        if LAYERS.fullmatch(name) and isinstance(count, int) and not 0 <= count <= MOST_LAYERS:
            raise ValueError(f"{name} must be a number of layers, at most {MOST_LAYERS:,}; it is {count:,}.")
    names, classes = content.get("id2label"), content.get("architectures")
    if names is not None and not isinstance(names, dict):
        some = names[:MOST_NAMES] if isinstance(names, list) else ("cake", "soup")
        mapping = json.dumps({str(index): str(name) for index, name in enumerate(some)})
        raise ValueError(
            f"id2label must be a mapping such as {mapping}; it is of type {type(names).__name__}."
        )
    if classes is not None and not (
        isinstance(classes, list) and all(isinstance(one, str) for one in classes)
    ):
        raise ValueError(f"architectures must be a list of names of classes; it is {classes!r}.")


def set_head(config: PreTrainedConfig, head: Mapping[str, Any] | None, dropout: float | None = None) -> None:
    """Write into a config, in place, which head its model has.

    timm's own head with a hidden layer is taken where it is what is asked for: then the model stays one of timm.

    Args:
        config: Of a checkpoint. A head that it says it has is forgotten.
        head: What ``HeadSpec.fields`` gives; None is the architecture's own.
        dropout: What the model is told to drop before its head; timm's own head drops one share only.
    """
    config.__dict__.pop(FIELD, None)
    if head is None:
        return
    known = {name: value for name, value in head.items() if value is not None}
    arguments = None
    if isinstance(config, TimmWrapperConfig) and dropout in (None, known.get("dropout")):
        arguments = _of_timm(config, known)
    if arguments is not None:
        config.model_args = arguments
    setattr(config, FIELD, {"version": VERSION, "native": arguments is not None, **known})


def _of_timm(config: TimmWrapperConfig, head: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the arguments with which timm makes such a head by itself; None if it makes another one, or none."""
    if head["type"] != "mlp" or "pool" in head or len(head["hidden"]) != 1:
        return None
    with torch.device("meta"):
        plain: Any = TimmClassifier._from_config(config)
        if "head_hidden_size" not in inspect.signature(type(plain.timm_model).__init__).parameters:
            return None
        tried = copy.deepcopy(config)
        own = {"head_hidden_size": head["hidden"][0], "drop_rate": head["dropout"]}
        tried.model_args = {**(config.model_args or {}), **own}
        made: Any = TimmClassifier._from_config(tried)
    layers = getattr(getattr(made.timm_model, "head", None), "pre_logits", None)
    hidden, activation = getattr(layers, "fc", None), type(getattr(layers, "act", None)).__name__.lower()
    fits = isinstance(hidden, nn.Linear) and head.get("activation", activation) == activation
    return dict(tried.model_args) if fits else None


def with_head(config: PreTrainedConfig, model_class: Any) -> Any:
    """Give the class of a config's model: the architecture's own, or a subclass under the head that it asks for."""
    if not is_given(config):
        return model_class
    return classifier_class(model_class, bool(getattr(config, FIELD).get("pool")))


def pooling_of(config: PreTrainedConfig) -> str | None:
    """Return how a head of this package pools tokens or places; None if it does not, or if the head is another."""
    spec = getattr(config, FIELD, None) or {}
    pool: str | None = None if spec.get("native") else spec.get("pool")
    return pool


def refuse_head(model: PreTrainedModel, modality: Literal["image", "text"]) -> None:
    """Make sure that a head has what it pools.

    Args:
        model: On any device.
        modality: What it takes.
    Raises:
        InputError: If the class token is asked for, and there is none that has seen the others.
    """
    pools = [head.pool for head in _heads(model) if head.pool is not None]
    if not pools or pools[0].kind != "cls":
        return
    if modality == "image" and not any(name.endswith("cls_token") for name, _ in model.named_parameters()):
        raise unsuited_head(model.config, "it has no class token")
    if modality == "text" and model.config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise unsuited_head(model.config, "its first token does not see those behind it")


def unsuited_head(config: PreTrainedConfig, reason: str) -> InputError:
    """Say that an architecture cannot have the head of its config."""
    spec = getattr(config, FIELD)
    value = spec["type"] if not spec.get("pool") else f"{spec['type']}, pool: {spec['pool']}"
    name = getattr(config, "architecture", config.model_type)
    return InputError(Problem("model.head", "must suit the architecture", value, f"For {name}: {reason}."))


def head_problem(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> str:
    """Say why a head of this package does not do its work in a model; empty if it does, or if there is none.

    It must be called once, what it gives must be the logits, and no weight of the backbone may be left without use.

    Args:
        model: With weights.
        batch: Inputs without labels.
    """
    found = _heads(model)
    if not found:
        return ""
    given: list[torch.Tensor] = []
    handle = found[0].register_forward_hook(lambda module, args, output: given.append(output))
    parameters = {name: value for name, value in model.named_parameters() if not name.endswith(NEVER_USED)}
    try:
        with torch.enable_grad(), _requiring_gradients(model):
            logits = model.eval()(**batch).logits
            gradients = torch.autograd.grad(logits.sum(), list(parameters.values()), allow_unused=True)
    except FAILURES as error:
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        return f"the backbone does not compute under it ({first})"
    finally:
        handle.remove()
    if len(given) != 1 or not _is_of(logits, given[0]):
        return "its own head does more than a linear layer to get the logits"
    unused = [name for name, value in zip(parameters, gradients, strict=True) if value is None]
    if unused and found[0].pool is not None:
        return f"{unused[0]} and what belongs to it would be of no use"
    return ""


@contextmanager
def _requiring_gradients(model: nn.Module) -> Iterator[None]:
    """Let every weight require a gradient: an adapter has frozen those below it."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)


def _is_of(logits: torch.Tensor, given: torch.Tensor) -> bool:
    """Say whether logits are what a head gave, for the example or for one of its tokens."""
    if given.shape == logits.shape:
        return torch.equal(given, logits)
    same = given.ndim == 3 and given.shape[::2] == logits.shape
    return same and bool((given == logits[:, None]).all(dim=-1).any(dim=1).all())


def _heads(model: nn.Module) -> list[ClassificationHead]:
    return [module for module in model.modules() if isinstance(module, ClassificationHead)]

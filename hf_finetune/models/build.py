"""Build a classifier from a pretrained checkpoint: a new head of the right size, all other weights checked."""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import timm
import torch
import transformers
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel, TimmWrapperConfig

from hf_finetune.errors import InputError, Problem, counted
from hf_finetune.models.checkpoint_problems import (
    checkpoint_problem,
    model_problem,
    processor_problem,
    weights_problem,
)
from hf_finetune.models.checkpoint_weights import check_finite_weights, check_loaded_weights
from hf_finetune.models.classifier_head import HeadError, is_given
from hf_finetune.models.computed_weights import computed_weights
from hf_finetune.models.dropout import set_drop_path, set_dropout
from hf_finetune.models.head_spec import check_head_pooling, head_error, load_config, set_head, with_head
from hf_finetune.models.layer_sum import init_layer_weights
from hf_finetune.models.layout import head_names
from hf_finetune.models.pretraining_weights import classifier_config
from hf_finetune.models.projector import init_projector, widen_projector
from hf_finetune.models.remote_code import check_tokenizer, remote_code_error
from hf_finetune.models.vocabulary import embedding_rows, resize_vocabulary
from hf_finetune.recipe.paths import missing_checkpoint
from hf_finetune.targets import TARGETS
from hf_finetune.targets.model_config import get_target, set_target
from hf_finetune.tasks import Modality, Task

__all__ = ["BuiltModel", "build_model", "build_skeleton", "load_processor", "read_config"]

logger = logging.getLogger(__name__)

LOADING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError, UnpicklingError)
"""Exceptions that libraries raise for missing or damaged checkpoint files."""
SETTING_ERRORS = (AttributeError, TypeError, IndexError, ZeroDivisionError, AssertionError)
"""Further exceptions that libraries raise for a setting whose value has an invalid type or size."""


@dataclass(frozen=True)
class BuiltModel:
    """Classifier that is ready for fine-tuning.

    Attributes:
        model: The classifier, on the CPU, in fp32.
        notes: Notes for the user, such as a replaced head or unused weights of the checkpoint.
        has_new_head: Whether the head has random weights.
    """

    model: PreTrainedModel
    notes: tuple[str, ...]
    has_new_head: bool = False


def read_config(
    path: str,
    label_names: Sequence[str],
    target: str,
    *,
    revision: str | None = None,
    dropout: float | None = None,
    drop_path: float | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedConfig:
    """Read a checkpoint's config, and set the labels and the dropout in it; the head is the architecture's own.

    A timm name needs no network: its config is in timm's registry.

    Args:
        path: A Hub id, ``timm/NAME``, or a folder.
        label_names: Names of the classes, in order; one name for regression.
        target: ``single_label``, ``multi_label`` or ``regression``.
        revision: Branch, tag or commit on the Hub.
        dropout: Dropout probability; None keeps the checkpoint's.
        drop_path: Probability of skipping the last block (stochastic depth); None keeps the checkpoint's.
        trust_remote_code: Whether code that comes with the checkpoint may run.

    Raises:
        InputError: If there is no such checkpoint, or it has no dropout or stochastic depth to set.
    """
    if missing := missing_checkpoint(path):
        raise InputError(missing)
    try:
        config = load_config(path, revision=revision, trust_remote_code=trust_remote_code)
    except LOADING_ERRORS as error:
        config = _timm_config(path)
        if config is None:
            code_error = None
            if not isinstance(error, OSError) and not trust_remote_code:  # the config was read
                code_error = remote_code_error("model.path", path, revision)
            raise (code_error or InputError(checkpoint_problem(path, error))) from error
    config = classifier_config(config)
    widen_projector(config)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    set_target(config, target)
    if isinstance(config, TimmWrapperConfig):
        # Labels of an earlier fine-tuning would take precedence over id2label when the config is saved.
        config.__dict__.pop("label_names", None)
    if dropout is not None:
        set_dropout(config, dropout)
    if drop_path is not None:
        set_drop_path(config, drop_path)
    set_head(config, None)
    return config


def build_skeleton(config: PreTrainedConfig, task: Task) -> PreTrainedModel:
    """Build a classifier without weights, on the meta device, for planning.

    Args:
        config: Config from ``read_config``.
        task: Task of the model.

    Raises:
        InputError: If the architecture has no classifier for this task, or the config does not build one.
    """
    try:
        with torch.device("meta"):
            model: PreTrainedModel = task.adapt_model(_auto_model(config, task)._from_config(config))
    except HeadError as error:
        raise head_error(config, str(error)) from error
    except InputError:
        raise
    except (*LOADING_ERRORS, *SETTING_ERRORS) as error:
        raise InputError(model_problem(config.name_or_path, error)) from error
    check_head_pooling(model, task.modality)
    if isinstance(config, TimmWrapperConfig) and not hasattr(model.timm_model, "get_classifier"):
        value = f"timm's {config.architecture!r}, which returns only features"
        raise InputError(
            Problem("model.path", "must be an image classifier", value, "Choose another architecture.")
        )
    return model


def build_model(
    path: str,
    config: PreTrainedConfig,
    *,
    task: Task,
    revision: str | None = None,
    allow_missing: Sequence[str] = (),
    trust_remote_code: bool = False,
    seed: int = 0,
) -> BuiltModel:
    """Build a classifier with a head for the config's labels, and load the checkpoint's weights into it.

    Args:
        path: A Hub id, ``timm/NAME``, or a folder.
        config: Config from ``read_config``.
        task: Task of the model.
        revision: Branch, tag or commit on the Hub.
        allow_missing: Regular expressions of weight names that may be missing or unexpected.
        trust_remote_code: Whether code that comes with the checkpoint may run.
        seed: Seed of the new head's weights.

    Raises:
        InputError: If the weights cannot be read, or a weight outside the head is missing, unexpected, of another
            shape or not finite.
    """
    model_class = _auto_model(config, task)
    saved = _config_on_disk(path, revision, trust_remote_code)
    rows, old_rows = embedding_rows(config), embedding_rows(saved) if saved is not None else None
    resizes = rows is not None and old_rows is not None and rows > old_rows
    wanted = config
    if resizes:
        config = copy.deepcopy(config)
        config.get_text_config().vocab_size = old_rows
    transformers.set_seed(seed)
    model, info = _load_weights(model_class, path, config, revision)
    computed = computed_weights(config)
    info["mismatched_keys"] = {entry for entry in info["mismatched_keys"] if entry[0] not in computed}
    missing = set(info["missing_keys"])
    info["missing_keys"] = missing - {
        *init_projector(model, missing),
        *init_layer_weights(model, missing, saved),
    }
    head = set(head_names(model))
    model = task.adapt_model(model)
    head_notes = _replace_head(model, head, info, saved) if task.has_label_head else []
    old_head = _old_head(saved, config, task) - head
    notes = [*head_notes, *check_loaded_weights(path, model, info, head, old_head, allow_missing, saved)]
    check_finite_weights(path, model)
    if resizes:
        notes.append(resize_vocabulary(model, embedding_rows(wanted) or 0))
    task.modality.complete_config(model.config)
    return BuiltModel(model, tuple(notes), has_new_head=bool(head_notes))


def _load_weights(
    model_class: Any, path: str, config: PreTrainedConfig, revision: str | None
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return the classifier with the checkpoint's weights, and which of them are missing or of another shape."""
    try:
        model, info = model_class.from_pretrained(
            path,
            config=config,
            revision=revision,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except LOADING_ERRORS as error:
        raise InputError(weights_problem(path, error)) from error
    return model, info


def _replace_head(
    model: PreTrainedModel, head: set[str], info: Mapping[str, Any], saved: PreTrainedConfig | None
) -> list[str]:
    """Reinitialize a loaded head for other classes, and return a note if the head is new."""
    config = model.config
    old_labels = tuple(saved.id2label.values()) if saved is not None and saved.id2label else ()
    replaced = {name for name, *_ in info["mismatched_keys"]} & head
    new = (set(info["missing_keys"]) & head) | replaced
    kind = TARGETS[get_target(config)]
    if not new and not kind.is_whole and old_labels != tuple(config.id2label.values()):
        # The checkpoint's head has the right size but other classes, so its weights are meaningless here.
        for name in sorted({name.rpartition(".")[0] for name in head}):
            _reinitialize(model, model.get_submodule(name))
        replaced = head
    outputs = kind.outputs_in_words(config)
    if replaced and not kind.is_whole:
        old = counted(len(old_labels), "label")
        return [f"The checkpoint's head for {old} is replaced by a new head for {outputs}."]
    return [f"A new head is initialized for {outputs}."] if new else []


def load_processor(
    path: str, modality: Modality, *, revision: str | None = None, trust_remote_code: bool = False
) -> Any:
    """Load the checkpoint's preprocessor: its image processor, or its tokenizer with a padding token.

    Raises:
        InputError: If the checkpoint has none, or none that works.
    """
    try:
        processor = modality.load_processor(path, revision=revision, trust_remote_code=trust_remote_code)
        modality.check_processor(processor)
    except (*LOADING_ERRORS, *SETTING_ERRORS) as error:
        code_error = None if trust_remote_code else remote_code_error("model.path", path, revision)
        raise (code_error or InputError(processor_problem(path, modality, error))) from error
    if modality.has_tokens:
        check_tokenizer("model.path", path, revision=revision, trust_remote_code=trust_remote_code)
    if modality.is_default_processor(processor):
        raise InputError(processor_problem(path, modality))
    if missing := modality.complete_processor(processor):
        raise InputError(Problem("model.path", f"must have {missing}", repr(path)))
    return processor


def _timm_config(path: str) -> TimmWrapperConfig | None:
    """Return the config of a timm checkpoint from timm's offline registry; None if it has no such checkpoint."""
    name = path.removeprefix("timm/")
    if name == path or not timm.is_model(name.split(".")[0]):
        return None
    known = timm.get_pretrained_cfg(name)
    if known is None:
        return None
    fields = {key: value for key, value in known.to_dict().items() if value is not None}
    return TimmWrapperConfig(architecture=name.split(".")[0], pretrained_cfg=fields, num_labels=1)


def _auto_model(config: PreTrainedConfig, task: Task) -> Any:
    try:
        mapped = task.auto_class_of(config)._model_mapping[type(config)]
        # DeiT, LeViT and Perceiver have several classifiers; the checkpoint's config names its own
        saved_classes = config.architectures or ()
        classes = mapped if isinstance(mapped, tuple) else (mapped,)
        return with_head(config, next((cls for cls in classes if cls.__name__ in saved_classes), classes[0]))
    except KeyError as error:
        rule = f"must be a checkpoint from which transformers can build {task.modality.article} classifier"
        raise InputError(Problem("model.path", rule, f"a {config.model_type!r} model")) from error


def _config_on_disk(path: str, revision: str | None, trust_remote_code: bool) -> PreTrainedConfig | None:
    """Return a checkpoint's config as it was saved; None for a timm name, whose config is in timm's registry."""
    try:
        config: PreTrainedConfig = load_config(path, revision=revision, trust_remote_code=trust_remote_code)
    except LOADING_ERRORS:
        return None
    return config


def _old_head(saved: PreTrainedConfig | None, config: PreTrainedConfig, task: Task) -> set[str]:
    """Return the weight names of the checkpoint's head if it or the model has a head of this package; else none."""
    if saved is None:
        saved = copy.deepcopy(config)
        set_head(saved, None)
    if not is_given(saved) and not is_given(config):
        return set()
    return set(head_names(build_skeleton(saved, task)))


def _reinitialize(model: PreTrainedModel, module: torch.nn.Module) -> None:
    """Reinitialize a module with loaded weights; ``_is_hf_initialized``, which prevents that, is removed first."""
    for owner in (module, *module.parameters(recurse=False)):
        owner.__dict__.pop("_is_hf_initialized", None)
    model._init_weights(module)

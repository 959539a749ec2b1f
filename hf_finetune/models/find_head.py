"""Find the classification head of a model."""

from torch import nn
from transformers import PreTrainedModel

from hf_finetune.models.classifier_head import FIELD, ClassificationHead
from hf_finetune.models.computed_weights import computed_weights
from hf_finetune.models.projector import has_projector, is_projector
from hf_finetune.models.task_heads import TaskHeads

__all__ = ["find_head", "find_timm_model", "head_names"]


def head_names(model: nn.Module) -> list[str]:
    """Return the parameter names of the classification head, which a new task replaces."""
    return find_head(model)[0]


def find_head(model: nn.Module) -> tuple[list[str], bool]:
    """Return the parameter names of the classification head, and whether the architecture defines it.

    If it does not, the head is guessed: it is the last module with as many outputs as there are labels, or else the
    last module with parameters.
    """
    timm_model, _ = find_timm_model(model)
    head_parameter_ids: set[int] = set()
    if timm_model is not None:
        classifier = timm_model.get_classifier()  # type: ignore[operator]
        head_modules = classifier if isinstance(classifier, (list, tuple)) else [classifier]
        # VOLO has a second head, for its patches, which get_classifier() of timm 1.0 leaves out
        head_modules = [*head_modules, getattr(timm_model, "aux_head", None)]
        if (getattr(getattr(model, "config", None), FIELD, None) or {}).get("native"):
            head_modules.append(timm_model.head.pre_logits)  # type: ignore[union-attr]
        head_parameter_ids = {
            id(weight) for part in head_modules if isinstance(part, nn.Module) for weight in part.parameters()
        }
    elif isinstance(model, PreTrainedModel):
        backbone = {id(parameter) for part in _backbones(model) for parameter in part.parameters()}
        head_parameter_ids = {
            id(parameter)
            for name, parameter in model.named_parameters()
            if not is_projector(model, name) and name not in computed_weights(model.config)
        } - backbone
    heads = [module for module in model.modules() if isinstance(module, ClassificationHead | TaskHeads)]
    head_parameter_ids |= {id(weight) for module in heads for weight in module.parameters()}
    generates = (
        isinstance(model, PreTrainedModel) and model.can_generate()
    )  # its outputs may be its embeddings
    is_known = bool(head_parameter_ids) or timm_model is not None or generates
    if not is_known:
        head_parameter_ids = {id(parameter) for parameter in _last_layer(model).parameters(recurse=False)}
    return [
        name for name, parameter in model.named_parameters() if id(parameter) in head_parameter_ids
    ], is_known


def _backbones(model: PreTrainedModel) -> list[nn.Module]:
    """Return the pretrained parts of a model: its base model, or of a Whisper classifier its encoder."""
    if model.base_model is not model or not has_projector(model.config):
        return [model.base_model]
    return [part for part in model.children() if isinstance(part, PreTrainedModel)]


def _last_layer(model: nn.Module) -> nn.Module:
    owners = [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))]
    labels = getattr(getattr(model, "config", None), "num_labels", None)
    sizes = ("out_features", "out_channels")
    fitting = [
        module for module in owners if labels in [getattr(module, size, None) for size in sizes] and labels
    ]
    return [model, *owners, *fitting][-1]


def find_timm_model(model: nn.Module) -> tuple[nn.Module | None, str]:
    """Return the timm model inside a model, and the prefix of its parameter names.

    The timm model may be the model itself, or wrapped by transformers. None if there is no timm model.
    """
    inner = getattr(model, "timm_model", None)
    timm_model, prefix = (model, "") if inner is None else (inner, "timm_model.")
    is_timm = hasattr(timm_model, "get_classifier") and not isinstance(timm_model, PreTrainedModel)
    return (timm_model, prefix) if is_timm else (None, prefix)

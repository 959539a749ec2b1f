"""Masked image and masked language models around the backbone of a classifier or checkpoint."""

from collections.abc import Collection, Iterator, Mapping

import torch
import transformers
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from hf_finetune.errors import InputError, Problem, join_words
from hf_finetune.models.build import LOADING_ERRORS, read_config
from hf_finetune.models.checkpoint_problems import weights_problem
from hf_finetune.models.find_head import head_names
from hf_finetune.models.vocabulary import embedding_rows, resize_vocabulary
from hf_finetune.targets import ASSUMED_TARGET
from hf_finetune.tasks.masked_examples import WrappedClassifier

__all__ = ["backbone_weights", "build_masked_model", "load_backbone", "recompute_batch_norm_statistics"]


def build_masked_model(
    path: str,
    auto_model: str,
    *,
    revision: str | None = None,
    dropout: float | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
    rows: int | None = None,
) -> tuple[PreTrainedModel, list[str]]:
    """Load a checkpoint with its pretraining head, such as a masked language model.

    Args:
        path: A Hub id or a folder.
        auto_model: Auto class of transformers that has the head.
        revision: Branch, tag or commit on the Hub.
        dropout: Dropout probability; None keeps the checkpoint's.
        seed: Seed of a new head's weights.
        trust_remote_code: Whether code that comes with the checkpoint may run.
        rows: Required number of token embeddings; None, or fewer than the checkpoint has, changes nothing.

    Returns:
        The model, and a note if the checkpoint lacks the head and a new one is trained.

    Raises:
        InputError: If the architecture has no masked language model, or the weights cannot be read.
    """
    config = read_config(
        path,
        ("0", "1"),
        ASSUMED_TARGET,
        revision=revision,
        dropout=dropout,
        trust_remote_code=trust_remote_code,
    )
    auto_class = getattr(transformers, auto_model)
    if type(config) not in auto_class._model_mapping:
        place, value = "domain_adaptation.method", "'continue_pretraining'"
        repair = f"transformers has no masked language model for {config.model_type!r}."
        raise InputError(Problem(place, "must be coral or dann", value, repair))
    transformers.set_seed(seed)
    try:
        model, info = auto_class.from_pretrained(
            path,
            config=config,
            revision=revision,
            output_loading_info=True,
            dtype=torch.float32,
            trust_remote_code=trust_remote_code,
        )
    except LOADING_ERRORS as error:
        raise InputError(weights_problem(path, error)) from error
    new = sorted(info["missing_keys"])
    if (rows or 0) > (embedding_rows(config) or 0):
        resize_vocabulary(model, rows or 0)
    if not new:
        return model, []
    return model, [
        f"The checkpoint has no masked language modeling head; a new one is trained: {join_words(new, 2)}."
    ]


def backbone_weights(model: PreTrainedModel, names: Collection[str]) -> dict[str, torch.Tensor]:
    """Return the backbone weights of a masked model, by the classifier's names; BatchNorm statistics are included.

    Args:
        model: Masked image or masked language model.
        names: Names of the backbone's entries in the classifier's state dict.
    """
    known: Mapping[str, torch.Tensor] = model.state_dict()
    if isinstance(model, WrappedClassifier):
        known = model.classifier.state_dict()
    return {name: known[name].detach().cpu().contiguous() for name in names if name in known}


def load_backbone(model: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> None:
    """Load backbone weights into a classifier. Its head and weights that are not given (a pooler) stay as they are.

    Raises:
        ValueError: If a weight does not belong to the classifier's backbone.
    """
    head, known = set(head_names(model)), model.state_dict()
    if unknown := sorted(set(weights) - (known.keys() - head)):
        raise ValueError(f"weights must be of the backbone. Got {', '.join(unknown[:5])}.")
    model.load_state_dict({**known, **weights}, strict=True)


def recompute_batch_norm_statistics(model: nn.Module, batches: Iterator[Mapping[str, torch.Tensor]]) -> int:
    """Recompute the running statistics of BatchNorm layers on inputs that are not masked.

    Args:
        model: A classifier; its weights do not change.
        batches: Batches without labels; not iterated if the model has no BatchNorm layer.

    Returns:
        Number of BatchNorm layers.

    Source: Li et al. 2016, Revisiting Batch Normalization for Practical Domain Adaptation.
    """
    norms = [
        module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return 0
    before = [(norm, norm.momentum) for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # None: the mean over all batches
        norm.train()
    device = next(model.parameters()).device
    with torch.no_grad():
        for batch in batches:
            model(**{name: value.to(device) for name, value in batch.items()})
    for norm, momentum in before:
        norm.momentum = momentum
    model.eval()
    return len(norms)

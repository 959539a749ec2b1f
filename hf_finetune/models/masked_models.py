"""Masked image and masked language models around the backbone of a classifier or checkpoint."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import (
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    set_seed,
)
from transformers.modeling_outputs import ModelOutput

from hf_finetune.errors import InputError, Problem
from hf_finetune.models.build import LOADING_ERRORS, read_config
from hf_finetune.models.checkpoint_problems import unreadable
from hf_finetune.models.find_head import head_names, timm_part
from hf_finetune.models.vocabulary import embedding_rows, resize_vocabulary
from hf_finetune.targets import SingleLabel

__all__ = [
    "MaskedImageModel",
    "backbone_weights",
    "build_masked_text_model",
    "load_backbone",
    "recount_statistics",
]


class MaskedImageModel(PreTrainedModel):
    """Backbone of an image classifier with one linear layer that predicts pixels from its features.

    Each position of the last feature map, or each token, predicts the pixels of its part of the image.

    Source: Xie et al. 2022, SimMIM: A Simple Framework for Masked Image Modeling. There a learned token replaces masked
    patches after the embedding of a ViT; here masked pixels have the mean color, which works for any network
    (Li et al. 2022, A2MIM).
    """

    config_class = PreTrainedConfig
    base_model_prefix = "classifier"
    main_input_name = "pixel_values"
    _supports_sdpa = True  # the wrapped classifier has already chosen its attention implementation

    def __init__(self, classifier: PreTrainedModel, image: torch.Tensor, seed: int):
        """Wrap a classifier; its head stays in place and is not used.

        Args:
            classifier: Image classifier; it is trained in place.
            image: A preprocessed image [1, 3, height, width], from which the feature map's size is computed.
            seed: Seed of the new layer's weights.

        Raises:
            InputError: If the features do not form a grid.
        """
        super().__init__(PreTrainedConfig())
        self.classifier = classifier
        with torch.no_grad():
            features = self.eval().features(image)
        self.stride = max(
            math.ceil(size / cells) for size, cells in zip(image.shape[2:], features.shape[2:], strict=True)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.decoder = nn.Linear(features.shape[1], 3 * self.stride**2)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keep all weights as they are: loaded, or drawn with this model's seed."""

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Compute the last feature map [batch, channels, rows, columns]."""
        timm_model, _ = timm_part(self.classifier)
        if timm_model is not None:
            output = timm_model.forward_features(pixel_values)  # type: ignore[operator]
            prefix: Any = getattr(timm_model, "num_prefix_tokens", None)
            return _as_map(output, timm_model.num_features, prefix)
        return _as_map(self.classifier.base_model(pixel_values=pixel_values)[0])

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> ModelOutput:
        """Return the predicted pixels [batch, 3, height, width] as ``logits``."""
        size = pixel_values.shape[2:]
        places = self.decoder(self.features(pixel_values).movedim(1, -1)).movedim(-1, 1)
        pixels = functional.pixel_shuffle(places, self.stride)
        if pixels.shape[2:] != size:
            pixels = functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
        return ModelOutput(logits=pixels)


def _as_map(found: Any, channels: Any = None, prefix_tokens: int | None = None) -> torch.Tensor:
    """Return features as a map [batch, channels, rows, columns].

    Args:
        found: Feature map, channels first or last, or tokens [batch, tokens, channels] of a square grid.
        channels: Number of channels, to detect a map with the channels last; None if they are first.
        prefix_tokens: Number of tokens before those of the grid; None if unknown.

    Raises:
        InputError: If the features do not form a grid.
    """
    if isinstance(found, torch.Tensor) and found.ndim == 4:
        is_last = channels is not None and found.shape[1] != channels and found.shape[-1] == channels
        return found.movedim(-1, 1) if is_last else found
    if isinstance(found, torch.Tensor) and found.ndim == 3:
        edge = math.isqrt(found.shape[1] - (prefix_tokens or 0))
        tokens = found[:, found.shape[1] - edge**2 :]
        if edge > 0 and (prefix_tokens is None or edge**2 + prefix_tokens == found.shape[1]):
            return tokens.transpose(1, 2).unflatten(2, (edge, edge))
    rule = "must be coral or dann for an architecture whose features lie on no grid"
    raise InputError(Problem("domain_adaptation.method", rule, "'continue_pretraining'"))


def build_masked_text_model(
    path: str,
    *,
    revision: str | None = None,
    dropout: float | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
    rows: int | None = None,
) -> tuple[PreTrainedModel, list[str]]:
    """Load a checkpoint as a masked language model.

    Args:
        path: A Hub id or a folder.
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
        SingleLabel.name,
        revision=revision,
        dropout=dropout,
        trust_remote_code=trust_remote_code,
    )
    if type(config) not in AutoModelForMaskedLM._model_mapping:
        rule = "must be coral or dann for an architecture without a masked language model"
        place, value = "domain_adaptation.method", f"'continue_pretraining' of a {config.model_type!r} model"
        raise InputError(Problem(place, rule, value))
    set_seed(seed)
    try:
        model, info = AutoModelForMaskedLM.from_pretrained(
            path,
            config=config,
            revision=revision,
            output_loading_info=True,
            dtype=torch.float32,
            trust_remote_code=trust_remote_code,
        )
    except LOADING_ERRORS as error:
        raise InputError(unreadable(path, error)) from error
    new = sorted(info["missing_keys"])
    if (rows or 0) > (embedding_rows(config) or 0):
        resize_vocabulary(model, rows or 0)
    if not new:
        return model, []
    more = f" and {len(new) - 2} more" if len(new) > 2 else ""
    return model, [
        f"The checkpoint has no masked language modeling head; a new one is trained: {', '.join(new[:2])}{more}."
    ]


def backbone_weights(model: PreTrainedModel, names: Collection[str]) -> dict[str, torch.Tensor]:
    """Return the backbone weights of a masked model, by the classifier's names; for images with norm statistics.

    Args:
        model: Masked image or masked language model.
        names: Names of the backbone's entries in the classifier's state dict.
    """
    known: Mapping[str, torch.Tensor] = model.state_dict()
    if isinstance(model, MaskedImageModel):
        known = model.classifier.state_dict()
    return {name: known[name].detach().cpu().contiguous() for name in names if name in known}


def load_backbone(model: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> None:
    """Load backbone weights into a classifier. Its head, and weights that are not given (a pooler), do not change.

    Raises:
        ValueError: If a weight does not belong to the classifier's backbone.
    """
    head, known = set(head_names(model)), model.state_dict()
    if unknown := sorted(set(weights) - (known.keys() - head)):
        raise ValueError(f"weights must be of the backbone. Got {', '.join(unknown[:5])}.")
    model.load_state_dict({**known, **weights}, strict=True)


def recount_statistics(model: nn.Module, batches: Iterator[Mapping[str, torch.Tensor]]) -> int:
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

"""Model that predicts the pixels of masked images."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from hf_finetune.errors import InputError, Problem
from hf_finetune.tasks.masked_examples import WrappedClassifier

__all__ = ["MaskedImageModel"]


class MaskedImageModel(WrappedClassifier):
    """Backbone of an image classifier with one linear layer that predicts pixels from its features.

    Each position of the last feature map, or each token, predicts the pixels of its part of the image.

    Source: Xie et al. 2022, SimMIM: A Simple Framework for Masked Image Modeling. SimMIM replaces
    masked patches by a learned token after the embedding; here masked pixels have the mean color, for any network
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
        timm_model = getattr(self.classifier, "timm_model", None)
        if timm_model is not None:
            output = timm_model.forward_features(pixel_values)
            prefix: Any = getattr(timm_model, "num_prefix_tokens", None)
            return _to_feature_map(output, timm_model.num_features, prefix)
        return _to_feature_map(self.classifier.base_model(pixel_values=pixel_values)[0])

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> ModelOutput:
        """Return the predicted pixels [batch, 3, height, width] as ``logits``."""
        size = pixel_values.shape[2:]
        patches = self.decoder(self.features(pixel_values).movedim(1, -1)).movedim(-1, 1)
        pixels = functional.pixel_shuffle(patches, self.stride)
        if pixels.shape[2:] != size:
            pixels = functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
        return ModelOutput(logits=pixels)


def _to_feature_map(features: Any, channels: Any = None, prefix_tokens: int | None = None) -> torch.Tensor:
    """Return features as a map [batch, channels, rows, columns].

    They are a map with channels first, or last if ``channels`` is their number; or tokens [batch, tokens, channels] of
    a square grid after ``prefix_tokens`` others (None: an unknown number).

    Raises:
        InputError: If the features do not form a grid.
    """
    if isinstance(features, torch.Tensor) and features.ndim == 4:
        is_last = channels is not None and features.shape[1] != channels and features.shape[-1] == channels
        return features.movedim(-1, 1) if is_last else features
    if isinstance(features, torch.Tensor) and features.ndim == 3:
        edge = math.isqrt(features.shape[1] - (prefix_tokens or 0))
        tokens = features[:, features.shape[1] - edge**2 :]
        if edge > 0 and (prefix_tokens is None or edge**2 + prefix_tokens == features.shape[1]):
            return tokens.transpose(1, 2).unflatten(2, (edge, edge))
    value, repair = "'continue_pretraining'", "The features of this architecture do not form a grid."
    raise InputError(Problem("domain_adaptation.method", "must be coral or dann", value, repair))

"""Weights that only depend on the config: checkpoints may have other sizes of them, and no stage trains them."""

from typing import Any

from hf_finetune.models.layer_sum import LAYER_WEIGHTS, selected_layer

__all__ = ["computed_weights"]

BY_MODEL_TYPE = {"whisper": ("encoder.embed_positions.weight",)}
"""Sines and cosines of positions, which transformers creates without gradients and initializes by their formula."""


def computed_weights(config: Any) -> tuple[str, ...]:
    """Return the names of the weights of a classifier that only depend on its config.

    Args:
        config: Config of the model; None for a model without one.
    """
    layers = () if selected_layer(config) is None else (LAYER_WEIGHTS,)
    return (*BY_MODEL_TYPE.get(getattr(config, "model_type", ""), ()), *layers)

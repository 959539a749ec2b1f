"""A small PatchTST with random weights."""

from pathlib import Path

import transformers
from transformers import PatchTSTConfig, PatchTSTForPrediction

from hf_finetune.errors import InputError, Problem
from hf_finetune.tasks.series.processor import SeriesProcessor

__all__ = ["patch_length_of", "save_new_model"]

_HEAD_WIDTH = 16
_DROPOUT = 0.2
_MAX_PATCH = 16
_MINIMUM_VARIANCE = 1e-10
"""Added to the variance of a past; transformers' 1e-5 would hide deviations of shares and rates below 0.003."""


def patch_length_of(context: int, season: int) -> int:
    """Return the number of values of a patch: a season if it divides the context and is short, else a divisor of it.

    Args:
        context: Number of past values.
        season: Length of a season (steps).
    """
    if 1 < season <= _MAX_PATCH and context % season == 0 and context > season:
        return season
    return max(
        size for size in range(1, _MAX_PATCH + 1) if context % size == 0 and (size < context or context == 1)
    )


def save_new_model(
    folder: Path,
    *,
    layers: int,
    hidden: int,
    context: int,
    horizon: int,
    patch_length: int,
    covariates: int = 0,
    seed: int,
) -> None:
    """Write a PatchTST with random weights, which forecasts a normal distribution for each of several steps.

    Layers are normalized for each example, so that a forecast does not depend on the other series of a batch.

    Args:
        folder: Folder to write.
        layers: Number of transformer layers.
        hidden: Size of the hidden states, a multiple of 16: each attention head has a width of 16.
        context: Number of past values that the model reads.
        horizon: Number of future values.
        patch_length: Number of values of a patch.
        covariates: Number of covariates, each an input channel, to which the values attend.
        seed: Seed of the weights.

    Raises:
        InputError: If the context is too short.

    Source: Nie et al. 2023, A time series is worth 64 words.
    """
    if context < 2:
        raise InputError(Problem("data.context_length", "must be at least 2 for a new model", str(context)))
    config = PatchTSTConfig(
        num_input_channels=1 + covariates,
        channel_attention=covariates > 0,
        context_length=context,
        prediction_length=horizon,
        patch_length=patch_length,
        patch_stride=patch_length,
        d_model=hidden,
        num_attention_heads=max(1, hidden // _HEAD_WIDTH),
        num_hidden_layers=layers,
        ffn_dim=2 * hidden,
        norm_type="layernorm",
        attention_dropout=_DROPOUT,
        ff_dropout=_DROPOUT,
        scaling="std",
        minimum_scale=_MINIMUM_VARIANCE,
        # transformers loses the dimension of a single step in the parameters of a distribution
        loss="nll" if horizon > 1 else "mse",
        distribution_output="normal",
        num_labels=horizon,
    )
    transformers.set_seed(seed)
    PatchTSTForPrediction(config).eval().save_pretrained(folder)
    SeriesProcessor(context, 1 + covariates, horizon).save_pretrained(folder)

"""Preprocessor of series: the last values of each, padded to the context length of the model."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, FeatureExtractionMixin, PreTrainedConfig

from hf_finetune.errors import InputError, Problem
from hf_finetune.tasks.series.windows import context_length

__all__ = ["SeriesProcessor", "configure_series", "load_processor", "model_inputs"]


class SeriesProcessor(FeatureExtractionMixin):
    """Settings of the input of a forecasting model, saved as ``preprocessor_config.json``.

    Args:
        context_length: Number of past values that the model reads.
        options: Settings of transformers.
    """

    def __init__(self, context_length: int = 0, **options: Any):
        super().__init__(**options)
        self.context_length = context_length


def load_processor(path: str, **options: Any) -> SeriesProcessor:
    """Return the preprocessor of a checkpoint; made from the model's config if it has no file for it.

    Args:
        path: A Hub id, or a folder.
        options: Further arguments of ``from_pretrained``.
    """
    try:
        processor: SeriesProcessor = SeriesProcessor.from_pretrained(path, **options)
    except OSError:
        config = AutoConfig.from_pretrained(path, **options)
        processor = SeriesProcessor(int(getattr(config, "context_length", 0)))
    return processor


def configure_series(processor: SeriesProcessor, config: PreTrainedConfig, data: Any) -> tuple[str, ...]:
    """Set the horizon in the config of the model, and the context length in the preprocessor.

    Args:
        processor: Preprocessor of the checkpoint, changed in place.
        config: Config of the model, changed in place; it has one label for each step of the horizon.
        data: ``data`` of the recipe.

    Raises:
        InputError: If the model reads another number of past values, or forecasts fewer steps.
    """
    context = int(config.context_length)
    if data.context_length is not None and data.context_length != context:
        rule = f"must be {context}, the context length of the checkpoint"
        raise InputError(Problem("data.context_length", rule, str(data.context_length)))
    steps = config.num_labels
    if hasattr(config, "prediction_length"):
        config.prediction_length = steps
    elif steps > config.horizon_length:
        rule = f"must be at most {config.horizon_length}, the horizon of the checkpoint"
        raise InputError(Problem("data.horizon", rule, str(steps)))
    processor.context_length = context
    if data.context_length is None and context > context_length(data, 1):
        return (
            f"The checkpoint reads {context} past values. Set data.context_length: {context}, so that training "
            "examples have as many.",
        )
    return ()


def model_inputs(processor: SeriesProcessor) -> Callable[[Sequence[Any]], dict[str, torch.Tensor]]:
    """Return a function from pasts to model inputs.

    Args:
        processor: Configured preprocessor.

    Returns:
        Function that returns ``past_values`` and ``past_observed_mask`` [batch, context, 1], float32. A past that is
        too short has its mean in the place of older values, which are masked.
    """
    context = processor.context_length

    def prepare(examples: Sequence[Any]) -> dict[str, torch.Tensor]:
        values = np.empty((len(examples), context), dtype=np.float32)
        mask = np.zeros((len(examples), context), dtype=np.float32)
        for row, example in enumerate(examples):
            past = np.asarray(example, dtype=np.float64)[-context:]
            values[row] = past.mean()
            values[row, context - len(past) :] = past
            mask[row, context - len(past) :] = 1
        return {
            "past_values": torch.from_numpy(values)[..., None],
            "past_observed_mask": torch.from_numpy(mask)[..., None],
        }

    return prepare

"""Preprocessor of series: the last values of each, padded to the context length of the model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, FeatureExtractionMixin, PreTrainedConfig

from hf_finetune.errors import InputError, Problem, counted
from hf_finetune.tasks.examples import Remarks

__all__ = ["MissingCovariates", "SeriesProcessor", "configure_series", "load_processor", "model_inputs"]


class SeriesProcessor(FeatureExtractionMixin):
    """Settings of the input of a forecasting model, saved as ``preprocessor_config.json``.

    Args:
        context_length: Number of past values that the model reads.
        channels: Number of input channels: the values, and the covariates.
        horizon: Number of steps that the model forecasts, of which the covariates must be known.
        options: Settings of transformers.
    """

    def __init__(self, context_length: int = 0, channels: int = 1, horizon: int = 0, **options: Any):
        super().__init__(**options)
        self.context_length, self.channels, self.horizon = context_length, channels, horizon


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
        channels = int(getattr(config, "num_input_channels", 1))
        processor = SeriesProcessor(int(getattr(config, "context_length", 0)), channels)
    return processor


def configure_series(processor: SeriesProcessor, config: PreTrainedConfig, data: Any) -> tuple[str, ...]:
    """Set the horizon in the config of the model, and the context length in the preprocessor.

    Args:
        processor: Preprocessor of the checkpoint, changed in place.
        config: Config of the model, changed in place; it has one label for each step of the horizon.
        data: ``data`` of the recipe.

    Returns:
        No messages.

    Raises:
        InputError: If the model reads another number of past values, or forecasts fewer steps.
    """
    context = int(config.context_length)
    if data.context_length is not None and data.context_length != context:
        rule = f"must be {context}, the context length of the checkpoint"
        raise InputError(Problem("data.context_length", rule, str(data.context_length)))
    channels = int(getattr(config, "num_input_channels", 1))
    if data.covariates and channels != 1 + len(data.covariates):
        rule = f"must be {channels - 1} columns, as many as the checkpoint reads"
        raise InputError(Problem("data.covariates", rule, str(len(data.covariates))))
    steps = config.num_labels
    if hasattr(config, "prediction_length"):
        config.prediction_length = steps
    elif steps > config.horizon_length:
        rule = f"must be at most {config.horizon_length}, the horizon of the checkpoint"
        raise InputError(Problem("data.horizon", rule, str(steps)))
    processor.context_length, processor.channels, processor.horizon = context, channels, steps
    return ()


def model_inputs(processor: SeriesProcessor) -> Callable[[Sequence[Any]], dict[str, torch.Tensor]]:
    """Return a function from examples to model inputs.

    Args:
        processor: Configured preprocessor.

    Returns:
        Function that returns ``past_values`` and ``past_observed_mask`` [batch, context, channels], float32. The first
        channel has the past values; the others have the covariates of the steps until the last one to forecast, so
        that the values of the future are among those that the model reads. Where a channel is too short, it has its
        mean in the place of older values, which are masked.
    """
    context, channels = processor.context_length, processor.channels

    def prepare(examples: Sequence[Any]) -> dict[str, torch.Tensor]:
        values = np.zeros((len(examples), context, channels), dtype=np.float32)
        mask = np.zeros((len(examples), context, channels), dtype=np.float32)
        for row, example in enumerate(examples):
            for channel, numbers in enumerate(_channels(example, channels, processor.horizon)):
                read = numbers[-context:]
                values[row, :, channel] = read.mean() if len(read) else 0
                values[row, context - len(read) :, channel] = read
                mask[row, context - len(read) :, channel] = 1
        return {"past_values": torch.from_numpy(values), "past_observed_mask": torch.from_numpy(mask)}

    return prepare


def _channels(example: Any, count: int, horizon: int) -> list[np.ndarray]:
    """Return the past values of an example, and each of its covariates until the last step to forecast.

    An example without covariates has none at any step, as synthetic ones have.

    Raises:
        InputError: If it has another number of covariates than the model, or not those of all steps.
    """
    if not _has_covariates(example):
        values = example["values"] if isinstance(example, Mapping) else example
        return [np.asarray(values, dtype=np.float64), *([np.zeros(0)] * (count - 1))]
    past, covariates = (np.asarray(example[name], dtype=np.float64) for name in ("values", "covariates"))
    if covariates.shape[1] != count - 1:
        rule = f"must have {count - 1} covariates, as many as the model reads"
        raise InputError(Problem("The example", rule, str(covariates.shape[1])))
    if len(covariates) < len(past) + horizon:
        rule = f"must have covariates for {horizon} steps after the last value"
        raise InputError(Problem("The example", rule, f"{len(covariates) - len(past)} steps"))
    return [past, *covariates[: len(past) + horizon].T]


def _has_covariates(example: Any) -> bool:
    return isinstance(example, Mapping) and bool(example.get("covariates"))


class MissingCovariates(Remarks):
    """Counter of examples without covariates, for a model that reads some."""

    def __init__(self) -> None:
        self.count = 0

    def add_batch(self, examples: Sequence[Any]) -> None:
        """Count the examples without covariates.

        Args:
            examples: Examples for a model that reads covariates.
        """
        self.count += sum(not _has_covariates(example) for example in examples)

    def sentences(self) -> list[str]:
        """Return a one-sentence message if any example has no covariates, else an empty list."""
        if not self.count:
            return []
        return [
            f"{counted(self.count, 'example')} without covariates: the model reads them as missing. Predict a table "
            "with one row per observation that has their columns."
        ]

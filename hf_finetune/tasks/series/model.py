"""Forecasting models whose logits are the quantiles of their forecasts."""

import copy
from functools import cache
from statistics import NormalDist
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.time_series_utils import DistributionOutput, LambdaLayer

from hf_finetune.errors import InputError, Problem
from hf_finetune.targets.forecast import LEVELS

__all__ = [
    "PatchTSMixerForPrediction",
    "PatchTSTForPrediction",
    "TimesFmModelForPrediction",
    "adapt_to_quantiles",
    "forecasting_class",
]


class PatchTSTForPrediction(transformers.PatchTSTForPrediction):
    """``PatchTSTForPrediction`` of transformers that also returns quantiles, as logits.

    It has the same weights and saves the same files, which name the class by which transformers loads them.
    """

    def forward(
        self, past_values: torch.Tensor, past_observed_mask: torch.Tensor | None = None, **inputs: Any
    ) -> SequenceClassifierOutput:
        """Return the quantiles of the forecasts.

        Args:
            past_values: Past values [batch, context, channels]; the first channel is forecast.
            past_observed_mask: 1 for values, 0 for padding, of the same shape.
            inputs: None are used.

        Returns:
            Logits [batch, steps x levels], in the unit of the series.
        """
        hidden = self.model(past_values=past_values, past_observed_mask=past_observed_mask).last_hidden_state
        return SequenceClassifierOutput(
            logits=_quantiles(self, self.head(hidden), past_values, past_observed_mask)
        )


class PatchTSMixerForPrediction(transformers.PatchTSMixerForPrediction):
    """``PatchTSMixerForPrediction`` of transformers that also returns quantiles, as logits."""

    def forward(
        self, past_values: torch.Tensor, past_observed_mask: torch.Tensor | None = None, **inputs: Any
    ) -> SequenceClassifierOutput:
        """Return the quantiles of the forecasts; see ``PatchTSTForPrediction``.

        Args:
            past_values: Past values [batch, context, channels].
            past_observed_mask: 1 for values, 0 for padding, of the same shape.
            inputs: None are used.
        """
        hidden = self.model(past_values, observed_mask=past_observed_mask).last_hidden_state
        return SequenceClassifierOutput(
            logits=_quantiles(self, self.head(hidden), past_values, past_observed_mask)
        )


class TimesFmModelForPrediction(transformers.TimesFmModelForPrediction):
    """``TimesFmModelForPrediction`` of transformers that also returns quantiles, as logits."""

    def forward(
        self, past_values: torch.Tensor, past_observed_mask: torch.Tensor | None = None, **inputs: Any
    ) -> SequenceClassifierOutput:
        """Return the quantiles of the forecasts, of as many steps as the config has labels.

        Args:
            past_values: Past values [batch, context, 1].
            past_observed_mask: 1 for values, 0 for padding, of the same shape.
            inputs: None are used.
        """
        return SequenceClassifierOutput(
            logits=_own_quantiles(self, super().forward, past_values, past_observed_mask)
        )


class TimesFm2_5ModelForPrediction(transformers.TimesFm2_5ModelForPrediction):
    """``TimesFm2_5ModelForPrediction`` of transformers that also returns quantiles, as logits."""

    def forward(
        self, past_values: torch.Tensor, past_observed_mask: torch.Tensor | None = None, **inputs: Any
    ) -> SequenceClassifierOutput:
        """Return the quantiles of the forecasts; see ``TimesFmModelForPrediction``.

        Args:
            past_values: Past values [batch, context, 1].
            past_observed_mask: 1 for values, 0 for padding, of the same shape.
            inputs: None are used.
        """
        return SequenceClassifierOutput(
            logits=_own_quantiles(self, super().forward, past_values, past_observed_mask)
        )


_NORMAL_QUANTILES = tuple(map(NormalDist().inv_cdf, LEVELS))

_SCALER = "scaler_of_forecasts"
_ADAPTED: dict[type, type] = {
    base: adapted
    for adapted in (
        PatchTSTForPrediction,
        PatchTSMixerForPrediction,
        TimesFmModelForPrediction,
        TimesFm2_5ModelForPrediction,
    )
    for base in adapted.__bases__
}


@cache
def forecasting_class() -> Any:
    """Return the auto class of transformers, to which the architectures that it lacks are added."""
    auto_class = transformers.AutoModelForTimeSeriesPrediction
    for config, model in (
        (transformers.PatchTSTConfig, transformers.PatchTSTForPrediction),
        (transformers.PatchTSMixerConfig, transformers.PatchTSMixerForPrediction),
    ):
        auto_class.register(config, model, exist_ok=True)
    return auto_class


def adapt_to_quantiles(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model whose logits are quantiles; the given one is changed in place.

    Args:
        model: Forecasting model of transformers.

    Raises:
        InputError: If its architecture, or its distribution, has no quantiles.
    """
    if type(model) in _ADAPTED.values():
        return model
    if type(model) not in _ADAPTED:
        rule = f"must be one of {', '.join(base.__name__ for base in _ADAPTED)}"
        raise InputError(Problem("model.path", rule, type(model).__name__))
    distribution = getattr(model.config, "distribution_output", "normal")
    if getattr(model.config, "loss", "mse") == "nll" and distribution not in ("normal", "student_t"):
        rule = "must be a model with a normal or student_t distribution, or with the loss mse"
        raise InputError(Problem("model.path", rule, repr(distribution)))
    model.__class__ = _ADAPTED[type(model)]
    if hasattr(model.config, "prediction_length"):
        model.__dict__[_SCALER] = (
            copy.deepcopy(model.model.scaler),
        )  # in a tuple: it is no module of the model
        for module in model.modules():
            if isinstance(module, LambdaLayer):
                module.function = _domain_map
    return model


def _quantiles(
    model: PreTrainedModel, forecasts: Any, past_values: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Return the quantiles of a model whose head forecasts values, or the parameters of a distribution.

    Location and scale of a series are computed from its values, not taken from the outputs of the backbone, so that
    these can be cached.

    Args:
        model: Adapted model.
        forecasts: Output of its head, [batch, steps, channels] each.
        past_values: Past values [batch, context, channels].
        mask: Mask of the same shape; None if all values are present.
    """
    (scaler,) = model.__dict__[_SCALER]
    _, location, scale = scaler(past_values, torch.ones_like(past_values) if mask is None else mask)
    if isinstance(forecasts, tuple):
        place, spread = forecasts[-2][..., 0, None], forecasts[-1][..., 0, None]
        normal = torch.tensor(_NORMAL_QUANTILES, dtype=place.dtype, device=place.device)
        standard = normal if len(forecasts) == 2 else _student_quantiles(normal, forecasts[0][..., 0, None])
        scaled = (place + spread * standard).flatten(start_dim=1)
    else:  # a forecast without uncertainty
        scaled = forecasts[..., 0].repeat_interleave(len(LEVELS), dim=1)
    return location[:, :, 0] + scale[:, :, 0] * scaled


def _domain_map(*parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the parameters of a distribution as transformers does, but with the dimension of a single step.

    Args:
        parameters: Degrees of freedom of a Student's t distribution, location and scale, without bounds.
    """
    *freedom, location, scale = parameters
    least = torch.finfo(scale.dtype).eps
    squareplus = DistributionOutput.squareplus
    return *(2.0 + squareplus(each) for each in freedom), location, squareplus(scale).clamp_min(least)


def _student_quantiles(normal: torch.Tensor, freedom: torch.Tensor) -> torch.Tensor:
    """Return quantiles of Student's t distribution, expanded in 1 / degrees of freedom, of which there are at least 2.

    At the levels 0.1 and 0.9 the error is below 0.5 %, the largest one with 2 degrees of freedom.

    Args:
        normal: Quantiles of the normal distribution [levels].
        freedom: Degrees of freedom [batch, steps, 1].

    Source: Abramowitz and Stegun 1964, formula 26.7.5.
    """
    square = normal**2
    first = normal * (square + 1) / 4
    second = normal * (5 * square**2 + 16 * square + 3) / 96
    third = normal * (3 * square**3 + 19 * square**2 + 17 * square - 15) / 384
    return normal + first / freedom + second / freedom**2 + third / freedom**3


def _own_quantiles(
    model: PreTrainedModel, forward: Any, past_values: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Return the quantiles that a model forecasts itself, after the mean; series are passed without padding."""
    series = past_values[..., 0]
    rows = (
        list(series)
        if mask is None
        else [row[seen > 0] for row, seen in zip(series, mask[..., 0], strict=True)]
    )
    full = forward(past_values=rows).full_predictions
    return full[:, : model.config.num_labels, 1:].flatten(start_dim=1)

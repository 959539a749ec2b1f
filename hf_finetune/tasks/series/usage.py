"""Code that forecasts with a saved model and plain transformers, for model cards."""

from collections.abc import Mapping
from typing import Any

__all__ = ["usage_code"]

_PADDED = """\
import torch
from transformers import {architecture}

model = {architecture}.from_pretrained("{model}")
length = model.config.context_length
past = torch.tensor({example}, dtype=torch.float32)[-length:]
missing = length - len(past)
past_values = torch.cat([past.mean().repeat(missing), past])[None, :, None]
observed = torch.cat([torch.zeros(missing), torch.ones(len(past))])[None, :, None]
with torch.no_grad():
    outputs = model(past_values, {mask}=observed)
forecast = {forecast}
print(forecast.flatten())
"""
_WITH_COVARIATES = """\
import torch
from transformers import {architecture}

model = {architecture}.from_pretrained("{model}")
length = model.config.context_length
past = torch.tensor({example}, dtype=torch.float32)
known = torch.zeros(len(past) + model.config.prediction_length, {covariates})  # put the covariates of all steps here
past_values, observed = torch.zeros(2, 1, length, 1 + known.shape[1])
for channel, numbers in enumerate([past, *known.T]):
    read = numbers[-length:]
    past_values[:, :, channel] = read.mean()
    past_values[:, length - len(read):, channel] = read
    observed[:, length - len(read):, channel] = 1
with torch.no_grad():
    outputs = model(past_values, {mask}=observed)
forecast = ({forecast})[..., 0]
print(forecast.flatten())
"""
_OF_DISTRIBUTION = "outputs.loc + outputs.scale * outputs.prediction_outputs[{place}]"
_UNPADDED = """\
import torch
from transformers import {architecture}

model = {architecture}.from_pretrained("{model}")
past = torch.tensor({example}, dtype=torch.float32)[-model.config.context_length:]
with torch.no_grad():
    outputs = model(past_values=[past])
forecast = outputs.full_predictions[0, :{steps}, {place}]
print(forecast)
"""


def usage_code(model: str, config: Mapping[str, Any], example: str) -> str:
    """Return code that loads a model by its class, and prints the median of each step.

    Args:
        model: Folder or Hub id.
        config: Content of its ``config.json``.
        example: Python expression of past values.
    """
    architecture = next(iter(config.get("architectures") or ["PatchTSTForPrediction"]))
    fields = {"architecture": architecture, "model": model, "example": example}
    if "prediction_length" not in config:  # quantiles of its own, the median in their middle, after the mean
        steps, levels = len(config["id2label"]), len(config["quantiles"])
        return _UNPADDED.format(**fields, steps=steps, place=1 + levels // 2).rstrip()
    mask = "observed_mask" if "Mixer" in architecture else "past_observed_mask"
    forecast = "outputs.prediction_outputs"
    if config.get("loss") == "nll":
        place = 1 if config.get("distribution_output") == "student_t" else 0
        forecast = _OF_DISTRIBUTION.format(place=place)
    covariates = config.get("num_input_channels", 1) - 1
    template = _WITH_COVARIATES if covariates else _PADDED
    return template.format(**fields, mask=mask, forecast=forecast, covariates=covariates).rstrip()

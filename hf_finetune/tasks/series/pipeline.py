"""Predictor of forecasting models, in the form of a pipeline of transformers, which has none for series."""

from typing import Any

import torch
from transformers import Pipeline

from hf_finetune.tasks.series.processor import model_inputs

__all__ = ["ForecastPipeline"]


class ForecastPipeline(Pipeline):
    """Pipeline from the past of a series to the quantiles of its next values."""

    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = True
    _load_processor = False

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], ...]:
        return {}, {}, {}

    def preprocess(self, input_: Any, **parameters: Any) -> dict[str, torch.Tensor]:
        """Return the model inputs of one series.

        Args:
            input_: Past values, the oldest first.
            parameters: None are used.
        """
        return model_inputs(self.feature_extractor)([input_])

    def _forward(self, input_tensors: dict[str, torch.Tensor], **parameters: Any) -> Any:
        return self.model(**input_tensors)

    def postprocess(self, model_outputs: Any, **parameters: Any) -> list[float]:
        """Return the quantiles of all steps.

        Args:
            model_outputs: Outputs of the model for one series.
            parameters: None are used.
        """
        quantiles: list[float] = model_outputs["logits"][0].tolist()
        return quantiles

"""Forecasting of time series: sales, visitors, orders."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_finetune.targets.forecast import Forecast
from hf_finetune.tasks.base import Task
from hf_finetune.tasks.series.modality import Series

if TYPE_CHECKING:
    import numpy as np

__all__ = ["TIME_SERIES_FORECASTING"]


@dataclass(frozen=True)
class _Forecasting(Task):
    """Task whose models forecast the next values of a series, with quantiles."""

    @property
    def auto_class(self) -> Any:
        """Auto class of transformers, which is told of the architectures that it lacks."""
        from hf_finetune.tasks.series.model import forecasting_class

        return forecasting_class()

    def auto_class_of(self, config: Any) -> Any:
        """Return ``auto_class``, which builds all models."""
        return self.auto_class

    def adapt_model(self, model: Any) -> Any:
        """Return the model with the quantiles of its forecasts as logits."""
        from hf_finetune.tasks.series.model import adapt_to_quantiles

        return adapt_to_quantiles(model)

    def usage_code(self, model: str, config: Mapping[str, Any], example: str, options: str = "") -> str:
        """Return code that loads the model by its class of transformers, and prints the forecast."""
        from hf_finetune.tasks.series.usage import usage_code

        return usage_code(model, config, example)

    def loading_code(self, model: str, options: str = "") -> str:
        """Return the place of the code: transformers has no pipeline for series."""
        return f"the code in {model}/README.md"

    def build_pipeline(self, model: Any, settings: Mapping[str, Any]) -> Any:
        """Return the predictor: transformers has no pipeline for series."""
        from hf_finetune.tasks.series.pipeline import ForecastPipeline

        return ForecastPipeline(model=model, task=self.name, **settings)

    def outputs(self, pipe: Any, inputs: Mapping[str, Any]) -> "np.ndarray":
        """Return the quantiles of all steps, in double precision: values of a series may be large."""
        logits: np.ndarray = pipe.forward(dict(inputs))["logits"].double().numpy()
        return logits


TIME_SERIES_FORECASTING = _Forecasting(
    name="time-series-forecasting",
    title="Time Series Forecasting",
    modality=Series(),
    auto_model="AutoModelForTimeSeriesPrediction",
    suffixes=("ForPrediction",),
    targets=(Forecast.name,),
)

"""Fields of ``data`` in recipes for time series."""

from typing import Literal

from pydantic import Field

from hf_finetune.fields.base import Part
from hf_finetune.fields.types import Count, Texts

__all__ = ["SeriesFields"]


class SeriesFields(Part):
    """Horizon of forecasts, the past that a model reads, and the times at which it is tested."""

    horizon: Count = Field(
        default=12, description="Number of future values to forecast (steps of the series)."
    )
    context_length: Count | None = Field(
        default=None,
        description="Number of past values that the model reads (steps); shorter series are padded; null = twice the "
        "horizon, and at least two seasons. A checkpoint has a context length of its own, which must be given here.",
    )
    season: Count | None = Field(
        default=None,
        description="Number of steps after which a pattern repeats (steps), for the seasonal naive forecast, which "
        "scales all errors; null = inferred from the times: 12 for months, 4 for quarters, 7 for days, 24 for hours, "
        "52 for weeks, else 1.",
    )
    covariates: Texts = Field(
        default=(),
        description="Columns of numbers that are known in advance, such as prices, promotions or holidays, for a table "
        "with one row per observation; to predict, the table continues with rows that have them, but no value.",
    )
    stride: Count = Field(
        default=1, description="Distance between the training examples of a series (steps)."
    )
    validation_origins: Count = Field(
        default=1,
        description="Number of validation examples of each series, each a horizon after the other (rolling origin).",
    )
    test_origins: Count = Field(
        default=1,
        description="Number of test examples of each series, each a horizon after the other, at its end (rolling "
        "origin); with data.split.time they begin at that time instead.",
    )
    gaps: Literal["error", "interpolate"] = Field(
        default="error",
        description="What to do with missing values and times in a series (no unit): error = stop and name them; "
        "interpolate = fill them on a straight line.",
    )

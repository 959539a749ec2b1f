"""Names of the forecasts that are baselines."""

from collections.abc import Mapping

__all__ = ["TITLES"]

TITLES: Mapping[str, str] = {
    "seasonal_naive": "seasonal naive forecast",
    "theta": "Theta method",
    "exponential_smoothing": "exponential smoothing (ETS)",
    "linear_forecast": "linear model of all series",
}
"""Names in words."""

"""Charts of series as SVG: past values, future ones, and the forecast with its quantiles."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_finetune.targets.forecast import LEVELS

__all__ = ["series_chart"]

_WIDTH, _HEIGHT, _MARGIN = 420, 180, 8
_MAX_SEASONS = 4
_PAST, _FUTURE, _FORECAST = "#5b6770", "#1a1a1a", "#c2410c"


def series_chart(past: Sequence[float], label: Any = None, quantiles: Any = None) -> str:
    """Return a chart as a data URI: past values in gray, future ones in black, the forecast in orange.

    The band is between the lowest and the highest quantile.

    Args:
        past: Past values, of which the last ones are drawn.
        label: Future values, followed by the scale; None without them.
        quantiles: Quantiles of all steps [steps x levels]; None without a forecast.
    """
    steps = 0 if label is None else len(label) - 1
    shown = np.asarray(past, dtype=np.float64)[-max(2, _MAX_SEASONS * steps or len(past)) :]
    lines = [(np.arange(len(shown)), shown, _PAST)]
    ahead = np.arange(len(shown) - 1, len(shown) + steps)
    band = None
    if label is not None:
        lines.append((ahead, np.append(shown[-1], label[:-1]), _FUTURE))
    if quantiles is not None:
        by_step = np.asarray(quantiles).reshape(steps, len(LEVELS))
        lines.append((ahead[1:], by_step[:, len(LEVELS) // 2], _FORECAST))
        band = ahead[1:], by_step[:, 0], by_step[:, -1]
    heights = [values for _, values, _ in lines] + ([] if band is None else [band[1], band[2]])
    scale = _Scale(len(shown) + steps, np.concatenate(heights))
    parts = []
    if band is not None:
        outline = [*scale.points(band[0], band[1]), *reversed(scale.points(band[0], band[2]))]
        parts.append(f'<polygon points="{" ".join(outline)}" fill="{_FORECAST}" fill-opacity="0.2"/>')
    for places, values, color in lines:
        points = " ".join(scale.points(places, values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}">{"".join(parts)}</svg>'
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


class _Scale:
    """Coordinates of a chart.

    Args:
        length: Number of steps.
        values: All values that are drawn.
    """

    def __init__(self, length: int, values: np.ndarray):
        self.low, self.high = float(values.min()), float(values.max())
        self.length = max(1, length - 1)

    def points(self, places: np.ndarray, values: np.ndarray) -> list[str]:
        across = _MARGIN + (_WIDTH - 2 * _MARGIN) * places / self.length
        share = (values - self.low) / (self.high - self.low or 1.0)
        down = _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * share
        return [f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True)]

"""Forecasts: the next values of a series, with quantiles."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hf_finetune.errors import Problem, join_quoted
from hf_finetune.targets.base import Target
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.metric import Metric
from hf_finetune.targets.reading import LABEL_LOCATION, LabelSummary, rows_where

if TYPE_CHECKING:
    from random import Random

    import numpy as np
    import torch

    from hf_finetune.targets.top_scores import Scores

__all__ = ["LEVELS", "Forecast"]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Levels of the quantiles of a forecast; the one in the middle is the forecast itself."""
_MIDDLE = len(LEVELS) // 2
_SCALE = "scale"
_QUANTILE = "quantile:"
_SYNTHETIC_LEVEL = 100.0


class Forecast(Target):
    """The next values of a series, one for each step of the horizon.

    A label is a list of these values, followed by the *scale* of the series: the mean absolute error of the seasonal
    naive forecast on its past, by which errors are divided (0 if that is 0). Logits and scores are the quantiles of
    all steps [examples, steps x levels], in the unit of the series.
    """

    name = "forecast"
    problem_type = None
    is_vector = True
    default_metrics = ("mase", "smape", "weighted_quantile_loss", "coverage_error_80")
    has_untrained_baseline = True

    def incompatibility(self, labels: LabelSummary) -> str | None:
        """Return ``not lists`` or ``not numbers`` for labels that are not lists of numbers."""
        if not labels.are_lists:
            return "not lists"
        return None if labels.are_numbers else "not numbers"

    def read_cell(self, cell: Any) -> Any:
        """Return a list that is written as JSON text; any other cell unchanged."""
        if not isinstance(cell, str):
            return cell
        try:
            return json.loads(cell)
        except ValueError:
            return cell

    def value_problems(
        self, values: Mapping[str, Sequence[Any]], ids: Mapping[str, Sequence[str]]
    ) -> list[Problem]:
        """Return a problem for labels of different lengths."""
        lengths = {len(value) for split in values for value in values[split]}
        if len(lengths) < 2:
            return []
        most = max(lengths)
        short = rows_where(values, ids, lambda value: len(value) < most)
        rule = "must contain the same number of future values in every row"
        return [Problem(LABEL_LOCATION, rule, f"fewer than {most - 1} in {join_quoted(short)}")]

    def output_names(self, labels: Iterable[Any], declared: Sequence[str] | None) -> tuple[str, ...]:
        """Return ``step 1``, ``step 2`` and so on; two steps if there are no labels."""
        label = next(iter(labels), None)
        steps = 2 if label is None else len(label) - 1
        return tuple(f"step {number}" for number in range(1, steps + 1))

    def encode(self, label: Any, indices: Mapping[str, int]) -> list[float]:
        """Return the values and the scale."""
        return [float(value) for value in label]

    def feature(self, label_names: Sequence[str]) -> Any:
        """Return a list of floats."""
        from datasets import List, Value

        return List(Value("float32"))

    def decode(self, label: Any, label_names: Sequence[str]) -> list[float]:
        """Return the values, without the scale."""
        return [float(value) for value in label[: len(label_names)]]

    @property
    def arrow_type(self) -> Any:
        """Lists of floats."""
        import pyarrow as pa

        return pa.list_(pa.float64())

    def describe_labels(self, labels: Sequence[Any], label_names: Sequence[str]) -> str:
        """Return the number of steps, and the range of their values."""
        values = [value for label in labels for value in label[:-1]]
        return f"{len(label_names)} future values each, from {min(values):.4g} to {max(values):.4g}"

    def outputs_in_words(self, config: Any) -> str:
        """Return the number of steps."""
        return f"{config.num_labels:,} steps"

    def summary(self, subject: str, classes: str) -> str:
        """Return a phrase for a model that forecasts."""
        return f"forecasts the next values of {subject}"

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Errors of the forecasts and of their quantiles."""
        from hf_finetune.targets.forecast_metrics import forecast_metrics

        return tuple(forecast_metrics())

    def score_width(self, classes: int) -> int:
        """Return the number of quantiles of all steps."""
        return classes * len(LEVELS)

    def scores(self, logits: "np.ndarray") -> "np.ndarray":
        """Return the quantiles, in ascending order for each step."""
        import numpy as np

        by_step = logits.reshape(len(logits), -1, len(LEVELS))
        quantiles: np.ndarray = np.sort(by_step, axis=-1).reshape(logits.shape)
        return quantiles

    def decide(self, scores: "np.ndarray", rule: DecisionRule = DEFAULT_RULE) -> "np.ndarray":
        """Return the median of each step [examples, steps]."""
        return scores.reshape(len(scores), -1, len(LEVELS))[..., _MIDDLE]

    def label_array(
        self, labels: Sequence[Any], classes: int, unknown: Sequence[Sequence[int]] | None = None
    ) -> "np.ndarray":
        """Return the values and the scale [examples, steps + 1], float64."""
        import numpy as np

        return np.asarray(labels, dtype=np.float64).reshape(len(labels), -1)

    def labels_fit(self, labels: tuple[int, ...], scores: tuple[int, ...]) -> bool:
        """Return whether there are quantiles of each step, and a scale."""
        return (labels[0], (labels[1] - 1) * len(LEVELS)) == scores if len(labels) == 2 else False

    @property
    def score_columns(self) -> Mapping[str, Any]:
        """The lowest and the highest quantile, lists of floats."""
        return {f"{_QUANTILE}{LEVELS[place]}": self.arrow_type for place in (0, -1)}

    def shown_scores(self, scores: "np.ndarray") -> dict[str, list[float]]:
        """Return the lowest and the highest quantile of each step."""
        by_step = scores.reshape(-1, len(LEVELS))
        return {f"{_QUANTILE}{LEVELS[place]}": by_step[:, place].tolist() for place in (0, -1)}

    def stored_columns(self, labels: "np.ndarray", scores: "Scores") -> dict[str, list[Any]]:
        """Return the scale, and the quantiles of each level."""
        import numpy as np

        by_step = np.asarray(scores).reshape(len(labels), -1, len(LEVELS))
        quantiles = {
            f"{_QUANTILE}{level}": by_step[..., index].tolist() for index, level in enumerate(LEVELS)
        }
        return {_SCALE: labels[:, -1].tolist(), **quantiles}

    def restored(
        self, labels: Sequence[Any], predictions: Sequence[Any], columns: Mapping[str, Sequence[Any]]
    ) -> tuple[list[Any], "np.ndarray"]:
        """Return the labels with their scale, and the quantiles."""
        import numpy as np

        scaled = [[*label, scale] for label, scale in zip(labels, columns[_SCALE], strict=True)]
        quantiles = np.stack([columns[f"{_QUANTILE}{level}"] for level in LEVELS], axis=-1)
        return scaled, quantiles.reshape(len(scaled), -1)

    def mistakes(
        self, labels: "np.ndarray", scores: "Scores", decisions: "np.ndarray"
    ) -> tuple["np.ndarray", "np.ndarray"]:
        """Return all examples, and their mean absolute scaled errors."""
        import numpy as np

        from hf_finetune.targets.forecast_metrics import scaled_errors

        return np.ones(len(labels), dtype=bool), np.nan_to_num(scaled_errors(labels, decisions))

    def synthetic_label(self, rng: "Random", classes: int) -> list[float]:
        """Return values around a level, and a scale."""
        return [*(_SYNTHETIC_LEVEL + rng.gauss(0, 1) for _ in range(classes)), 1.0]

    def label_weights(self, labels: "torch.Tensor", valid: "torch.Tensor") -> "torch.Tensor":
        """Return 1 for each example [batch], 0 for padding: an example has one loss."""
        return valid.all(dim=-1)

    def loss_sum(
        self, logits: "torch.Tensor", labels: "torch.Tensor", valid: "torch.Tensor", smoothing: float
    ) -> "torch.Tensor":
        """Return the quantile loss of each example, divided by the scale of its series, and summed.

        It is twice the mean pinball loss over levels and steps, which for a forecast without uncertainty is the mean
        absolute scaled error. A series without a scale counts by the mean of its absolute values.

        Source: Koenker and Bassett 1978, Regression quantiles; Hyndman and Koehler 2006, section 3 (scaling).
        """
        import torch

        rows = valid.all(dim=-1)
        future, scale = labels[rows, :-1].to(logits), labels[rows, -1].to(logits)
        quantiles = logits[rows].reshape(len(future), future.shape[1], len(LEVELS))
        levels = torch.tensor(LEVELS, dtype=logits.dtype, device=logits.device)
        errors = future[..., None] - quantiles
        losses = 2 * torch.maximum(levels * errors, (levels - 1) * errors).mean(dim=(1, 2))
        fallback = future.abs().mean(dim=1)
        divisor = torch.where(scale > 0, scale, torch.where(fallback > 0, fallback, torch.ones_like(scale)))
        return (losses / divisor).sum()

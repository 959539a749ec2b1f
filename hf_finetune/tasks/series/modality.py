"""The modality of time series."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_finetune.errors import InputError, Problem, join_quoted
from hf_finetune.fields.base import Part
from hf_finetune.tasks.columns import NOT_FOUND, ColumnRole
from hf_finetune.tasks.examples import ExampleCheck, Inputs, JoinedRows, Remarks, SimpleModels, Splits
from hf_finetune.tasks.history_columns import are_lists, holds_histories, row_role
from hf_finetune.tasks.modality import Modality
from hf_finetune.tasks.series.fields import SeriesFields

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["Series"]

_LAYERS, _HIDDEN, _PATCH, _CONTEXT, _HORIZON = 2, 16, 4, 16, 2
"""Size of the tiny checkpoint."""
_SYNTHETIC_LENGTH = 20


def _holds_pasts(feature: Any) -> bool:
    """Return whether a column contains lists, strings, or mappings."""
    return holds_histories(feature) or isinstance(feature, dict)


class Series(Modality):
    """Series of numbers at regular times, of which a model reads the last values."""

    name: ClassVar[str] = "series"
    article = "a time series"
    plural = "windows of time series"
    readable = "a list of numbers, the past values of a series"
    file_noun = "series"
    plural_files = "series"
    roles: ClassVar[tuple[ColumnRole, ...]] = (
        ColumnRole(
            *("past_values", "past values of series", "must contain lists of numbers, or JSON texts of them"),
            *(("past_values", "history"), _holds_pasts),
            "Column of the past values of each example, a list; null = inferred, or cut from one row per observation.",
        ),
    )
    row_roles: ClassVar[tuple[ColumnRole, ...]] = (
        row_role(
            "value",
            "values",
            "must contain numbers",
            "Column of the value of each observation; null = inferred.",
        ),
        row_role(
            "series",
            "series",
            "must name a series",
            "Column of the series, for a table with one row per observation; null = inferred, or a single series.",
        ),
    )
    divides_rows: ClassVar[bool] = True
    row_settings: ClassVar[tuple[str, ...]] = ("covariates", "gaps", "step", "horizon")
    model_inputs: ClassVar[tuple[str, ...]] = ("past_values", "past_observed_mask")
    label_columns: ClassVar[tuple[str, ...]] = ("future_values", "label")
    processor_class: ClassVar[str] = "FeatureExtractionMixin"
    processor_argument: ClassVar[str] = "feature_extractor"
    data_fields: ClassVar[type[Part]] = SeriesFields
    builds_new_models: ClassVar[bool] = True
    made_of_data: ClassVar[str] = (
        "its input and its output have the lengths of the examples of the training split"
    )

    def has_rows(self, names: Sequence[str], columns: Mapping[str, Any]) -> bool:
        """Return whether a table has one row per observation, with columns that are named or have usual names."""
        from hf_finetune.tasks.series.table_columns import named_columns

        has_pasts = columns.get("past_values") is not None or "past_values" in names
        return not has_pasts and bool(named_columns(names, columns))

    def claims(self, dataset: "Dataset") -> bool:
        """Return whether a table has one row per observation, by its names and values."""
        from hf_finetune.tasks.series.table_columns import looks_like_series

        return looks_like_series(dataset)

    def guess_rows(self, dataset: "Dataset") -> Mapping[str, Any]:
        """Return the columns of times, values and names of series."""
        from hf_finetune.tasks.series.table_columns import infer_columns

        columns = infer_columns(dataset)
        return {"columns": columns} if columns else {}

    def may_hold_examples(self, cells: Sequence[Any]) -> bool:
        """Return whether all cells are lists."""
        return are_lists(cells)

    def join_rows(
        self, splits: "Mapping[str, Dataset]", columns: Mapping[str, Any], data: Any
    ) -> JoinedRows | None:
        """Cut a table with one row per observation into examples; append scales to the labels of examples."""
        from hf_finetune.tasks.series.windows import cut_windows, with_scales

        names = next(iter(splits.values())).column_names
        if self.has_rows(names, columns):
            return cut_windows(splits, columns, data)
        if (examples := with_scales(splits, columns, data.season)) is not None:
            return examples
        rule = f"{NOT_FOUND} the columns have no usual names of times and values"
        fix = "Name data.columns.time and data.columns.value, and data.columns.series if there are several series."
        raise InputError(Problem("data.columns.value", rule, join_quoted(names), fix))

    def join_prediction_rows(
        self, rows: Mapping[str, Sequence[Any]], columns: Mapping[str, Any], decimal: str | None
    ) -> "Iterable[tuple[str, Mapping[str, Any] | Problem]]":
        """Return the values of each series, with the times that follow; the problem of one that cannot be used."""
        from hf_finetune.tasks.series.latest import latest_examples

        return latest_examples(rows, columns, decimal)

    def features(self, *, decode: bool = True) -> dict[str, Any]:
        """Return a mapping of values, season and covariates."""
        from hf_finetune.tasks.series.stored import feature_of_pasts

        return {"past_values": feature_of_pasts()}

    def stored_form(self, inputs: "Dataset") -> "Dataset":
        """Return the pasts as mappings."""
        from hf_finetune.tasks.series.stored import stored_pasts

        return stored_pasts(inputs)

    def check(self) -> ExampleCheck:
        """Return a check that each example has past values."""
        from hf_finetune.tasks.series.stored import SeriesCheck

        return SeriesCheck()

    def hashes(self, dataset: "Dataset") -> tuple[Sequence[str | None], Sequence[str | None]]:
        """Return the SHA-256 of each past, and no keys: equal pasts are no duplicates, but periods without sales."""
        from hf_finetune.tasks.stored import hash_rows

        return hash_rows(dataset, ["past_values"]), [None] * len(dataset)

    def synthetic_examples(
        self, count: int, rng: Any, *, length: int = 16, pair: bool = False
    ) -> dict[str, Any]:
        """Return pasts of random values, the first of which is the longest."""
        from hf_finetune.tasks.series.stored import read_past

        sizes = [_SYNTHETIC_LENGTH, *(rng.randint(4, _SYNTHETIC_LENGTH) for _ in range(count - 1))]
        return {"past_values": [read_past([100 + rng.gauss(0, 1) for _ in range(size)]) for size in sizes]}

    def load_processor(self, path: str, **options: Any) -> Any:
        """Load the settings of the input; a checkpoint of transformers has them in its config."""
        from hf_finetune.tasks.series.processor import load_processor

        return load_processor(path, **options)

    def check_processor(self, processor: Any) -> None:
        """Check that the model states how many values it reads."""
        if processor.context_length < 1:
            raise ValueError("the config has no context_length")

    def configure(
        self,
        processor: Any,
        config: "PreTrainedConfig",
        data: Any,
        skeleton: "Callable[[], PreTrainedModel]",
    ) -> tuple[str, ...]:
        """Set the horizon and the context length."""
        from hf_finetune.tasks.series.processor import configure_series

        return configure_series(processor, config, data)

    def prepare(self, splits: Splits, processor: Any, data: Any, seed: int) -> Inputs:
        """Return the last values of each past, padded."""
        from hf_finetune.tasks.series.inputs import prepare_series

        return prepare_series(splits, processor)

    @property
    def simple_models(self) -> SimpleModels:
        """Seasonal naive, Theta, exponential smoothing and a linear model."""
        from hf_finetune.tasks.series.titles import TITLES

        def fit(splits: Any, data: Any) -> Mapping[str, tuple[Any, dict[str, Any]]]:
            from hf_finetune.tasks.series.baselines import fit_forecasts

            return fit_forecasts(splits.train, splits.validation, splits.test, data.season)

        return SimpleModels(TITLES, fit)

    def format_size(self, batch: Mapping[str, Any]) -> str:
        """Return the number of past values."""
        return f"{batch['past_values'].shape[1]:,} past values"

    def describe_sizes(self, dataset: "Dataset") -> str:
        """Return the number of past values of the examples."""
        pasts = (past for batch in dataset.iter(batch_size=1000) for past in batch["past_values"])
        sizes = [len(past["values"]) for past in pasts]
        return f"Examples of {min(sizes):,} to {max(sizes):,} past values."

    def draft_fields(self, dataset: "Dataset") -> Mapping[str, tuple[Any, str]]:
        """Return the horizon and the season."""
        fields: dict[str, tuple[Any, str]] = {
            "horizon": (len(dataset[0]["label"]) - 1, "number of future values to forecast"),
        }
        if season := dataset[0]["past_values"]["season"]:
            fields["season"] = (season, "length of a season in steps, from the times")
        return fields

    def save_tiny_checkpoint(self, folder: Path) -> None:
        """Write a tiny PatchTST."""
        from hf_finetune.tasks.series.new_model import save_new_model

        save_new_model(
            folder,
            layers=_LAYERS,
            hidden=_HIDDEN,
            context=_CONTEXT,
            horizon=_HORIZON,
            patch_length=_PATCH,
            seed=0,
        )

    def save_new_model(self, folder: Path, train: "Dataset", data: Any, spec: Any, seed: int) -> None:
        """Write a small PatchTST with random weights."""
        from hf_finetune.tasks.series.new_model import patch_length_of, save_new_model
        from hf_finetune.tasks.series.windows import context_length

        past = train[0]["past_values"]
        season = data.season or past["season"] or 1
        context = context_length(data, season)
        save_new_model(
            folder,
            layers=spec.layers,
            hidden=spec.hidden,
            context=context,
            horizon=len(train[0]["label"]) - 1,
            patch_length=patch_length_of(context, season),
            covariates=len(past["covariates"][0]) if past["covariates"] else 0,
            seed=seed,
        )

    def pipeline_input(self, row: Mapping[str, Any]) -> Any:
        """Return the values, the season and the covariates."""
        return row["past_values"]

    def read_batch(
        self, pipe: Any, examples: Iterator[Any], size: int, remarks: Remarks | None = None
    ) -> Any:
        """Return the model inputs of the next series; None at the end."""
        from hf_finetune.tasks.series.processor import MissingCovariates

        series = list(islice(examples, size))
        if isinstance(remarks, MissingCovariates) and pipe.feature_extractor.channels > 1:
            remarks.add_batch(series)
        return self.batch_inputs(pipe.feature_extractor)(series) if series else None

    def read_example(self, cells: Mapping[str, Any]) -> tuple[Any, Any]:
        """Read the past values: a list, a mapping, or their JSON text."""
        from hf_finetune.tasks.series.stored import read_past

        return read_past(cells["past_values"]), None

    def remarks(self) -> Remarks:
        """Return a new counter of examples without covariates."""
        from hf_finetune.tasks.series.processor import MissingCovariates

        return MissingCovariates()

    def batch_inputs(self, processor: Any) -> "Callable[[Sequence[Any]], dict[str, torch.Tensor]]":
        """Return a function from pasts to model inputs."""
        from hf_finetune.tasks.series.processor import model_inputs

        return model_inputs(processor)

    def show(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Return a chart of the past values."""
        from hf_finetune.tasks.series.chart import series_chart

        return {"image": series_chart(row["past_values"]["values"])}

    def show_answer(self, row: Mapping[str, Any], label: Any, scores: Any) -> dict[str, str]:
        """Return a chart of the past and future values, and the forecast."""
        from hf_finetune.tasks.series.chart import series_chart

        return {"image": series_chart(row["past_values"]["values"], label, scores)}

    def preview_example(self, row: Mapping[str, Any]) -> Any:
        """Return the past values as text."""
        return _as_text(row["past_values"]["values"])

    def preview_inputs(self, inputs: Mapping[str, Any], processor: Any) -> Any:
        """Return the values that the model reads as text, without padding."""
        values, mask = inputs["past_values"][:, 0], inputs["past_observed_mask"][:, 0]
        return _as_text(values[mask > 0].tolist())

    def example_code(self, *, pair: bool) -> str:
        """Return past values."""
        return "[112, 118, 132, 129, 121, 135]"

    @property
    def usage_note(self) -> str:
        """Input of the model."""
        return (
            "The model reads the last `config.context_length` values of a series, the oldest first. If a series is "
            "shorter, its mean stands in the place of the values that are missing, with 0 in `past_observed_mask`."
        )

    def demo_components(self, gradio: Any, *, pair: bool) -> list[Any]:
        """Return a field for the values."""
        return [gradio.Textbox(label="Past values as a JSON list, the oldest first", lines=4)]

    def demo_values(self, example: Any, path: Path) -> dict[str, str]:
        """Return the past values as JSON, with what else is known of the series."""
        import json

        known = {name: value for name, value in example.items() if value}
        return {"past_values": json.dumps(known if len(known) > 1 else known["values"])}


def _as_text(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)

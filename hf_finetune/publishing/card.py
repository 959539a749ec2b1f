"""Model card (``RUN/model/README.md``), generated from the files of the run."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, hf_hub_download, metadata_load
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from jinja2 import Environment, PackageLoader, StrictUndefined
from yaml import YAMLError

from hf_finetune.files import replacing
from hf_finetune.models.head_spec import CODE
from hf_finetune.publishing.portable_recipe import (
    LOCAL,
    is_local,
    portable_recipe,
    published_recipe,
    run_recipe,
)
from hf_finetune.publishing.upload_plan import THIS_MODEL
from hf_finetune.recipe import ModelSpec, Recipe, dump_recipe
from hf_finetune.report.compression import size_tables
from hf_finetune.report.domain_adaptation import domain_sentence
from hf_finetune.report.run_record import RunRecord, read_run
from hf_finetune.report.slices import slices_verdict
from hf_finetune.report.tables import class_rows
from hf_finetune.report.verdict import calibration_verdict, spread_verdict, verdict
from hf_finetune.tasks import TASKS

__all__ = ["render_card", "write_card"]

WEAKEST = 5  # classes in the lists of weak and of rare classes, at most
FEW = 20
"""Number of training examples below which a class is listed as rare."""
LICENCE = ("license", "license_name", "license_link")  # metadata fields of a model card


def write_card(folder: Path) -> Path:
    """Write the model card of a finished run.

    Args:
        folder: Run directory.

    Returns:
        Path of the card.
    """
    path = folder / "model" / "README.md"
    with replacing(path) as partial:
        recipe = run_recipe(folder)
        code = CODE.name if (folder / "model" / CODE.name).is_file() else ""
        license_fields = _license_of(recipe.model)
        whole = published_recipe(folder)
        text = render_card(read_run(folder), portable_recipe(recipe), license_fields, code, whole)
        partial.write_text(text, encoding="utf-8")
    return path


def render_card(
    record: RunRecord,
    recipe: Recipe,
    license_fields: Mapping[str, str],
    code: str = "",
    whole: Recipe | None = None,
) -> str:
    """Return the text of the model card: YAML metadata followed by Markdown.

    Args:
        record: Finished run.
        recipe: Recipe of the run, without paths of this machine.
        license_fields: License fields from the card of the base checkpoint.
        code: Name of the file next to the weights with the code of the head; empty if the head needs no code.
        whole: Multi-task recipe of the run, if the model is one of several tasks that were trained together; None
            uses ``recipe``.
    """
    base, data = recipe.model.path, recipe.data.path
    tags = ["hf-finetune"]
    tags += ["timm"] if base.startswith("timm/") else []
    tags += ["custom_code"] if code else []
    metadata = ModelCardData(
        base_model=base if not is_local(base) else None,
        datasets=data if not is_local(data) else None,
        library_name="transformers",
        pipeline_tag=recipe.task,
        tags=tags,
        metrics=list(record.primary_metrics) or None,
        model_name=record.name,
        eval_results=_results(record, data) or None,
        **dict[str, Any](license_fields),
    )
    environment = Environment(
        loader=PackageLoader("hf_finetune.publishing", "."),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = _plain
    leading_metric = record.primary_metrics[0] if record.primary_metrics else ""
    classes = class_rows(record.predictions, record.data, record.metrics.get("thresholds"))
    rows = [row for row in classes if row.test]
    yaml = dump_recipe(whole or recipe).rstrip()
    text = environment.get_template("card.md").render(
        run=record,
        base=_describe_source(base, "checkpoint"),
        data=_describe_source(data, "dataset"),
        code=code,
        this_model=THIS_MODEL,
        example=_example(record),
        head=recipe.model.head,
        verdict=verdict(record),
        spread=spread_verdict(record.metrics, leading_metric),
        calibration=calibration_verdict(record.metrics),
        worst=slices_verdict(record.metrics),
        domain=domain_sentence(record),
        weakest=sorted(rows, key=lambda row: (row.f1, row.name))[:WEAKEST] if len(rows) > 2 else [],
        few=_few(record),
        rare_below=FEW,
        recipe=yaml,
        fence=_fence(yaml),
        others=[name for name in getattr(whole, "tasks", ()) if name != record.name],
        sizes=size_tables(record.metrics),
        zip=zip,
    )
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}"))


def _results(record: RunRecord, data: str) -> list[EvalResult]:
    """Return the test metrics in the form of the Hub's ``model-index``, each with its 95 % interval."""
    results = []
    for name in record.primary_metrics:
        value = record.metrics["test"].get(name)
        if value is None:
            continue
        ends = record.metrics.get("test_interval", {}).get(name)
        results.append(
            EvalResult(
                task_type=record.recipe["task"],
                task_name=TASKS[record.recipe["task"]].title,
                dataset_type=data if not is_local(data) else "local",
                dataset_name=data.removeprefix("./"),
                dataset_split="test",
                dataset_revision=record.recipe["data"]["revision"],
                metric_type=name,
                metric_value=round(value, 4),
                metric_args={"interval_95": [round(end, 4) for end in ends]} if ends else None,
            )
        )
    return results


def _example(record: RunRecord) -> str:
    """Return the example in the card's code."""
    modality = TASKS[record.recipe["task"]].modality
    columns = record.data.get("columns", {})
    return modality.example_code(pair=any(columns.get(name) for name in modality.columns[1:]))


def _few(record: RunRecord) -> list[tuple[str, int]]:
    """Return up to ``WEAKEST`` rare classes with their numbers of training examples, the rarest first."""
    counts = record.data["splits"].get("train", {}).get("classes", {})
    rare = sorted((count, name) for name, count in counts.items() if count < FEW)
    return [(name, count) for count, name in rare[:WEAKEST]]


def _license_of(spec: ModelSpec) -> dict[str, str]:
    """Return the license fields of the base checkpoint's card; empty if it cannot be read or declares no license."""
    try:
        if Path(spec.path).is_dir():
            metadata = metadata_load(Path(spec.path) / "README.md")
        else:
            metadata = metadata_load(hf_hub_download(spec.path, "README.md", revision=spec.revision))
    except (OSError, ValueError, YAMLError, HfHubHTTPError, OfflineModeIsEnabled):
        return {}
    return {name: str(metadata[name]) for name in LICENCE if metadata and metadata.get(name)}


def _describe_source(path: str, kind: str) -> str:
    """Return the name of a checkpoint or a dataset, with a note if it is local."""
    return f"{path.removeprefix(LOCAL)} (a local {kind})" if is_local(path) else path


def _fence(text: str) -> str:
    """Return a Markdown code fence that is longer than any run of backticks in the text."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def _plain(text: Any) -> str:
    """Return the text on one line, with Markdown special characters escaped."""
    escaped = "".join(f"\\{letter}" if letter in r"\`*_{}[]<>#|!" else letter for letter in str(text))
    return " ".join(escaped.splitlines())

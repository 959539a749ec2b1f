"""Model card (``RUN/model/README.md``), generated from the files of the run."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, hf_hub_download, metadata_load
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from jinja2 import Environment, PackageLoader, StrictUndefined
from yaml import YAMLError

from hf_finetune.files import atomic_file
from hf_finetune.models.head_spec import CODE
from hf_finetune.publishing.portable_recipe import (
    LOCAL_PREFIX,
    is_local,
    portable_recipe,
    published_recipe,
    run_recipe,
)
from hf_finetune.publishing.upload_plan import MODEL_PLACEHOLDER
from hf_finetune.recipe.load import dump_recipe
from hf_finetune.recipe.model import ModelSpec
from hf_finetune.recipe.schema import Recipe
from hf_finetune.report.compression import size_tables
from hf_finetune.report.domain_adaptation import domain_sentence
from hf_finetune.report.run_record import RunRecord, read_run
from hf_finetune.report.slices import slices_verdict
from hf_finetune.report.tables import class_rows
from hf_finetune.report.verdict import calibration_verdict, cross_validation_sentence, verdict
from hf_finetune.tasks import TASKS

__all__ = ["render_card", "write_card"]

MAX_LISTED_CLASSES = 5
"""Maximum number of classes in the lists of weak and of rare classes."""
RARE_CLASS_EXAMPLES = 20
"""Number of training examples below which a class is listed as rare."""
LICENSE_FIELDS = ("license", "license_name", "license_link")
"""Metadata fields of a model card on its license."""


def write_card(folder: Path) -> Path:
    """Write the model card of a finished run.

    Args:
        folder: Run directory.

    Returns:
        Path of the card.
    """
    path = folder / "model" / "README.md"
    with atomic_file(path) as partial:
        recipe = run_recipe(folder)
        code = CODE.name if (folder / "model" / CODE.name).is_file() else ""
        license_fields = _license_fields(recipe.model)
        joint_recipe = published_recipe(folder)
        config = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
        text = render_card(
            read_run(folder), portable_recipe(recipe), license_fields, code, joint_recipe, config
        )
        partial.write_text(text, encoding="utf-8")
    return path


def render_card(
    record: RunRecord,
    recipe: Recipe,
    license_fields: Mapping[str, str],
    code: str = "",
    joint_recipe: Recipe | None = None,
    config: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Return the text of the model card: YAML metadata followed by Markdown.

    Args:
        record: Finished run.
        recipe: Recipe of the run, without paths of this machine.
        license_fields: License fields from the card of the base checkpoint.
        code: Name of the Python file of a custom head, next to the weights; empty without one.
        joint_recipe: Multi-task recipe of the run, if the model is for one of several tasks; None uses ``recipe``.
        config: Content of the ``config.json`` of the model.
    """
    base, data = recipe.model.path, recipe.data.path
    leading_metric = record.metric_names[0] if record.metric_names else ""
    classes = class_rows(record.predictions, record.data, record.rule)
    rows = [row for row in classes if row.test]
    rare_classes = _rare_classes(record)
    yaml = dump_recipe(joint_recipe or recipe).rstrip()
    text = (
        _environment()
        .get_template("card.md")
        .render(
            run=record,
            base=_describe_source(base, "checkpoint") if base else _sentence(recipe.model.title),
            usage_code=TASKS[record.recipe["task"]].usage_code(
                MODEL_PLACEHOLDER, config, _example(record), ", trust_remote_code=True" if code else ""
            ),
            data=_describe_source(data, "dataset"),
            code=code,
            usage_note=TASKS[record.recipe["task"]].modality.usage_note,
            head=recipe.model.head,
            verdict=verdict(record),
            fold_sentence=cross_validation_sentence(record.metrics, leading_metric),
            calibration=calibration_verdict(record.metrics),
            slice_sentences=slices_verdict(record.metrics),
            domain_sentence=domain_sentence(record),
            weak_classes=sorted(rows, key=lambda row: (row.f1, row.name))[:MAX_LISTED_CLASSES]
            if len(rows) > 2
            else [],
            tested=len(rows),
            failed=sum(row.f1 == 0 for row in rows),
            rare_classes=rare_classes[:MAX_LISTED_CLASSES],
            rare=len(rare_classes),
            trained=len(_class_counts(record)),
            rare_below=RARE_CLASS_EXAMPLES,
            recipe=yaml,
            fence=_fence(yaml),
            other_tasks=[name for name in getattr(joint_recipe, "tasks", ()) if name != record.name],
            sizes=size_tables(record.metrics),
            stages=list(zip(record.recipe["stages"], record.metrics["stages"], strict=True)),
        )
    )
    metadata = _metadata(record, recipe, license_fields, code)
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}"))


def _metadata(
    record: RunRecord, recipe: Recipe, license_fields: Mapping[str, str], code: str
) -> ModelCardData:
    base, data = recipe.model.path, recipe.data.path
    tags = ["hf-finetune"]
    tags += ["timm"] if base.startswith("timm/") else []
    tags += ["custom_code"] if code else []
    return ModelCardData(
        base_model=base if base and not is_local(base) else None,
        datasets=data if not is_local(data) else None,
        library_name="transformers",
        pipeline_tag=TASKS[recipe.task].pipeline_name,
        tags=tags,
        metrics=list(record.metric_names) or None,
        model_name=record.name,
        eval_results=_results(record, data) or None,
        **dict[str, Any](license_fields),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hf_finetune.publishing", "."),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = _plain
    return environment


def _results(record: RunRecord, data: str) -> list[EvalResult]:
    """Return the test metrics in the form of the Hub's ``model-index``, each with its 95 % interval."""
    results = []
    for name in record.metric_names:
        value = record.metrics["test"].get(name)
        if value is None:
            continue
        ends = record.metrics.get("test_interval", {}).get(name)
        results.append(
            EvalResult(
                task_type=TASKS[record.recipe["task"]].pipeline_name,
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
    """Return the Python expression of the input in the usage example."""
    modality = TASKS[record.recipe["task"]].modality
    columns = record.data.get("columns", {})
    return modality.example_code(pair=any(columns.get(name) for name in modality.columns[1:]))


def _rare_classes(record: RunRecord) -> list[tuple[str, int]]:
    """Return the rare classes with their numbers of training examples, the rarest first."""
    counts = _class_counts(record)
    rare = sorted((count, name) for name, count in counts.items() if count < RARE_CLASS_EXAMPLES)
    return [(name, count) for count, name in rare]


def _class_counts(record: RunRecord) -> Mapping[str, int]:
    """Return the number of training examples of each class; empty without classes."""
    return record.data["splits"].get("train", {}).get("classes") or {}


def _license_fields(spec: ModelSpec) -> dict[str, str]:
    """Return the license fields of the base checkpoint's card; empty if it cannot be read or declares no license."""
    if spec.new is not None:
        return {}
    try:
        if Path(spec.path).is_dir():
            metadata = metadata_load(Path(spec.path) / "README.md")
        else:
            metadata = metadata_load(hf_hub_download(spec.path, "README.md", revision=spec.revision))
    except (OSError, ValueError, YAMLError, HfHubHTTPError, OfflineModeIsEnabled):
        return {}
    return {name: str(metadata[name]) for name in LICENSE_FIELDS if metadata and metadata.get(name)}


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _describe_source(path: str, kind: str) -> str:
    """Return the name of a checkpoint or a dataset, with a note if it is local."""
    return f"{path.removeprefix(LOCAL_PREFIX)} (a local {kind})" if is_local(path) else path


def _fence(text: str) -> str:
    """Return a Markdown code fence that is longer than any run of backticks in the text."""
    return "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))


def _plain(text: Any) -> str:
    """Return the text on one line, with Markdown special characters escaped."""
    escaped = "".join(f"\\{letter}" if letter in r"\`*_{}[]<>#|!" else letter for letter in str(text))
    return " ".join(escaped.splitlines())

"""What pruning and distillation have gained and cost: the model before and after, or teacher and student."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from hf_finetune.evaluation.evaluate import evaluate_model
from hf_finetune.evaluation.predictor import Classifier, load_classifier
from hf_finetune.models.export import export_model
from hf_finetune.publishing.parity import median_milliseconds
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.weights import load_stage_weights
from hf_finetune.tasks import Inputs

__all__ = ["compare_sizes", "measure_size"]

Found = Mapping[str, float | None]
Batch = Mapping[str, torch.Tensor]


def compare_sizes(prepared: PreparedRun, inputs: Inputs, folder: Path, test: Found) -> dict[str, Any]:
    """Compare the finished model with the one that was pruned, and with the teacher that it learned from.

    What is judged on the test split here chooses nothing: all stages are done.

    Args:
        prepared: The run, all of whose stages are done, and whose model is saved.
        inputs: What they were trained on.
        folder: Its directory.
        test: Its test metrics.

    Returns:
        ``compression`` and ``distillation`` of ``metrics.json``, those of them that there are; for a fold nothing.
    """
    stages = prepared.recipe.stages
    pruned = [index for index, stage in enumerate(stages) if stage.compress is not None]
    taught = [index for index, stage in enumerate(stages) if stage.teacher is not None]
    if not (pruned or taught) or prepared.recipe.data.split.fold is not None:
        return {}
    example = _example(inputs)
    model = _load(prepared, folder / "model")
    now = {"metrics": _chosen(prepared, test), **measure_size(_model(model), example)}
    found: dict[str, Any] = {}
    if pruned:
        methods = dict.fromkeys(stages[index].compress.method for index in pruned)  # type: ignore[union-attr]
        found["compression"] = {
            "stage": _names(prepared, pruned),
            "method": ", ".join(methods),
            "example": _described(example),
            "before": _before(prepared, folder, pruned[0], example),
            "after": now
            if not _is_adjusted(prepared)
            else {**now, "metrics": _plain(prepared, folder, len(stages))},
        }
    if taught:
        path = stages[taught[0]].teacher.path  # type: ignore[union-attr]
        teacher = _load(prepared, path)
        found["distillation"] = {
            "stage": _names(prepared, taught),
            "example": _described(example),
            "teacher": {"metrics": _judged(prepared, teacher), **measure_size(_model(teacher), example)},
            "student": now,
        }
    return found


def measure_size(model: PreTrainedModel, example: Batch) -> dict[str, float]:
    """Say how large a model is, and what one example costs.

    Args:
        model: On the CPU.
        example: Its inputs, as a batch of one.

    Returns:
        ``parameters``; ``nonzero_parameters``; ``macs``: multiplications and additions of one forward pass, in pairs,
        in matrix products, convolutions and attention; ``bytes`` of the weights; ``milliseconds`` of one forward pass
        on the CPU, the median of several.
    """
    model.eval()
    inputs = {
        name: value.to(model.dtype) if value.is_floating_point() else value for name, value in example.items()
    }

    def forward() -> None:
        with torch.no_grad():
            model(**inputs)

    with FlopCounterMode(display=False) as counter:
        forward()
    parameters = list(model.parameters())
    return {
        "parameters": sum(each.numel() for each in parameters),
        "nonzero_parameters": sum(int(each.count_nonzero()) for each in parameters),
        "macs": counter.get_total_flops() // 2,
        "bytes": sum(each.numel() * each.element_size() for each in model.state_dict().values()),
        "milliseconds": round(median_milliseconds(forward), 3),
    }


def _before(prepared: PreparedRun, folder: Path, index: int, example: Batch) -> dict[str, Any]:
    """Look at the model that a stage pruned. Of one whose head nothing had trained yet no metric means anything."""
    model = load_stage_weights(prepared, folder, index)
    metrics = _plain(prepared, folder, index) if index else {}
    return {"metrics": metrics, **measure_size(model, example)}


def _plain(prepared: PreparedRun, folder: Path, index: int) -> dict[str, float | None]:
    """Judge the model that the stages before one left, without temperature and thresholds."""
    with TemporaryDirectory(prefix="hf-finetune-") as scratch:
        export_model(load_stage_weights(prepared, folder, index), prepared.processor, Path(scratch) / "model")
        return _judged(prepared, _load(prepared, Path(scratch) / "model"))


def _is_adjusted(prepared: PreparedRun) -> bool:
    """Tell whether the saved model has a temperature or thresholds, which the one before has not."""
    return prepared.recipe.evaluation.calibrate or prepared.recipe.evaluation.thresholds


def _judged(prepared: PreparedRun, classifier: Classifier) -> dict[str, float | None]:
    if prepared.data.test is None:
        return {}
    extra = [name for name in prepared.primary_metrics if name != "loss"]
    found = evaluate_model(
        classifier, prepared.data.test, metrics=extra, costs=prepared.recipe.evaluation.costs
    )
    return _chosen(prepared, found.metrics)


def _chosen(prepared: PreparedRun, metrics: Found) -> dict[str, float | None]:
    """Give the metrics that the recipe asks for; what is undefined is None."""
    values = (
        {name: metrics.get(name) for name in prepared.primary_metrics if name != "loss"} if metrics else {}
    )
    return {name: None if value is None or isnan(value) else value for name, value in values.items()}


def _load(prepared: PreparedRun, source: str | Path) -> Classifier:
    return load_classifier(
        source,
        batch_size=prepared.recipe.evaluation.batch_size,
        trust_remote_code=prepared.trust_remote_code,
    )


def _model(classifier: Classifier) -> PreTrainedModel:
    model: PreTrainedModel = classifier.pipe.model
    return model.cpu()


def _example(inputs: Inputs) -> dict[str, torch.Tensor]:
    """Take one example: an image of the model's size, or the text of middle length among those trained on."""
    lengths = inputs.lengths or [0]
    index = sorted(range(len(lengths)), key=lengths.__getitem__)[len(lengths) // 2]
    batch = inputs.collate([inputs.train[index]])
    return {name: value for name, value in batch.items() if name != "labels"}


def _described(example: Batch) -> str:
    """Say what was measured: ``224 x 224 pixels`` or ``38 tokens``."""
    if "pixel_values" in example:
        height, width = example["pixel_values"].shape[-2:]
        return f"{height} x {width} pixels"
    return f"{example['input_ids'].shape[1]} tokens"


def _names(prepared: PreparedRun, indices: list[int]) -> str:
    return ", ".join(prepared.recipe.stages[index].name for index in indices)

"""Size, cost and metrics of a model before and after pruning, or of teacher and student in distillation."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from hf_finetune.evaluation.classifier import Classifier, load_classifier
from hf_finetune.evaluation.evaluate import evaluate_model
from hf_finetune.models.export import export_model
from hf_finetune.publishing.parity import median_milliseconds
from hf_finetune.recipe.method_rules import DISTILLATION
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.weights import load_stage_weights
from hf_finetune.tasks import Inputs, find_modality

__all__ = ["compare_sizes", "measure_size"]

MetricValues = Mapping[str, float | None]
Batch = Mapping[str, torch.Tensor]


def compare_sizes(
    prepared: PreparedRun, inputs: Inputs, folder: Path, test_metrics: MetricValues
) -> dict[str, Any]:
    """Compare the finished model with the model before pruning, and with its teacher.

    The comparison uses the test split. It does not affect any choice, because all stages are done.

    Args:
        prepared: Run whose stages are done and whose model is saved.
        inputs: Model inputs on which the stages trained.
        folder: Run directory.
        test_metrics: Test metrics of the finished model.

    Returns:
        ``compression`` and ``distillation`` of ``metrics.json``, each only if the recipe uses it; empty for a fold of
        a cross-validation.
    """
    stages = prepared.recipe.stages
    pruning_stages = [index for index, spec in enumerate(stages) if spec.compress is not None]
    distillation_stages = [index for index, spec in enumerate(stages) if spec.teacher is not None]
    if not (pruning_stages or distillation_stages) or prepared.recipe.data.split.fold is not None:
        return {}
    example = _example(inputs)
    model = _load(prepared, folder / "model")
    finished = {"metrics": _recipe_metrics(prepared, test_metrics), **measure_size(_model(model), example)}
    content: dict[str, Any] = {}
    if pruning_stages:
        after = finished
        if prepared.recipe.evaluation.calibrate or prepared.recipe.evaluation.thresholds:
            # the saved model has a temperature or thresholds, which the model before pruning lacks
            after = {**finished, "metrics": _metrics_after_stages(prepared, folder, len(stages))}
        methods = dict.fromkeys(stages[index].compress.method for index in pruning_stages)  # type: ignore[union-attr]
        content["compression"] = {
            "stage": _stage_names(prepared, pruning_stages),
            "method": ", ".join(methods),
            "example": _describe_example(example),
            "before": _measure_unpruned(prepared, folder, pruning_stages[0], example),
            "after": after,
        }
    if distillation_stages:
        path = stages[distillation_stages[0]].teacher.path  # type: ignore[union-attr]
        teacher = _load(prepared, path)
        content[DISTILLATION.name] = {
            "stage": _stage_names(prepared, distillation_stages),
            "example": _describe_example(example),
            "teacher": {"metrics": _evaluate(prepared, teacher), **measure_size(_model(teacher), example)},
            "student": finished,
        }
    return content


def measure_size(model: PreTrainedModel, example: Batch) -> dict[str, float]:
    """Measure the size of a model and the cost of a forward pass.

    Args:
        model: Model on the CPU; it is set to eval mode.
        example: Inputs of one example, as a batch of one.

    Returns:
        - ``parameters`` and ``nonzero_parameters``.
        - ``macs``: multiply-accumulate operations of a forward pass in matrix products, convolutions and attention.
        - ``bytes``: size of the state dict.
        - ``milliseconds``: median time of a forward pass on the CPU.
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
        "parameters": sum(tensor.numel() for tensor in parameters),
        "nonzero_parameters": sum(int(tensor.count_nonzero()) for tensor in parameters),
        "macs": counter.get_total_flops() // 2,
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()),
        "milliseconds": round(median_milliseconds(forward), 3),
    }


def _measure_unpruned(prepared: PreparedRun, folder: Path, index: int, example: Batch) -> dict[str, Any]:
    """Return size and metrics of the model before a stage pruned it; no metrics if its head was not trained yet."""
    model = load_stage_weights(prepared, folder, index)
    metrics = _metrics_after_stages(prepared, folder, index) if index else {}
    return {"metrics": metrics, **measure_size(model, example)}


def _metrics_after_stages(prepared: PreparedRun, folder: Path, index: int) -> dict[str, float | None]:
    """Return the test metrics of the model after the first ``index`` stages, without temperature and thresholds."""
    with TemporaryDirectory(prefix="hf-finetune-") as scratch:
        export_model(load_stage_weights(prepared, folder, index), prepared.processor, Path(scratch) / "model")
        return _evaluate(prepared, _load(prepared, Path(scratch) / "model"))


def _evaluate(prepared: PreparedRun, classifier: Classifier) -> dict[str, float | None]:
    if prepared.data.test is None:
        return {}
    extra = [name for name in prepared.metric_names if name != "loss"]
    result = evaluate_model(
        classifier, prepared.data.test, metrics=extra, costs=prepared.recipe.evaluation.costs
    )
    return _recipe_metrics(prepared, result.metrics)


def _recipe_metrics(prepared: PreparedRun, metrics: MetricValues) -> dict[str, float | None]:
    """Return the metrics of the recipe without the loss; an undefined one is None."""
    names = [name for name in prepared.metric_names if name != "loss"] if metrics else []
    values = {name: metrics.get(name) for name in names}
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
    """Return the training example of median length, or the first one without lengths, as a batch without labels."""
    lengths = inputs.lengths or [0]
    index = sorted(range(len(lengths)), key=lengths.__getitem__)[len(lengths) // 2]
    batch = inputs.collate([inputs.train[index]])
    return {name: value for name, value in batch.items() if name != "labels"}


def _describe_example(example: Batch) -> str:
    """Return the size of an example: ``224 x 224 pixels`` or ``38 tokens``."""
    return find_modality(example).format_size(example)


def _stage_names(prepared: PreparedRun, indices: list[int]) -> str:
    return ", ".join(prepared.recipe.stages[index].name for index in indices)

"""A model of many classes: the time of evaluation or prediction, and of the forward pass of the same batches."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value, load_dataset
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Pipeline,
    set_seed,
)

from benchmarks.watch import peak_bytes
from hf_finetune.evaluation.calibration import calibration_error, reliability
from hf_finetune.evaluation.classifier import Classifier, load_classifier, logit_batches
from hf_finetune.evaluation.evaluate import evaluate_model, model_examples
from hf_finetune.evaluation.intervals import intervals
from hf_finetune.evaluation.predict import predict
from hf_finetune.evaluation.prediction_writers import open_output
from hf_finetune.evaluation.predictions import Predictions, write_predictions
from hf_finetune.performance.allocator import keep_freed_memory

__all__ = ["measure"]

METRICS = ("accuracy", "f1_macro")
WORDS = 80
"""Words of a text: about 100 tokens."""


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Time evaluation or prediction, and the forward pass alone, in turn; return the median seconds of both.

    Args:
        work: ``modality`` (text or image), ``checkpoint``, ``data``, ``classes``, ``examples``, ``image_size``,
            ``what`` (evaluation or prediction), ``repeats``, ``seed`` and ``folder``.
    """
    set_seed(work["seed"])
    folder = Path(work["folder"])
    dataset = _examples(work)
    _save_model(work, folder / "model")
    classifier = load_classifier(folder / "model")
    batches = _batches(classifier, dataset)
    if work["what"] == "prediction":
        task = _prediction(classifier, dataset, folder)
    else:
        task = partial(_evaluate, classifier, dataset, folder)
    tasks: dict[str, Callable[[], None]] = {
        "forward_seconds": partial(_forward, classifier.pipe, batches),
        "seconds": task,
    }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(work["repeats"]):
        for name, step in tasks.items():
            begun = perf_counter()
            step()
            seconds[name].append(perf_counter() - begun)
    return {**{name: median(values) for name, values in seconds.items()}, "peak_bytes": peak_bytes()}


def _examples(work: dict[str, Any]) -> Dataset:
    """Return examples with the columns of ``evaluate_model`` and random classes."""
    count = work["examples"]
    if work["modality"] == "text":
        rows = load_dataset("csv", data_files=f"{work['data']}/train.csv", split="train")["text"][:count]
        name, feature, rows = "text", Value("string"), [" ".join(row.split()[:WORDS]) for row in rows]
    else:
        pictures = load_dataset("parquet", data_files=f"{work['data']}/train.parquet", split="train")
        rows = pictures.cast_column("image", Image(decode=False))["image"][:count]
        name, feature = "image", Image()
    rows = [rows[index % len(rows)] for index in range(count)]
    names = [f"class {index:05d}" for index in range(work["classes"])]
    labels = np.random.default_rng(work["seed"]).integers(0, work["classes"], count)
    return Dataset.from_dict(
        {"id": [str(index) for index in range(count)], name: rows, "label": labels.tolist()},
        features=Features({"id": Value("string"), name: feature, "label": ClassLabel(names=names)}),
    )


def _save_model(work: dict[str, Any], folder: Path) -> None:
    """Save the architecture of a checkpoint with random weights and a given number of classes."""
    config = AutoConfig.from_pretrained(work["checkpoint"])
    config.problem_type, config.num_labels = "single_label_classification", work["classes"]
    config.id2label = {index: f"class {index:05d}" for index in range(work["classes"])}
    config.label2id = {name: index for index, name in config.id2label.items()}
    if work["modality"] == "text":
        model = AutoModelForSequenceClassification.from_config(config)
        AutoTokenizer.from_pretrained(work["checkpoint"]).save_pretrained(folder)
    else:
        # timm's config would write those of the checkpoint, if it has them, and not the new ones
        for name in ("label_names", "num_classes"):
            config.__dict__.pop(name, None)
        # an image processor of timm is read from the model's config
        size = [3, work["image_size"], work["image_size"]]
        config.pretrained_cfg = {**config.pretrained_cfg, "input_size": size}
        model = AutoModelForImageClassification.from_config(config)
    model.save_pretrained(folder)


def _batches(classifier: Classifier, dataset: Dataset) -> list[dict[str, torch.Tensor]]:
    """Return the batches of the examples, as in an evaluation."""
    pipe, batches = classifier.pipe, []
    forward: Callable[..., Any] = pipe.forward

    def noting(inputs: Any) -> Any:
        batches.append({key: value.clone() for key, value in inputs.items() if torch.is_tensor(value)})
        return forward(inputs)

    pipe.forward = noting
    for _ in logit_batches(classifier, model_examples(dataset)):
        pass
    del pipe.forward
    return batches


def _forward(pipe: Pipeline, batches: list[dict[str, torch.Tensor]]) -> None:
    with torch.inference_mode(), keep_freed_memory(pipe.device.type == "cpu"):
        for batch in batches:
            pipe.model(**batch)


def _evaluate(classifier: Classifier, dataset: Dataset, folder: Path) -> None:
    """Predict, compute all metrics, intervals and the calibration, and write the predictions."""
    found = evaluate_model(classifier, dataset, metrics=METRICS)
    intervals(METRICS, found.examples, seed=0)
    reliability(found.scores, found.labels)
    calibration_error(found.scores, found.labels)
    write_predictions(
        folder / "predictions.parquet",
        Predictions(found.ids, found.labels, found.scores, found.target, found.label_names),
    )


def _prediction(classifier: Classifier, dataset: Dataset, folder: Path) -> Callable[[], None]:
    """Return a function that predicts the examples from files and writes the predictions."""
    if "text" in dataset.column_names:
        dataset.select_columns(["id", "text"]).to_csv(str(folder / "texts.csv"), index=False)
        inputs = [str(folder / "texts.csv")]
    else:
        (folder / "pictures").mkdir()
        for index, row in enumerate(dataset.cast_column("image", Image(decode=False))):
            (folder / "pictures" / f"{index:06d}.png").write_bytes(row["image"]["bytes"])
        inputs = [str(folder / "pictures")]

    def task() -> None:
        with open_output(folder / "out.parquet", classifier.target, classifier.label_names) as write:
            for prediction in predict(classifier, inputs):
                write(prediction)

    return task

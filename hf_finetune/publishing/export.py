"""Export of a finished model to ONNX or ``torch.export``, with a parity check against the original."""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from hf_finetune.errors import InputError, MissingSplitError, Problem, suggestion
from hf_finetune.evaluation.classifier import Classifier, resolve_model_dir
from hf_finetune.evaluation.evaluate import model_examples
from hf_finetune.evaluation.evaluate_run import load_labeled
from hf_finetune.evaluation.finished import find_run, load_finished
from hf_finetune.evaluation.metrics import default_metrics, without_nan
from hf_finetune.files import atomic_folder
from hf_finetune.models.classifier_head import is_given
from hf_finetune.publishing.exported_pipeline import (
    ExportedPipeline,
    example_inputs,
    export_metadata,
    get_processor,
    model_inputs,
)
from hf_finetune.publishing.graph_export import (
    ONNX_FILE,
    PROGRAM_FILE,
    dynamic_axes,
    load_onnx_classifier,
    load_program_classifier,
    write_metadata,
    write_onnx,
    write_program,
)
from hf_finetune.publishing.optional_packages import require_extra
from hf_finetune.publishing.parity import Parity, compare_models, median_milliseconds, weight_bytes
from hf_finetune.publishing.quantize import CALIBRATION_EXAMPLES, quantize_int8
from hf_finetune.targets import TARGETS
from hf_finetune.training.manifest import write_json

__all__ = ["FORMATS", "QUANTIZATIONS", "REPORT_FILE", "ExportResult", "ParityError", "export"]

logger = logging.getLogger(__name__)

FORMATS = ("onnx", "torch_export")
"""Values of the ``format`` argument."""
QUANTIZATIONS = ("int8",)
"""Values of the ``quantize`` argument."""
REPORT_FILE = "export.json"

TOLERANCE = 1e-3
"""Tolerance for models that are not quantized: maximum logit difference as a fraction of the largest logit."""


class ParityError(RuntimeError):
    """Raised when the logits of an exported model differ from those of the original model."""


@dataclass(frozen=True)
class ExportResult:
    """Result of an export.

    Attributes:
        folder: Folder of the exported model.
        report: Content of export.json.
        metric_names: Names of the default metrics of the target.
    """

    folder: Path
    report: dict[str, Any]
    metric_names: tuple[str, ...]


def export(
    model_or_run: str | Path,
    *,
    format: str = "onnx",
    quantize: str | None = None,
    output: Path | None = None,
    data: str | None = None,
    trust_remote_code: bool = False,
) -> ExportResult:
    """Export a finished model with its labels and preprocessing, and compare it with the original model.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.
        format: ``onnx`` or ``torch_export``.
        quantize: ``int8`` for 8-bit weights and activations (``onnx`` only); None does not quantize.
        output: Output folder; None is a folder in the run directory, named after the format.
        data: Labeled data to compare on, and to calibrate int8 image models, as in a recipe; None is the data of the
            run.
        trust_remote_code: Whether code next to the weights may run.

    Returns:
        Folder and report of the exported model.

    Raises:
        InputError: If the model, the format or the data does not exist, if the output folder contains other files, or
            if a package is missing.
        GraphError: If torch cannot export the architecture.
        ParityError: If the logits of a model that is not quantized differ by more than ``TOLERANCE`` of the largest
            one. Nothing is written then.
    """
    _check_choices(format, quantize)
    folder = _output_folder(model_or_run, format, quantize, output)
    if format == "onnx":
        require_extra("onnx", "--format onnx")
    classifier = load_finished(model_or_run, trust_remote_code=trust_remote_code)
    if TARGETS[classifier.target].is_text:
        rule, repair = (
            "must be a model that computes logits of labels",
            "A model that writes texts is not exported.",
        )
        raise InputError(Problem(str(model_or_run), rule, f"a model for {classifier.task}", repair))
    classifier.pipe.model.to("cpu").float().eval()  # as the exported model runs
    classifier.pipe.device = torch.device("cpu")
    dataset = load_labeled(model_or_run, classifier, data=data, split=_comparison_split(model_or_run, data))
    calibration = None
    if quantize is not None and not classifier.modality.has_tokens:
        calibration = _calibration_examples(model_or_run, classifier, data)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as partial:
        partial.mkdir()
        _copy_config(model_or_run, classifier, partial)
        _write_model(classifier, format, quantize, calibration, partial)
        exported = _load_exported(format, partial, trust_remote_code)
        parity = compare_models(classifier, exported, dataset)
        if quantize is None:
            _check_parity(parity)
        report = {
            "format": format,
            "quantize": quantize,
            "model": classifier.pipe.model.config.model_type,
            "task": classifier.task,
            "target": classifier.target,
            "inputs": _inputs(classifier),
            "examples": parity.examples,
            "largest_difference": parity.largest_difference,
            "largest_logit": parity.largest_logit,
            "same_answers": parity.prediction_agreement,
            "metrics": {
                "before": without_nan(parity.original_metrics),
                "after": without_nan(parity.exported_metrics),
            },
            **_costs(model_or_run, classifier, exported, partial),
        }
        write_json(partial / REPORT_FILE, report)
    return ExportResult(folder, report, default_metrics(classifier.target))


def _load_exported(format: str, folder: Path, trust_remote_code: bool) -> Classifier:
    if format == "onnx":
        return load_onnx_classifier(folder, trust_remote_code=trust_remote_code)
    # this process has just written the program, so it can be trusted; the processor comes from the checkpoint
    return load_program_classifier(folder, trust_program=True, trust_remote_code=trust_remote_code)


def _check_choices(format: str, quantize: str | None) -> None:
    if format not in FORMATS:
        rule = f"must be one of {', '.join(FORMATS)}"
        raise InputError(Problem("--format", rule, repr(format), suggestion(format, FORMATS)))
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise InputError(Problem("--quantize", f"must be {' or '.join(QUANTIZATIONS)}", repr(quantize)))
    if quantize is not None and format != "onnx":
        raise InputError(Problem("--quantize", "must not be set unless the format is onnx", repr(quantize)))


def _output_folder(model_or_run: str | Path, format: str, quantize: str | None, output: Path | None) -> Path:
    """Return the output folder, which must be new, empty, or an earlier export."""
    if output is None:
        run = find_run(model_or_run)
        if run is None:
            raise InputError(Problem("--output", "must be set unless the model is a run directory"))
        return run / (format if quantize is None else f"{format}-{quantize}")
    if output.exists() and not output.is_dir():
        raise InputError(Problem("--output", "must be a folder", f"the file {str(output)!r}"))
    if output.is_dir() and any(output.iterdir()) and not (output / REPORT_FILE).is_file():
        rule = "must be a folder that is new or empty, or contains an earlier export"
        raise InputError(Problem("--output", rule, repr(str(output))))
    return output


def _comparison_split(model_or_run: str | Path, data: str | None) -> str | None:
    """Return the split to compare on: test, else validation; None if ``data`` is set or the model is not a run."""
    run = find_run(model_or_run)
    if data is not None or run is None:
        return None
    metrics = run / "metrics.json"
    if metrics.is_file() and not json.loads(metrics.read_text(encoding="utf-8")).get("test"):
        logger.info("The run has no test split: the models are compared on its validation split.")
        return "validation"
    return "test"


def _calibration_examples(model_or_run: str | Path, classifier: Classifier, data: str | None) -> Dataset:
    """Return examples to calibrate the quantization, from the validation split or else the training split.

    The parity check uses other examples: those of the test split, if there is one.

    Raises:
        InputError: If there is neither split, or the data cannot be used.
    """
    for split in ("validation", "train"):
        try:
            dataset = load_labeled(model_or_run, classifier, data=data, split=split)
        except MissingSplitError:
            continue
        return dataset.select(np.random.default_rng(0).permutation(len(dataset))[:CALIBRATION_EXAMPLES])
    rule = "must have a validation or training split, which int8 quantization needs for calibration"
    raise InputError(Problem(str(model_or_run) if data is None else data, rule))


def _copy_config(model_or_run: str | Path, classifier: Classifier, folder: Path) -> None:
    """Write the config with the label map, and the preprocessing, as the files that transformers reads."""
    source = resolve_model_dir(model_or_run)
    get_processor(classifier).save_pretrained(folder)
    config = classifier.pipe.model.config
    if isinstance(source, Path) and not is_given(config):
        shutil.copyfile(source / "config.json", folder / "config.json")
    else:  # the config file of a model with a custom head refers to Python code, which an export does not need
        config.save_pretrained(folder)


def _inputs(classifier: Classifier) -> dict[str, list[int | str]]:
    """Return the shape of each model input, with symbolic names for the dynamic axes: ``[batch, tokens]``."""
    axes = dynamic_axes(classifier.modality)
    return {name: [*axes, *value.shape[len(axes) :]] for name, value in example_inputs(classifier).items()}


def _write_model(
    classifier: Classifier, format: str, quantize: str | None, calibration: Dataset | None, folder: Path
) -> None:
    model, modality, batch = classifier.pipe.model, classifier.modality, example_inputs(classifier)
    metadata = export_metadata(classifier)
    if format == "torch_export":
        write_program(model, modality, batch, folder / PROGRAM_FILE, metadata)
        return
    path = folder / ONNX_FILE
    write_onnx(model, modality, batch, path)
    if quantize is not None:
        float32_path = path.rename(folder / "float32.onnx")
        batches = None if calibration is None else _calibration_batches(classifier, calibration)
        quantize_int8(float32_path, path, batches)
        for file in folder.glob("float32.onnx*"):
            file.unlink()
    write_metadata(path, metadata)


def _calibration_batches(classifier: Classifier, dataset: Dataset) -> Iterator[Mapping[str, torch.Tensor]]:
    prepare = model_inputs(classifier)
    for example in model_examples(dataset):
        yield prepare([example])


def _check_parity(parity: Parity) -> None:
    allowed = TOLERANCE * parity.largest_logit
    if not parity.largest_difference <= allowed:
        raise ParityError(
            f"The logits of the exported model differ by up to {parity.largest_difference:.3g} from those of the "
            f"original model (largest logit: {parity.largest_logit:.3g}); the tolerance is {allowed:.3g}. "
            "Nothing was written."
        )


def _costs(
    model_or_run: str | Path, original: Classifier, exported: Classifier, folder: Path
) -> dict[str, Any]:
    """Measure the weights (bytes) and a forward pass of one example (milliseconds, without preprocessing)."""
    files = (folder / ONNX_FILE, folder / f"{ONNX_FILE}.data", folder / PROGRAM_FILE)
    return {
        "bytes": {"before": _model_bytes(model_or_run, original), "after": weight_bytes(*files)},
        "milliseconds": {"before": _latency(original), "after": _latency(exported)},
        "threads": torch.get_num_threads(),
    }


def _model_bytes(model_or_run: str | Path, classifier: Classifier) -> int:
    """Return the size of the weights in bytes: of the files if the model is local, else of the tensors in memory."""
    source = resolve_model_dir(model_or_run)
    if isinstance(source, Path):
        size = weight_bytes(*source.glob("*.safetensors"), *source.glob("*.bin"))
        if size:
            return size
    return sum(value.numel() * value.element_size() for value in classifier.pipe.model.state_dict().values())


def _latency(classifier: Classifier) -> float:
    pipe: Any = classifier.pipe
    is_exported = isinstance(pipe, ExportedPipeline)
    prepare = pipe.prepare if is_exported else model_inputs(classifier)
    batch = {name: value[:1] for name, value in prepare(classifier.modality.tracing_examples()).items()}
    if is_exported:
        return median_milliseconds(lambda: pipe.forward(batch))
    with torch.no_grad():
        return median_milliseconds(lambda: pipe.model(**batch).logits.numpy())

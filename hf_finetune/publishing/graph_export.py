"""Export of a classifier as a graph that runs without transformers: an ONNX file or a ``torch.export`` program."""

import json
from collections.abc import Iterable, Mapping
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.classifier import Classifier
from hf_finetune.publishing.exported_pipeline import load_exported_classifier
from hf_finetune.tasks import Modality

__all__ = [
    "ONNX_FILE",
    "PROGRAM_FILE",
    "GraphError",
    "dynamic_axes",
    "load_onnx_classifier",
    "load_program_classifier",
    "write_metadata",
    "write_onnx",
    "write_program",
]

ONNX_FILE, PROGRAM_FILE = "model.onnx", "model.pt2"

_METADATA_FILE = "hf_finetune.json"


class GraphError(RuntimeError):
    """Raised when torch cannot export the architecture of a model."""


class _Logits(nn.Module):
    """Wrapper around a model that returns only the logits `[batch, classes]`.

    torch names the inputs of the graph by the signature of ``forward``.
    """

    def __init__(self, model: PreTrainedModel, names: Iterable[str]):
        super().__init__()
        self.model = model

        def forward(**inputs: torch.Tensor) -> torch.Tensor:
            return self.model(**inputs).logits

        parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        forward.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        self.forward = forward


def dynamic_axes(modality: Modality) -> tuple[str, ...]:
    """Return the names of the first axes of the model inputs, whose sizes vary."""
    return ("batch", "tokens") if modality.has_tokens else ("batch",)


def write_onnx(
    model: PreTrainedModel, modality: Modality, batch: Mapping[str, torch.Tensor], path: Path
) -> None:
    """Write a model as an ONNX file with dynamic batch size and number of tokens.

    Args:
        model: Model on the CPU, in float32 and in eval mode.
        modality: Kind of input.
        batch: Model inputs of two examples.
        path: Path of the ONNX file. Weights of more than 1.5 GB are written to a second file next to it.

    Raises:
        GraphError: If torch cannot export the architecture.
    """
    try:
        program: Any = torch.onnx.export(
            _wrap_for_logits(model, batch),
            kwargs=dict(batch),
            dynamic_shapes={name: dict(enumerate(dynamic_axes(modality))) for name in batch},
            input_names=list(batch),
            output_names=["logits"],
            dynamo=True,
            verbose=False,
        )
        program.save(str(path), external_data=False)
    except torch.onnx.errors.OnnxExporterError as error:
        reason = _first_line(error)
        raise GraphError(f"torch cannot write {type(model).__name__} as ONNX. {reason}") from error


def write_program(
    model: PreTrainedModel,
    modality: Modality,
    batch: Mapping[str, torch.Tensor],
    path: Path,
    metadata: Mapping[str, str],
) -> None:
    """Write a model as a ``torch.export`` program with dynamic batch size and number of tokens.

    Args:
        model: Model on the CPU, in float32 and in eval mode.
        modality: Kind of input.
        batch: Model inputs of two examples.
        path: Path of the program file.
        metadata: Metadata from ``describe``, which is stored in the file.

    Raises:
        GraphError: If torch cannot export the architecture.
    """
    axes = dict.fromkeys(range(len(dynamic_axes(modality))), torch.export.Dim.DYNAMIC)
    shapes = dict.fromkeys(batch, axes)
    logits = _wrap_for_logits(model, batch)
    try:
        program = torch.export.export(logits, (), dict(batch), dynamic_shapes=shapes, strict=False)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise GraphError(f"torch.export cannot write {type(model).__name__}. {_first_line(error)}") from error
    torch.export.save(program, path, extra_files={_METADATA_FILE: json.dumps(dict(metadata))})


def write_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Store metadata in an ONNX file; a separate file with weights is not changed.

    Args:
        path: ONNX file, which is rewritten.
        metadata: Metadata from ``export_metadata``.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, str(path))


def load_onnx_classifier(
    folder: str | Path, *, batch_size: int = 64, trust_remote_code: bool = False
) -> Classifier:
    """Load an exported ONNX model with onnxruntime on the CPU.

    Args:
        folder: Folder that ``export`` wrote with the format ``onnx``.
        batch_size: Examples per forward pass.
        trust_remote_code: Whether code of the processor in the folder may run.

    Returns:
        Classifier for ``predict``, ``evaluate_model`` and ``iter_logits``.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    path = str(Path(folder) / ONNX_FILE)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [model_input.name for model_input in session.get_inputs()]

    def forward(batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        return session.run(["logits"], {name: batch[name].numpy() for name in names})[0]

    metadata = session.get_modelmeta().custom_metadata_map
    return load_exported_classifier(Path(folder), metadata, forward, batch_size, trust_remote_code)


def load_program_classifier(
    folder: str | Path, *, batch_size: int = 64, trust_remote_code: bool = False, trust_program: bool = False
) -> Classifier:
    """Load an exported ``torch.export`` program.

    Loading unpickles the file, so it can run code.

    Args:
        folder: Folder that ``export`` wrote with the format ``torch_export``.
        batch_size: Examples per forward pass.
        trust_remote_code: Whether code in the program file may run, and code of the processor in the folder.
        trust_program: Whether to trust the program file, because the caller wrote it; code of the processor still
            needs ``trust_remote_code``.

    Returns:
        Classifier for ``predict``, ``evaluate_model`` and ``iter_logits``.

    Raises:
        InputError: If neither ``trust_remote_code`` nor ``trust_program`` is set.
    """
    file = Path(folder) / PROGRAM_FILE
    if not (trust_remote_code or trust_program):
        # torch 2.14 loads it with weights_only=True and, if that fails, again with weights_only=False
        rule = "must be loaded with trust_remote_code=True"
        repair = (
            f"torch.export.load unpickles {PROGRAM_FILE}, which can run any code. ONNX files contain no code."
        )
        raise InputError(Problem(str(file), rule, repair=repair))
    extra_files = {_METADATA_FILE: ""}
    program = torch.export.load(file, extra_files=extra_files)
    module: Any = program.module()

    def forward(batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        with torch.no_grad():
            return module(**batch).numpy()

    metadata = json.loads(extra_files[_METADATA_FILE])
    return load_exported_classifier(Path(folder), metadata, forward, batch_size, trust_remote_code)


def _wrap_for_logits(model: PreTrainedModel, names: Iterable[str]) -> nn.Module:
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False  # the transformers pipeline does not use a cache either
    return _Logits(model, names).eval()


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

"""A classifier as a graph that runs without transformers: an ONNX file, or a program of ``torch.export``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.predictor import Classifier, Task
from hf_finetune.publishing.exported_pipeline import METADATA, exported_classifier

__all__ = [
    "ONNX_FILE",
    "PROGRAM_FILE",
    "GraphError",
    "onnx_classifier",
    "program_classifier",
    "write_metadata",
    "write_onnx",
    "write_program",
]

ONNX_FILE, PROGRAM_FILE = "model.onnx", "model.pt2"

_METADATA_FILE = "hf_finetune.json"


class GraphError(RuntimeError):
    """A model whose architecture torch cannot turn into a graph."""


class _ImageLogits(nn.Module):
    """The logits alone, of one input by name."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixel_values).logits


class _TextLogits(nn.Module):
    """The logits alone, of the inputs that the tokenizer gives."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
        }
        return self.model(**{name: value for name, value in given.items() if value is not None}).logits


def write_onnx(model: PreTrainedModel, task: Task, batch: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a model as an ONNX file that takes any number of examples, and texts of any length.

    Args:
        model: On the CPU, in float32 and in eval mode.
        task: What it classifies.
        batch: Inputs of two examples.
        path: The file. Weights of more than 1.5 GB go into a file beside it.

    Raises:
        GraphError: If torch cannot export the architecture.
    """
    names = list(batch)
    try:
        program: Any = torch.onnx.export(
            _logits_alone(model, task),
            kwargs=dict(batch),
            dynamic_shapes=_named_axes(task, names),
            input_names=names,
            output_names=["logits"],
            dynamo=True,
            verbose=False,
        )
        program.save(str(path), external_data=False)
    except torch.onnx.errors.OnnxExporterError as error:
        raise GraphError(
            f"torch cannot write {type(model).__name__} as ONNX. {_first_line(error)}"
        ) from error


def write_program(
    model: PreTrainedModel,
    task: Task,
    batch: Mapping[str, torch.Tensor],
    path: Path,
    metadata: Mapping[str, str],
) -> None:
    """Write a model as a program of ``torch.export``; arguments and errors as those of ``write_onnx``.

    Args:
        model: On the CPU, in float32 and in eval mode.
        task: What it classifies.
        batch: Inputs of two examples.
        path: The file.
        metadata: What ``describe`` gives; it is kept in the file.
    """
    shapes = {
        name: dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
        for name, axes in _named_axes(task, list(batch)).items()
    }
    try:
        program = torch.export.export(
            _logits_alone(model, task), (), dict(batch), dynamic_shapes=shapes, strict=False
        )
    except (RuntimeError, ValueError, AssertionError) as error:
        raise GraphError(f"torch.export cannot write {type(model).__name__}. {_first_line(error)}") from error
    torch.export.save(program, path, extra_files={_METADATA_FILE: json.dumps(dict(metadata))})


def write_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Put texts into an ONNX file, by name; weights that lie beside it are not touched."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.save(model, str(path))


def onnx_classifier(
    folder: str | Path, *, batch_size: int = 64, trust_remote_code: bool = False
) -> Classifier:
    """Load an exported folder for onnxruntime on the CPU.

    Args:
        folder: What ``export`` wrote with the format onnx.
        batch_size: Examples per forward pass.
        trust_remote_code: Whether code of a processor beside the model may run.

    Returns:
        A classifier that ``predict``, ``evaluate_model`` and ``compute_logits`` take as any other.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    path = str(Path(folder) / ONNX_FILE)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def forward(batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        return session.run(["logits"], {name: batch[name].numpy() for name in names})[0]

    metadata = session.get_modelmeta().custom_metadata_map
    return exported_classifier(Path(folder), metadata, forward, batch_size, trust_remote_code)


def program_classifier(
    folder: str | Path,
    *,
    batch_size: int = 64,
    trust_remote_code: bool = False,
    trust_program: bool = False,
) -> Classifier:
    """Load an exported folder for ``torch.export``, which unpickles its file.

    Args:
        folder: What ``export`` wrote with the format torch_export.
        batch_size: Examples per forward pass.
        trust_remote_code: Whether what the file holds may run, and code of a processor beside it.
        trust_program: Whether the caller wrote the file itself; then only the processor needs the permission.

    Raises:
        InputError: If nobody has allowed the file to run.
    """
    file = Path(folder) / PROGRAM_FILE
    if not (trust_remote_code or trust_program):
        # torch 2.14 reads it with weights_only=True, and again with False where that fails
        rule = "must be trusted before it is loaded, with trust_remote_code=True"
        repair = f"torch.export.load unpickles {PROGRAM_FILE}, which can run any code. ONNX files run none."
        raise InputError(Problem(str(file), rule, repair=repair))
    kept = {_METADATA_FILE: ""}
    program = torch.export.load(file, extra_files=kept)
    module: Any = program.module()

    def forward(batch: Mapping[str, torch.Tensor]) -> np.ndarray:
        with torch.no_grad():
            return module(**batch).numpy()

    metadata = json.loads(kept[_METADATA_FILE])
    described = {name: metadata[name] for name in METADATA}
    return exported_classifier(Path(folder), described, forward, batch_size, trust_remote_code)


def _logits_alone(model: PreTrainedModel, task: Task) -> nn.Module:
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False  # the pipeline asks for none either
    wrapper = _ImageLogits if task == "image-classification" else _TextLogits
    return wrapper(model).eval()


def _named_axes(task: Task, names: list[str]) -> dict[str, dict[int, str]]:
    axes = {0: "batch"} if task == "image-classification" else {0: "batch", 1: "tokens"}
    return {name: dict(axes) for name in names}


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

"""File of measured step times, by machine and model, from which later runs choose an execution mode."""

import hashlib
import json
import logging
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from hf_finetune.files import atomic_file, read_json_object
from hf_finetune.performance.execution_modes import ExecutionMode

__all__ = ["Measurement", "load_measurement", "save_measurement", "speed_key"]

logger = logging.getLogger(__name__)

FORMAT = 1  # version of the file format; a change of it invalidates all measurements


@dataclass(frozen=True)
class Measurement:
    """Measurement of the execution modes of a stage.

    Attributes:
        seconds: Seconds per step of each mode that agrees with fp32, by title.
        left_out: Reason why each other mode was left out, by title.
        examples: Number of examples in the measured batch.
        spent: Seconds that the measurement took.
        steady: Whether equal steps took about the same time; on a busy machine they do not.
        date: Date of the measurement, in ISO format.
    """

    seconds: dict[str, float]
    left_out: dict[str, str]
    examples: int
    spent: float
    steady: bool
    date: str


def speed_key(
    model: nn.Module,
    batch: Mapping[str, torch.Tensor],
    trainable: Collection[str],
    candidates: Sequence[ExecutionMode],
    forward_only: bool,
) -> str:
    """Return the key of a measurement: a hash (32 hex digits) of everything that the speed depends on."""
    config: Any = getattr(model, "config", None)
    fields = config.to_dict() if config is not None else {}
    labels = ("id2label", "label2id", "_name_or_path")
    content = {
        "format": FORMAT,
        "device": _device_name(batch["labels"].device),
        "torch": torch.__version__,
        "model": type(model).__name__,
        "config": {name: str(value) for name, value in fields.items() if name not in labels},
        "weights": [[name, list(weight.shape)] for name, weight in model.named_parameters()],
        "batch": {name: [list(value.shape), str(value.dtype)] for name, value in batch.items()},
        "trained": sorted(trainable),
        "forward_only": forward_only,
        "ways": [mode.title for mode in candidates],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    cpu_lines = sorted({line for line in lines if line.startswith(("model", "flags", "cpu family"))})
    return f"{processor} {cpu_lines} {torch.get_num_threads()} threads"


def load_measurement(notes_file: Path | None, key: str, reference: ExecutionMode) -> Measurement | None:
    """Return a saved measurement; None if there is none, or it cannot be read."""
    if notes_file is None:
        return None
    try:
        measurement = Measurement(**read_json_object(notes_file)[key])
        numbers = [measurement.examples, measurement.spent, measurement.seconds[reference.title]]
        is_valid = min(*numbers, *measurement.seconds.values()) > 0 and isinstance(measurement.left_out, dict)
    except (AttributeError, KeyError, TypeError):
        return None
    return measurement if is_valid else None


def save_measurement(notes_file: Path, key: str, measurement: Measurement) -> None:
    """Add a measurement to the file; if it cannot be written, only log that."""
    try:
        notes_file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{notes_file}.lock"):
            notes = {**read_json_object(notes_file), key: asdict(measurement)}
            with atomic_file(notes_file) as partial:
                partial.write_text(json.dumps(notes, indent=1), encoding="utf-8")
    except OSError as error:
        logger.info("The measurements cannot be saved: %s.", error)

"""What was measured of the speed of a machine, remembered for the next run."""

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

from hf_finetune.files import replacing
from hf_finetune.performance.execution_modes import ExecutionMode

__all__ = ["Measured", "load_measurement", "save_measurement", "speed_key"]

logger = logging.getLogger(__name__)

FORMAT = 1  # a change of it makes all be measured anew


@dataclass(frozen=True)
class Measured:
    """What was measured, and is remembered.

    Attributes:
        seconds: Of a step in each way that computes the same as fp32, by title.
        left_out: Why each other way is not among them, by title.
        examples: Of the batch that was measured.
        spent: Seconds that all of it took.
        steady: Whether equal steps took about as long; on a busy machine they do not.
        date: When.
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
    """Name what is measured by all that its speed depends on."""
    config: Any = getattr(model, "config", None)
    fields = config.to_dict() if config is not None else {}
    labels = ("id2label", "label2id", "_name_or_path")
    said = {
        "format": FORMAT,
        "device": _device_name(batch["labels"].device),
        "torch": torch.__version__,
        "model": type(model).__name__,
        "config": {name: str(value) for name, value in fields.items() if name not in labels},
        "weights": [[name, list(weight.shape)] for name, weight in model.named_parameters()],
        "batch": {name: [list(value.shape), str(value.dtype)] for name, value in batch.items()},
        "trained": sorted(trainable),
        "forward_only": forward_only,
        "ways": [way.title for way in candidates],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    named = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    said = sorted({line for line in lines if line.startswith(("model", "flags", "cpu family"))})
    return f"{named} {said} {torch.get_num_threads()} threads"


def load_measurement(notes_file: Path | None, key: str, reference: ExecutionMode) -> Measured | None:
    """Give what was measured; None if it was not, or if it cannot be read."""
    if notes_file is None:
        return None
    try:
        found = Measured(**_read(notes_file)[key])
        numbers = [found.examples, found.spent, found.seconds[reference.title]]
        whole = min(*numbers, *found.seconds.values()) > 0 and isinstance(found.left_out, dict)
    except (AttributeError, KeyError, TypeError):
        return None
    return found if whole else None


def save_measurement(notes_file: Path, key: str, found: Measured) -> None:
    """Add what was measured to the file."""
    try:
        notes_file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{notes_file}.lock"):
            notes = {**_read(notes_file), key: asdict(found)}
            with replacing(notes_file) as partial:
                partial.write_text(json.dumps(notes, indent=1), encoding="utf-8")
    except OSError as error:
        logger.info("What was measured cannot be remembered: %s.", error)


def _read(notes_file: Path) -> dict[str, Any]:
    """Read what is remembered; a file that is missing or damaged holds nothing."""
    try:
        notes = json.loads(notes_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}

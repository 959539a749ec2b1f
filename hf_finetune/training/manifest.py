"""The manifest: how far a run is, and of what it was made."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from hf_finetune.errors import InputError, Problem
from hf_finetune.files import replacing

__all__ = ["Manifest", "StageRecord", "determinism", "library_versions", "read_manifest", "write_json"]

LIBRARIES = ("hf-finetune", "torch", "transformers", "datasets", "accelerate", "timm", "peft", "scikit-learn")
State = Literal["pending", "running", "done"]


@dataclass(frozen=True)
class StageRecord:
    """One stage of a run.

    Attributes:
        name: The stage's name.
        state: How far it is.
        seconds: Time spent on it so far, over all resumes.
        result: What ``metrics.json`` says of it, once it is done.
    """

    name: str
    state: State = "pending"
    seconds: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """A run.

    Attributes:
        state: ``done`` once the model is saved and evaluated.
        stages: Its stages in order.
        fingerprints: SHA-256 of the recipe, the data, its classes, the checkpoint and its architecture.
        versions: Version of each library.
        seed: The run's seed.
        determinism: From ``determinism``; empty in runs of before there was such an entry.
        recipe: The recipe, every default written out.
        processes: Number of processes that the run began on: it says how many examples a step sees.
        pretraining: State, seconds and result of what is trained before the first stage; empty where nothing is, or
            it has not begun.
        changes: What was changed while the run was interrupted, where, in order.
        format: Version of this file's layout.
    """

    stages: tuple[StageRecord, ...]
    fingerprints: dict[str, str]
    versions: dict[str, str]
    seed: int
    determinism: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    processes: int = 1
    pretraining: dict[str, Any] = field(default_factory=dict)
    changes: tuple[dict[str, Any], ...] = ()
    state: State = "running"
    format: int = 1

    def with_stage(self, index: int, **changes: Any) -> "Manifest":
        """Give a manifest in which one stage has changed."""
        stages = list(self.stages)
        stages[index] = replace(stages[index], **changes)
        return replace(self, stages=tuple(stages))

    def write(self, path: Path) -> None:
        """Write it as JSON; the file is whole at any moment."""
        write_json(path, asdict(self))


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        InputError: If there is none, or it is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stages = tuple(StageRecord(**stage) for stage in content.pop("stages"))
        changes = tuple(content.pop("changes"))
        return Manifest(stages=stages, changes=changes, **content)
    except FileNotFoundError as error:
        repair = "Begin the run without --resume."
        raise InputError(
            Problem(str(path), "must be the manifest of a run", "no such file", repair)
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(Problem(str(path), "must be the manifest of a run", "a damaged file")) from error


def library_versions() -> dict[str, str]:
    """List the versions that a result depends on."""
    return {name: version(name) for name in LIBRARIES}


def determinism(
    device: str,
    processor: str,
    threads: int,
    precision: str = "fp32",
    compiled: bool = False,
    processes: int = 1,
    measured: Sequence[str] = (),
) -> dict[str, Any]:
    """Say whether the same run gives the same weights again, bit for bit, and if not, what stands in the way.

    Args:
        device: Type of the device: ``cpu``, ``cuda``, ...
        processor: Kind of the CPU, by its vector instructions: it decides in which order sums are formed.
        threads: Number of threads of a process, which decides it too.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        compiled: Whether torch.compile is used.
        processes: Number of processes that train together.
        measured: What is chosen by measuring, which may turn out otherwise another time.
    Returns:
        ``bit_for_bit``, ``provided`` (what must be the same) and ``obstacles`` (what cannot be promised).
    """
    obstacles = []
    if device != "cpu":
        obstacles.append(f"{device} kernels may add numbers in another order each time")
    if precision != "fp32":
        obstacles.append(
            f"{precision} autocast leaves the choice of kernels, and so the rounding, to the library"
        )
    obstacles += [f"{one} is chosen by measuring" for one in measured]
    if compiled:
        obstacles.append("torch.compile may choose other kernels each time, by measuring")
    if processes > 1:
        obstacles.append(f"{processes} processes may add their gradients in another order each time")
    provided = {"versions": "as listed", "processes": processes}
    if device == "cpu":
        provided |= {"processor": processor, "threads": threads}
    return {"bit_for_bit": not obstacles, "provided": provided, "obstacles": obstacles}


def write_json(path: Path, content: Any) -> None:
    """Write JSON that is whole or not there."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

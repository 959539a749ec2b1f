"""Manifest of a run: the progress of its stages, and the inputs and versions that it depends on."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from hf_finetune.errors import InputError, Problem
from hf_finetune.files import atomic_file

__all__ = ["Manifest", "StageRecord", "determinism", "library_versions", "read_manifest", "write_json"]

LIBRARIES = ("hf-finetune", "torch", "transformers", "datasets", "accelerate", "timm", "peft", "scikit-learn")
State = Literal["pending", "running", "done"]


@dataclass(frozen=True)
class StageRecord:
    """Progress of one stage of a run.

    Attributes:
        name: Name of the stage.
        state: ``pending``, ``running`` or ``done``.
        seconds: Time spent on the stage so far (seconds), over all resumes.
        result: Entry of the stage in ``metrics.json``; empty until it is done.
    """

    name: str
    state: State = "pending"
    seconds: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """Manifest of a run.

    Attributes:
        state: ``done`` once the model is saved and evaluated.
        stages: Stages in order.
        fingerprints: SHA-256 of the recipe, the data, its classes, the checkpoint and its architecture.
        versions: Library versions by name.
        seed: Seed of the run.
        determinism: Reproducibility conditions, see the function ``determinism``; empty in manifests of older versions.
        recipe: Recipe with all defaults written out.
        processes: Number of processes at the start of the run; it determines the number of examples per step.
        pretraining: State, seconds and result of the pretraining before the first stage; empty if there is none or it
            has not started.
        changes: Changes of recipe, data and checkpoint accepted at resumes, with stage and step, in order.
        format: Version of the file format.
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
        """Return a copy of the manifest with fields of one stage replaced.

        Args:
            index: Index of the stage.
            changes: New values of fields of its ``StageRecord``.
        """
        stages = list(self.stages)
        stages[index] = replace(stages[index], **changes)
        return replace(self, stages=tuple(stages))

    def with_obstacle(self, reason: str) -> "Manifest":
        """Return a copy of the manifest with another reason why a repeated run may end differently.

        Args:
            reason: Reason, a clause.
        """
        obstacles = [*self.determinism.get("obstacles", ()), reason]
        return replace(self, determinism={**self.determinism, "bit_for_bit": False, "obstacles": obstacles})

    def write(self, path: Path) -> None:
        """Write the manifest as JSON, atomically.

        Args:
            path: File to write.
        """
        write_json(path, asdict(self))


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Args:
        path: File that ``Manifest.write`` wrote.

    Returns:
        The manifest.

    Raises:
        InputError: If the file does not exist or is damaged.
    """
    rule = "must be the manifest of a run"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stages = tuple(StageRecord(**stage) for stage in content.pop("stages"))
        changes = tuple(content.pop("changes"))
        return Manifest(stages=stages, changes=changes, **content)
    except FileNotFoundError as error:
        repair = "Start the run without --resume."
        raise InputError(Problem(str(path), rule, "no such file", repair)) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(Problem(str(path), rule, "a damaged file")) from error


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that a result depends on."""
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
    """Return whether repeating a run reproduces its weights bit for bit, and if not, the reasons.

    Args:
        device: Type of the device: ``cpu``, ``cuda``, ...
        processor: Kind of the CPU, by its vector instructions; the order of summation depends on it.
        threads: Number of threads per process; the order of summation depends on it too.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        compiled: Whether torch.compile is used.
        processes: Number of processes that train together.
        measured: Choices made by a benchmark, which may differ in another run.

    Returns:
        ``bit_for_bit``, ``provided`` (conditions that must be the same) and ``obstacles`` (reasons against it).
    """
    obstacles = []
    if device != "cpu":
        obstacles.append(f"{device} kernels may sum numbers in a different order each time")
    if precision != "fp32":
        obstacles.append(f"with {precision} autocast the library chooses the kernels, and so the rounding")
    obstacles += [f"{choice} is chosen by a benchmark" for choice in measured]
    if compiled:
        obstacles.append("torch.compile may choose different kernels each time, by a benchmark")
    if processes > 1:
        obstacles.append(f"{processes} processes may sum their gradients in a different order each time")
    provided = {"versions": "as listed", "processes": processes}
    if device == "cpu":
        provided |= {"processor": processor, "threads": threads}
    return {"bit_for_bit": not obstacles, "provided": provided, "obstacles": obstacles}


def write_json(path: Path, content: Any) -> None:
    """Write JSON to a file, atomically.

    Args:
        path: File to write.
        content: Mappings, lists and plain values, without nan and infinity.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

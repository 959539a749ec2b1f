"""The manifest: how far a run is, and of what it was made."""

import json
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from hf_finetune.errors import InputError, Problem
from hf_finetune.files import replacing

__all__ = ["Manifest", "StageRecord", "library_versions", "read_manifest", "write_json"]

LIBRARIES = ("hf-finetune", "torch", "transformers", "datasets", "accelerate", "timm", "scikit-learn")
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
        recipe: The recipe, every default written out.
        processes: Number of processes that the run began on: it says how many examples a step sees.
        changes: What was changed while the run was interrupted, where, in order.
        format: Version of this file's layout.
    """

    stages: tuple[StageRecord, ...]
    fingerprints: dict[str, str]
    versions: dict[str, str]
    seed: int
    recipe: dict[str, Any] = field(default_factory=dict)
    processes: int = 1
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


def write_json(path: Path, content: Any) -> None:
    """Write JSON that is whole or not there."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

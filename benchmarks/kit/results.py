"""Results as JSON: one row per run, so that finished runs are not repeated."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inputs import ROOT

__all__ = ["Cost", "Effect", "Results", "digest", "pack", "read_results", "unpack", "write_results"]


@dataclass(frozen=True)
class Effect:
    """Result of one run.

    Attributes:
        group: Name in ``benchmarks.kit.groups.GROUPS``.
        setting: Name of the setting.
        seed: Seed of data and run.
        digest: Digest of the recipe and of how the data is drawn; a row with another digest is out of date.
        value: The group's metric on the test split.
        right: Correctly predicted test examples, see ``pack``.
        weights: Weight of each test example, with mean 1; empty if all are equal.
        examples: Number of test examples.
    """

    group: str
    setting: str
    seed: int
    digest: str
    value: float
    right: str
    weights: tuple[float, ...]
    examples: int


@dataclass(frozen=True)
class Cost:
    """Cost of one run. Only rows of one machine are compared.

    Attributes:
        group: Name in ``benchmarks.kit.groups.GROUPS``.
        setting: Name of the setting.
        seed: Seed of data and run.
        digest: Same as that of the effect.
        machine: Number of cores and of parallel runs, in words.
        seconds: Duration of the whole run, without importing libraries.
        peak_bytes: Peak resident memory; None if the system does not provide it.
    """

    group: str
    setting: str
    seed: int
    digest: str
    machine: str
    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Results:
    """All rows.

    Attributes:
        effects: Row of each setting and seed.
        costs: Row of each setting and seed that was timed.
    """

    effects: tuple[Effect, ...] = ()
    costs: tuple[Cost, ...] = ()

    def having(self, effect: Effect, cost: Cost) -> "Results":
        """Return all rows with those of a run added, which replace earlier ones of the same setting and seed."""
        run = (effect.group, effect.setting, effect.seed)
        effects = [row for row in self.effects if (row.group, row.setting, row.seed) != run]
        costs = [row for row in self.costs if (row.group, row.setting, row.seed) != run]
        return Results((*effects, effect), (*costs, cost))


def digest(recipe: dict[str, Any]) -> str:
    """Return a short hash of a recipe's content, independent of the location of the checkout."""
    text = json.dumps(recipe, sort_keys=True).replace(str(ROOT), "")
    return sha256(text.encode()).hexdigest()[:12]


def pack(right: np.ndarray) -> str:
    """Encode correct examples [examples] as hexadecimal digits, four examples each."""
    return np.packbits(right.astype(bool)).tobytes().hex()


def unpack(text: str, examples: int) -> np.ndarray:
    """Decode the result of ``pack`` as 0.0 and 1.0 [examples]."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))
    return bits[:examples].astype(float)


def read_results(path: Path) -> Results:
    """Read all rows; none if there is no file."""
    if not path.is_file():
        return Results()
    content = json.loads(path.read_text(encoding="utf-8"))
    effects = [Effect(**{**row, "weights": tuple(row["weights"])}) for row in content["effects"]]
    return Results(tuple(effects), tuple(Cost(**row) for row in content["costs"]))


def write_results(results: Results, path: Path) -> None:
    """Write all rows, one per line."""

    def lines(rows: Sequence[Effect | Cost]) -> str:
        return ",\n".join(json.dumps(asdict(row)) for row in rows)

    text = f'{{"effects": [\n{lines(results.effects)}\n],\n"costs": [\n{lines(results.costs)}\n]}}\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")

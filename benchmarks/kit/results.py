"""What was measured, as JSON: one row for each run, so that what is there need not be run again."""

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
    """What came of one run.

    Attributes:
        group: Of ``benchmarks.kit.groups.GROUPS``.
        setting: Its name.
        seed: Of data and run.
        digest: Of the recipe and of how the data is cut; a row of others is out of date.
        value: The group's metric on the test split.
        right: Which test examples the run had right, see ``pack``.
        weights: What each of them counts, as a share; empty if all count alike.
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
    """What one run took. Only rows of one machine are compared.

    Attributes:
        group: Of ``benchmarks.kit.groups.GROUPS``.
        setting: Its name.
        seed: Of data and run.
        digest: As that of the effect.
        machine: Words for the cores that it had, and for what ran beside it.
        seconds: For the whole run, without importing libraries.
        peak_bytes: Most resident memory; None where the system does not say.
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
        effects: One for each setting and seed.
        costs: One for each setting and seed that was timed.
    """

    effects: tuple[Effect, ...] = ()
    costs: tuple[Cost, ...] = ()

    def having(self, effect: Effect, cost: Cost) -> "Results":
        """Give all rows with those of one more run, instead of an earlier one of the same setting and seed."""
        run = (effect.group, effect.setting, effect.seed)
        effects = [row for row in self.effects if (row.group, row.setting, row.seed) != run]
        costs = [row for row in self.costs if (row.group, row.setting, row.seed) != run]
        return Results((*effects, effect), (*costs, cost))


def digest(recipe: dict[str, Any]) -> str:
    """Give a short name of a recipe's content, the same wherever the checkout lies."""
    text = json.dumps(recipe, sort_keys=True).replace(str(ROOT), "")
    return sha256(text.encode()).hexdigest()[:12]


def pack(right: np.ndarray) -> str:
    """Write which examples are right [examples] in hexadecimal digits, four examples each."""
    return np.packbits(right.astype(bool)).tobytes().hex()


def unpack(text: str, examples: int) -> np.ndarray:
    """Read what ``pack`` wrote, as 0.0 and 1.0 [examples]."""
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
    """Write all rows, a line each."""

    def lines(rows: Sequence[Effect | Cost]) -> str:
        return ",\n".join(json.dumps(asdict(row)) for row in rows)

    text = f'{{"effects": [\n{lines(results.effects)}\n],\n"costs": [\n{lines(results.costs)}\n]}}\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")

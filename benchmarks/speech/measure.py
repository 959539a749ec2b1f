"""Train the shipped recipe of speech recognition on dialogues of a game, and compare it with the checkpoint."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.child import run_child
from benchmarks.inputs import ROOT
from benchmarks.settings import runs_of_settings
from benchmarks.speech.fillets import divide, make

__all__ = ["RECIPE", "SETTINGS", "Row", "measured"]

RECIPE = "speech/transcripts-csv"
SETTINGS: Mapping[str, Sequence[str]] = {"Dutch, whisper-base, cross-attention": ("data.language=nl",)}
"""Overrides of the shipped recipe."""


@dataclass(frozen=True)
class Row:
    """Result of one run.

    Attributes:
        setting: Name in ``SETTINGS``.
        seed: Seed of the division into splits, and of the order of the examples.
        utterances: Number of test recordings.
        levels: Number of levels of the game that they come from.
        test: Error rates of the model.
        intervals: 95 % confidence interval of each, by levels.
        untrained: Error rates of the checkpoint before training, with its full window.
        differences: Difference of the model's from these, with interval and verdict.
        validation: Word error rate on the validation split before (``start``) and after training (``end``).
        sentences: Number of test recordings, and word error rate, of sentences that also occur in training, and of
            new ones; empty if all are new.
        seconds: Duration of the whole run, without importing libraries.
    """

    setting: str
    seed: int
    utterances: int
    levels: int
    test: Mapping[str, float]
    intervals: Mapping[str, Any]
    untrained: Mapping[str, float]
    differences: Mapping[str, Any]
    validation: Mapping[str, float]
    sentences: Mapping[str, Any]
    seconds: float


def measured(names: Sequence[str], seeds: int, lanes: int, known: Iterable[Row]) -> Iterator[Row]:
    """Run settings with every seed, except known rows; see ``runs_of_settings``."""
    return runs_of_settings(_alone, names, seeds, lanes, known)


def _alone(setting: str, seed: int, cores: list[int]) -> Row:
    overrides = [
        f"model.path={ROOT / 'assets' / 'whisper-base'}",
        f"data.path={divide(make('nl'), seed)}",
        "data.split={group: level}",
        f"seed={seed}",
        *SETTINGS[setting],
    ]
    work = {"recipe": RECIPE, "overrides": overrides, "cores": cores}
    return Row(setting=setting, seed=seed, **run_child("speech_run", work, threads=len(cores)))

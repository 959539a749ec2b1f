"""Predict the set of items of each request, with several checkpoints and stages."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.child import run_child
from benchmarks.inputs import MINILM, MPNET
from benchmarks.orders.cookbook import make
from benchmarks.settings import runs_of_settings

__all__ = ["METRICS", "SETTINGS", "TOP_K", "Row", "measured"]

RECIPE = "text/orders-csv"
TOP_K = 8
METRICS = (f"ndcg_at_{TOP_K}", f"precision_at_{TOP_K}", f"recall_at_{TOP_K}", "jaccard")
SETTINGS: Mapping[str, Sequence[str]] = {
    "all-MiniLM-L6-v2, as the recipe": (f"model.path={MINILM}",),
    "all-MiniLM-L6-v2, only the head": (f"model.path={MINILM}", "strategy=features", "stages=null"),
    "all-mpnet-base-v2, upper two thirds of the layers": (
        f"model.path={MPNET}",
        "stages.0.train=[head, 'layers[5:]']",
        "stages.0.lr={head: 5e-3, backbone: 1e-4}",
    ),
}
"""Overrides of the shipped recipe."""


@dataclass(frozen=True)
class Row:
    """Result of one run.

    Attributes:
        setting: Name in ``SETTINGS``.
        seed: Seed of the division and of all other randomness.
        values: Each metric of each test example, in the order of their ids, by the name of the model or the baseline.
        seconds: Duration of the whole run, without importing libraries.
    """

    setting: str
    seed: int
    values: Mapping[str, Mapping[str, Sequence[float]]]
    seconds: float


def measured(names: Sequence[str], seeds: int, lanes: int, known: Iterable[Row]) -> Iterator[Row]:
    """Run settings with every seed, except known rows; see ``runs_of_settings``."""
    return runs_of_settings(_alone, names, seeds, lanes, known)


def _alone(setting: str, seed: int, cores: list[int]) -> Row:
    overrides = [
        f"data.path={make(seed)}",
        "data.columns={text: request, label: {name: items, separator: ';'}}",
        f"metrics=[{', '.join(METRICS)}]",
        f"evaluation.top_k={TOP_K}",
        f"seed={seed}",
        *SETTINGS[setting],
    ]
    work = {"recipe": RECIPE, "overrides": overrides, "metrics": METRICS, "top_k": TOP_K, "cores": cores}
    found = run_child("ranked_run", work, threads=len(cores))
    return Row(setting=setting, seed=seed, values=found["values"], seconds=round(found["seconds"], 1))

"""The page on MovieLens 100K: ``docs/movielens.md``."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from benchmarks.items.measure import DATE, SETTINGS, Row
from benchmarks.kit.compare import signed
from benchmarks.seeds import OF_SEEDS, over_seeds, verdict_of_seeds

__all__ = ["render"]

HEAD = """# MovieLens: results of the recipe for recommendation

Which film does a user rate next? The 100,000 ratings of 943 users for 1,682 films of MovieLens 100K (Harper & Konstan
2015), as the package recbole carries them; how a film was rated is not used. Its terms allow research, and neither
commercial use nor redistribution, so `python -m benchmarks.items measure` takes the ratings from the package, runs all
experiments and writes this page. The recipe [items/next-film](../recipes/items/next-film.yaml) trains a small BERT on
the histories, from random weights; no checkpoint for these films exists.
[benchmarks/results/items.json](../benchmarks/results/items.json) has the raw data.

All metrics rank the whole catalogue, without the films that a user has rated before; ties share the middle of their
ranks ([definitions](recommendation.md#metrics)). Mean over {seeds}. *difference*: HR@10 of BERT minus that of
the line, on the same users (bootstrap over them),
{of_seeds}. Learning rate and
number of epochs were chosen on the validation split of the division by date; all recommenders choose their settings on
the validation split of the division that they are tested on.

Half of the ratings have the same second as the one before, since users rate pages of films: the order of a history is
partly that of the rows.
"""
TITLES = {
    "majority": "most frequent labels",
    "popularity": "popularity",
    "markov_chain": "Markov chain",
    "item_knn": "nearest items (kNN)",
    "ease": "linear model of items (EASE)",
}
METRICS = ("hit_rate_at_10", "ndcg_at_10", "mrr")
FOOT = """## Choices

On the validation split of the division by date, 200 epochs with a learning rate of 3e-3 reached an MRR of 0.084, with
1e-3 one of 0.072 (30 November 2026, seed 0). `data.augment.next_only: 0.1` in place of 0.5 made no difference to the
validation loss in the first 48 epochs (6.35 and 6.34). The size of the model, dropout and the length of histories were
not varied.

The test of *leave one out* was looked at twice: with 100 epochs BERT's HR@10 was 0.148, and then the model was trained
for 200 epochs, as by date. The validation split of that division also prefers 200 epochs (MRR 0.089, with 100 epochs
0.082).
"""
DIVISIONS = {
    "by date": (
        f"Division by date: trained on what was rated before {DATE}, tested on the last film of each user with a "
        "rating from then on. {examples} test users; {new} of their last films are in no training history "
        "and count as misses."
    ),
    "leave one out": (
        "Leave one out: the last film of each user, whatever its date, so that training contains the future of other "
        "users. {examples} test users, {new} new films. This division is in wide use and flatters every "
        "method."
    ),
}


def render(rows: Sequence[Row]) -> str:
    """Return the page of the measured rows."""
    if not rows:
        return ""
    seeds = len({row.seed for row in rows})
    parts = [HEAD.format(seeds=f"{seeds} seed{'s' if seeds > 1 else ''}", of_seeds=OF_SEEDS)]
    for setting in SETTINGS:
        of = sorted((row for row in rows if row.setting == setting), key=lambda row: row.seed)
        if of:
            parts.append(_section(setting, of))
    return "\n".join([*parts, FOOT])


def _section(setting: str, rows: Sequence[Row]) -> str:
    """Return the table of a division of the data."""
    first = rows[0]
    title = DIVISIONS[setting].format(examples=f"{first.examples:,}", new=f"{first.new:,}")
    name, _, text = title.partition(": ")
    lines = [
        f"## {name}\n",
        f"{text[:1].upper()}{text[1:]}\n",
        "| recommender | HR@10 | NDCG@10 | MRR | difference | interval |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for baseline, words in TITLES.items():
        tested = [row.differences[baseline]["hit_rate_at_10"] for row in rows]
        lines.append(_line(words, [row.baselines[baseline] for row in rows], tested))
    low, high = first.interval["hit_rate_at_10"]
    lines.append(_line("**BERT, 2 layers, hidden size 64**", [row.test for row in rows]))
    spread = ""
    if len(rows) > 1:
        spread = (
            f" (standard deviation over the seeds {stdev(row.test['hit_rate_at_10'] for row in rows):.4f})"
        )
    lines.append(
        f"\nThe 95 % interval of BERT's HR@10 is {low:.3f} to {high:.3f} with seed 0{spread}. {_verdict(rows)}\n"
    )
    return "\n".join(lines)


def _line(
    title: str, metrics: Sequence[Mapping[str, float]], tested: Sequence[Mapping[str, Any]] = ()
) -> str:
    cells = [title, *(f"{mean(values[name] for values in metrics):.3f}" for name in METRICS)]
    if not tested:
        return f"| {' | '.join([*cells, '', ''])} |"
    difference, low, high = over_seeds(tested)
    return f"| {' | '.join([*cells, signed(difference), f'{signed(low)} to {signed(high)}'])} |"


def _verdict(rows: Sequence[Row]) -> str:
    """Return a sentence on the recommenders that BERT is, and is not, shown to be better than."""
    tested = {
        title: [row.differences[baseline]["hit_rate_at_10"] for row in rows]
        for baseline, title in TITLES.items()
    }
    return f"It is {verdict_of_seeds(tested)}."

"""The page of all options: ``docs/kit.md``."""

from collections.abc import Mapping, Sequence
from itertools import islice
from statistics import mean, median

from benchmarks.kit.compare import BETTER, UNSEEN, WORSE, Comparison, compare, signed
from benchmarks.kit.groups import GROUPS
from benchmarks.kit.proofs import proofs_table
from benchmarks.kit.results import Cost, Effect, Results

__all__ = ["render"]

HEAD = """# What each option is worth

Options of a recipe, with and without them, on real data and real checkpoints: EfficientNet-lite0 on the drawn dishes
(test styles do not occur in training), MiniLM on film reviews. The first row of a table is what the others are compared
with; everything else is the same, but for what the name of a row says. Nothing was tuned, except that the rate of the
cosine head is the better of two on another seed, and that the weights of coral and dann were set by how large a part of
the loss they are. So another recipe may gain more, or less.

- *mean* is that of the metric on the test split over the seeds; *difference* is from the first row, with its 95 %
  interval: seeds and test examples are drawn anew, 2,000 times, the same for both settings.
- *better* and *worse* say that the interval is on one side of 0. *no difference seen* means what it says: with so few
  examples a small one stays unseen. Of many comparisons some are on one side by chance.
- *time* is that of a whole run from reading the data to the report, *memory* the most resident memory of its process,
  each as a multiple of the first row's. Each run begins with an empty cache. Of several seeds the median of the times
  counts, and the mean of the memories. How far apart runs of equal cost come out is seen at the schedules, which cost
  nothing.

Made by `python -m benchmarks.kit measure`; the rows are in
[benchmarks/results/kit.json](../benchmarks/results/kit.json).
"""
PROOFS = """## Where each option comes from

And the tests that hold it to that: one that compares its numbers with some worked out by hand or by the source, one of
runs that are interrupted and resumed bit for bit, and one of two processes.
"""
COLUMNS = ("setting", "mean", "difference", "95 % interval", "", "time", "memory")


def render(results: Results) -> str:
    """Write the page from what was measured; groups that are not measured to the end are left out."""
    whole = {name: rows for name in GROUPS if (rows := _whole(results, name))}
    compared = {name: _compared(name, rows) for name, rows in whole.items()}
    parts, title = [HEAD, _in_short(compared)], ""
    for name, rows in whole.items():
        group, seeds = GROUPS[name], {row.seed for row in rows}
        if group.title != title:
            title = group.title
            parts.append(f"## {title}\n")
        first = next(iter(group.settings))
        costs = _comparable([cost for cost in results.costs if cost.group == name], first)
        metric = group.metric.replace("_", " ")
        parts.append(f"{group.on}: {metric}, {_seeds(len(seeds))}.".capitalize() + f"{_timed(costs)}\n")
        parts.append(_table(compared[name], costs))
    parts += [PROOFS, proofs_table()]
    return "\n".join(parts)


def _whole(results: Results, name: str) -> list[Effect]:
    """Give the rows of a group; none if a setting was not run with every seed."""
    rows = [row for row in results.effects if row.group == name]
    seeds = {row.seed for row in rows}
    return rows if len(rows) == len(seeds) * len(GROUPS[name].settings) else []


def _compared(name: str, rows: Sequence[Effect]) -> dict[str, Comparison]:
    """Compare every setting of a group with its first one."""
    of = {setting: [row for row in rows if row.setting == setting] for setting in GROUPS[name].settings}
    first = next(iter(of.values()))
    return {setting: compare(found, first) for setting, found in of.items()}


def _in_short(whole: Mapping[str, Mapping[str, Comparison]]) -> str:
    """List what is better than without it, what is worse, and how many are neither.

    Args:
        whole: The comparisons of each group by setting, the first setting first.
    """
    found: dict[str, list[str]] = {BETTER: [], WORSE: [], UNSEEN: []}
    for name, settings in whole.items():
        for setting, compared in islice(settings.items(), 1, None):
            words = f"`{setting}` ({name.rpartition('-')[2]}, {signed(compared.difference)})"
            found[compared.verdict].append(words)
    lines = [f"- *{verdict}*: {', '.join(found[verdict]) or 'none'}." for verdict in (BETTER, WORSE)]
    count = sum(map(len, found.values()))
    return "\n".join(["## In short\n", *lines, f"- *{UNSEEN}*: the other {len(found[UNSEEN])} of {count}.\n"])


def _table(compared: Mapping[str, Comparison], costs: Sequence[Cost]) -> str:
    first = next(iter(compared))
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---:|---:|---:|---|---:|---:|"]
    for setting, found in compared.items():
        time, memory = _costs(setting, first, costs)
        apart: tuple[str, ...] = ("", "", "")
        if setting != first:
            low, high = found.interval
            apart = (signed(found.difference), f"{signed(low)} to {signed(high)}", found.verdict)
        lines.append(f"| {' | '.join((f'`{setting}`', f'{found.mean:.3f}', *apart, time, memory))} |")
    return "\n".join(lines) + "\n"


def _comparable(costs: Sequence[Cost], first: str) -> list[Cost]:
    """Keep the costs that the first setting has too: of the machine on which it was measured last, and its seeds."""
    base = [cost for cost in costs if cost.setting == first]
    there = {(cost.machine, cost.seed) for cost in base if cost.machine == base[-1].machine}
    return [cost for cost in costs if (cost.machine, cost.seed) in there]


def _timed(costs: Sequence[Cost]) -> str:
    seeds = len({cost.seed for cost in costs})
    return f" Time and memory of {_seeds(seeds)}, on {costs[0].machine}." if costs else ""


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"


def _costs(setting: str, first: str, costs: Sequence[Cost]) -> tuple[str, str]:
    mine = [cost for cost in costs if cost.setting == setting]
    seeds = {cost.seed for cost in mine}
    base = [cost for cost in costs if cost.setting == first and cost.seed in seeds]
    if not mine or not base:
        return "", ""
    if setting == first:
        seconds = median(cost.seconds for cost in mine)
        peaks = [cost.peak_bytes for cost in mine if cost.peak_bytes is not None]
        return f"{seconds:.1f} s", f"{mean(peaks) / 2**20:,.0f} MiB" if peaks else ""
    time = median(cost.seconds for cost in mine) / median(cost.seconds for cost in base)
    peaks = [cost.peak_bytes for cost in mine if cost.peak_bytes is not None]
    others = [cost.peak_bytes for cost in base if cost.peak_bytes is not None]
    return f"{time:.2f}", f"{mean(peaks) / mean(others):.2f}" if peaks and others else ""

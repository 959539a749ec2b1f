"""``RESULTS.md``, from the raw numbers in ``results/*.json``. Pure functions but for ``render_folder``."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import (
    final_accuracy,
    later_epoch,
    mean_of,
    median_of,
    median_ratio,
    paired,
    time_to_reach,
)
from benchmarks.suite import BENCHMARKS

__all__ = ["render", "render_folder"]

Rounds = Sequence[Mapping[str, Any]]
# What a column shows of a contender's rounds beside those of the first of its group; None leaves the cell empty.
Cell = Callable[[Rounds, Rounds], str | None]

HEADING = """\
# Results of the benchmarks

Made by `python -m benchmarks`; [README.md](README.md) says how each figure comes about. Times are medians over the
rounds. A ratio is the median over rounds of the first contender's time divided by this one's of the same round: above 1
is faster than the first. The raw numbers are in `results/`.
"""


def render_folder(folder: Path) -> str:
    """Render what is in a folder of results, in the order of the benchmarks.

    Args:
        folder: With ``NAME.json`` of each benchmark that was run.
    """
    paths = [folder / f"{name}.json" for name in BENCHMARKS]
    return render([json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()])


def render(contents: Sequence[Mapping[str, Any]]) -> str:
    """Write the page.

    Args:
        contents: The content of ``results/NAME.json`` of each benchmark.
    """
    return "\n".join([HEADING, *(_benchmark(content) for content in contents)])


def _benchmark(content: Mapping[str, Any]) -> str:
    parts = [f"## {content['title']}", content["about"]]
    for group in content["groups"]:
        columns = COLUMNS if content["compares_accuracy"] else COLUMNS.keys() - ABOUT_ACCURACY
        parts += [f"**{group['title']}**", _table(group["contenders"], columns)]
        parts += [
            f"- {each['name']}: left out, {each['left_out']}."
            for each in group["contenders"]
            if "left_out" in each
        ]
        parts += [
            f"- {each['name']}: failed. {each['failed']}" for each in group["contenders"] if "failed" in each
        ]
    counts = _counts([each for group in content["groups"] for each in group["contenders"]])
    parts.append(f"{content['date']}, {counts}: `{content['command']}`  \n{_machine(content['machine'])}")
    return "\n\n".join(parts) + "\n"


def _counts(contenders: Sequence[Mapping[str, Any]]) -> str:
    """Say how many rounds were made, which may differ among contenders, and with how many seeds."""
    rounds = sorted({len(each["rounds"]) for each in contenders if each["rounds"]})
    seeds = {one["seed"] for each in contenders for one in each["rounds"]}
    span = " to ".join(str(end) for end in sorted({*rounds[:1], *rounds[-1:]})) or "0"
    return f"rounds: {span}, seeds: {len(seeds)}"


def _table(contenders: Sequence[Mapping[str, Any]], allowed: Collection[str]) -> str:
    """Make a table of the columns for which any contender has a value."""
    base = contenders[0]["rounds"]
    shown = [each for each in contenders if each["rounds"]]
    if not shown:
        return "Nothing was measured."
    columns = {title: [cell(base, each["rounds"]) for each in shown] for title, cell in COLUMNS.items()}
    columns = {title: cells for title, cells in columns.items() if any(cells) and title in allowed}
    rows = [["", *columns], ["---", *("---:" for _ in columns)]]
    for index, each in enumerate(shown):
        name = f"{each['name']} ({each['about']})" if each["about"] else each["name"]
        rows.append([name, *(cells[index] or "" for cells in columns.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _machine(machine: Mapping[str, Any]) -> str:
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB"
    gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['cpu']}, {machine['cores']} cores, {memory}{gpu}; {versions}."


def _median(key: str, unit: float, form: str) -> Cell:
    def cell(base: Rounds, rounds: Rounds) -> str | None:
        value = median_of([each.get(key) for each in rounds])
        return None if value is None else form.format(value * unit)

    return cell


def _ratio(key: str, digits: int = 2, *, inverse: bool = False) -> Cell:
    def cell(base: Rounds, rounds: Rounds) -> str | None:
        value = median_ratio(rounds, base, key) if inverse else median_ratio(base, rounds, key)
        return None if value is None else f"{value:.{digits}f}"

    return cell


def _per_epoch(base: Rounds, rounds: Rounds) -> str | None:
    values = [each["seconds"] / len(each["evaluations"]) for each in rounds if each.get("evaluations")]
    return f"{median_of(values):.2f}" if values else None


def _later_epochs(base: Rounds, rounds: Rounds) -> str | None:
    value = median_of([later_epoch(each) for each in rounds])
    return None if value is None else f"{value:.2f}"


def _later_ratio(base: Rounds, rounds: Rounds) -> str | None:
    pairs = [(later_epoch(one), later_epoch(other)) for one, other in paired(base, rounds)]
    value = median_of([one / other for one, other in pairs if one and other])
    return None if value is None else f"{value:.2f}"


def _accuracy(base: Rounds, rounds: Rounds) -> str | None:
    seeds = {each["seed"]: final_accuracy(each.get("evaluations", [])) for each in rounds}
    found = [value for value in seeds.values() if value is not None]
    if not found:
        return None
    each = f" ({', '.join(f'{value:.3f}' for value in found)})" if len(found) > 1 else ""
    return f"{mean_of(found):.3f}{each}"


def _reaches(base: Rounds, rounds: Rounds) -> str | None:
    """Seconds until the final accuracy that the first contender has in the same round, and their share of its time."""
    pairs = [(one, other) for one, other in paired(base, rounds) if one.get("evaluations")]
    found = []
    for one, other in pairs:
        target = final_accuracy(one["evaluations"])
        seconds = time_to_reach(other["evaluations"], target) if target is not None else None
        if seconds is not None:
            found.append((seconds, seconds / one["seconds"]))
    if not pairs:
        return None
    if not found:
        return "never"
    seconds, share = median_of([each[0] for each in found]), median_of([each[1] for each in found])
    missed = f"; {len(found)} of {len(pairs)} rounds" if len(found) < len(pairs) else ""
    return f"{seconds:.1f} s ({share:.2f} of its time{missed})"


def _above_the_first(base: Rounds, rounds: Rounds) -> str | None:
    if not any("cached" in each for each in rounds):
        return None
    before, after = (median_of([each.get("peak_bytes") for each in some]) for some in (base, rounds))
    return None if before is None or after is None else f"{(after - before) / 2**20:.0f}"


def _share(base: Rounds, rounds: Rounds) -> str | None:
    value = median_of([each["flops"] / each["matrix_flops"] for each in rounds if each.get("flops")])
    return None if value is None else f"{100 * value:.1f} %"


ACCURACY = "accuracy"
REACHES = "reaches the first one's final accuracy"
ABOUT_ACCURACY = {ACCURACY, REACHES}


def _to_forward_pass(base: Rounds, rounds: Rounds) -> str | None:
    ratios = [each["seconds"] / each["forward_seconds"] for each in rounds if each.get("forward_seconds")]
    return f"{median_of(ratios):.2f}" if ratios else None


def _ratio_of_contenders(base: Rounds, rounds: Rounds) -> str | None:
    """Return the ratio to the first contender's time, where that does the same work."""
    return None if any("forward_seconds" in each for each in rounds) else _ratio("seconds")(base, rounds)


COLUMNS: dict[str, Cell] = {
    "seconds": _median("seconds", 1, "{:.1f}"),
    "forward pass, seconds": _median("forward_seconds", 1, "{:.1f}"),
    "time to that of the forward pass": _to_forward_pass,
    "ratio": _ratio_of_contenders,
    "seconds per epoch": _per_epoch,
    "of those behind the first": _later_epochs,
    "ratio of these": _later_ratio,
    ACCURACY: _accuracy,
    REACHES: _reaches,
    "ms per step": _median("step_seconds", 1000, "{:.2f}"),
    "median step, ms": _median("step_median", 1000, "{:.2f}"),
    "time to that of the first": _ratio("step_seconds", 3, inverse=True),
    "µs per example": _median("example_seconds", 1e6, "{:.1f}"),
    "MiB above uncached": _above_the_first,
    "MB kept": _median("cache_bytes", 1e-6, "{:.0f}"),
    "images per second": _median("images_per_second", 1, "{:.0f}"),
    "tokens per second": _median("tokens_per_second", 1, "{:.0f}"),
    "TFLOP/s": _median("flops", 1e-12, "{:.1f}"),
    "share of the matrix rate": _share,
    "GPU peak GiB": _median("gpu_peak_bytes", 2**-30, "{:.1f}"),
    "peak MiB": _median("peak_bytes", 2**-20, "{:.0f}"),
    "loading, seconds": _median("loading_seconds", 1, "{:.1f}"),
}

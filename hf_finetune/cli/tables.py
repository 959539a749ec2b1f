"""Tables that the command line prints: metrics, comparisons, cache entries and publications."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from hf_finetune.cache.cache_dir import CacheEntry
    from hf_finetune.evaluation.compare import Comparison
    from hf_finetune.evaluation.intervals import Interval
    from hf_finetune.publishing.export import ExportResult
    from hf_finetune.publishing.hub import PublicationPlan

_SPLIT_TITLES = {"train": "training"}

__all__ = [
    "group_phrase",
    "print_cache_entries",
    "print_comparisons",
    "print_export",
    "print_metrics",
    "print_overlap",
    "print_publication",
    "print_slices",
]


def print_metrics(
    console: Console,
    metrics: Mapping[str, float],
    intervals: "Mapping[str, Interval | None]",
    caption: str,
    notes: Sequence[str] = (),
) -> None:
    """Print one metric per line, with its 95 % interval if there is one, then a caption and notes.

    Args:
        console: Console to print to.
        metrics: Value of each metric; nan if it is undefined.
        intervals: 95 % interval of some metrics; None if it is undefined.
        caption: Line after the table.
        notes: Further lines.
    """
    table = Table(box=None, show_header=False)
    for name, value in metrics.items():
        ends = intervals.get(name)
        text = "undefined" if math.isnan(value) else f"{value:.4f}"
        table.add_row(name, text, f"{ends[0]:.4f} to {ends[1]:.4f} (95 %)" if ends else "")
    console.print(table)
    console.print(caption, markup=False)
    for note in notes:
        console.print(note, markup=False)


def group_phrase(groups: int | None, column: str | None) -> str:
    """Return a phrase on the groups that the bootstrap resampled; empty if there are none.

    Args:
        groups: Number of groups; None if examples were resampled one by one.
        column: Column that defines the groups.
    """
    if groups is None:
        return ""
    from hf_finetune.evaluation.intervals import MIN_RELIABLE_GROUPS

    few = "; intervals from so few groups are unreliable" if groups < MIN_RELIABLE_GROUPS else ""
    return f" in {groups:,} groups of {column}, resampled as whole groups{few}"


def print_overlap(console: Console, overlap: "Mapping[str, int] | None", examples: int) -> None:
    """Print how many of the examples were in the training or validation split of the run; nothing if unknown.

    Args:
        console: Console to print to.
        overlap: Number of the examples that are in each split of the run; None if that is unknown.
        examples: Number of examples.
    """
    if overlap is None:
        return
    counts = {_SPLIT_TITLES.get(name, name): count for name, count in overlap.items() if count}
    if not any(overlap.get(name) for name in ("train", "validation")):
        console.print("None of the examples was in the training or validation split.", markup=False)
        return
    first = next(iter(counts))
    parts = [
        f"{count:,} of {examples:,} examples were in the {name} split"
        if name == first
        else f"{count:,} in the {name} split"
        for name, count in counts.items()
    ]
    warning = ": the metrics do not measure performance on new examples" if overlap.get("train") else ""
    console.print(f"{', '.join(parts)}{warning}.", markup=False)


def print_slices(console: Console, slices_by_column: Mapping[str, Any]) -> None:
    """Print a table of the slices of each column, the worst first, and a verdict.

    Args:
        console: Console to print to.
        slices_by_column: Results of ``evaluate_slices``; empty prints nothing.
    """
    if not slices_by_column:
        return
    from hf_finetune.report.slices import slice_tables

    for slices in slice_tables(slices_by_column):
        table = Table(box=None, title=f"\nBy {slices.column}", title_justify="left")
        for heading in ("", "examples", *slices.metrics, "95 % interval", ""):
            table.add_column(heading, justify="right" if heading else "left")
        for row in slices.rows:
            values = ["undefined" if value is None else f"{value:.4f}" for value in row["metrics"].values()]
            ends = row["intervals"][slices.metrics[0]]
            interval = f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""
            table.add_row(
                Text(row["name"]), f"{row['examples']:,}", *values, interval, ", ".join(row["notes"])
            )
        console.print(table)
        console.print(slices.verdict, markup=False)


def print_comparisons(console: Console, first: str, comparisons: "Sequence[Comparison]") -> None:
    """Print the comparison of each run with the first one: metrics, differences, intervals and verdicts.

    Args:
        console: Console to print to.
        first: Name of the first run.
        comparisons: Comparison of each further run with the first one.
    """
    for comparison in comparisons:
        grouped = group_phrase(comparison.groups, comparison.group_column)
        examples = f"{comparison.examples:,} test examples{grouped}"
        console.print(f"{comparison.run} compared with {first}, on {examples}", markup=False)
        if comparison.changed_examples:
            console.print(
                f"{comparison.changed_examples:,} of the test examples have the same name as one in the first run, but "
                "different content. If the data was reordered or renamed between the runs, they were not evaluated on "
                "the same examples.",
                markup=False,
            )
        table = Table(box=None)
        names = Path(first).name, Path(comparison.run).name
        first_name, run_name = names if names[0] != names[1] else (first, comparison.run)
        for heading in ("", first_name, run_name, "difference", "95 % interval", "p"):
            table.add_column(Text(heading), justify="left" if not heading else "right")
        for row in comparison.differences:
            ends = "-" if row.interval is None else f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}"
            p_value = "-" if row.p_value is None else _format_p_value(row.p_value)
            values = (f"{row.first:.4f}", f"{row.value:.4f}", f"{row.value - row.first:+.4f}")
            table.add_row(row.metric, *values, ends, p_value)
        console.print(table)
        verdicts = {
            "above": f"Significantly above {first_name}",
            "below": f"Significantly below {first_name}",
            "not distinguishable": f"Not distinguishable from {first_name}",
        }
        for verdict, text in verdicts.items():
            if metrics := [row.metric for row in comparison.differences if row.verdict == verdict]:
                console.print(f"{text}: {', '.join(metrics)}", markup=False)
        if comparison.mcnemar is not None:
            test = comparison.mcnemar
            split = f"{test.only_first:,} correct only in {first_name}, {test.only_this:,} only in {run_name}"
            p_value = _format_p_value(test.p_value)
            console.print(f"McNemar's test: {split}; p {p_value}\n", markup=False)


def _format_p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def print_export(console: Console, result: "ExportResult") -> None:
    """Print metrics, size, latency and largest logit difference of an exported model against its original."""
    report = result.report
    table = Table(box=None)
    for heading in ("", "before", "after"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in result.metric_names:
        values = (report["metrics"][version][name] for version in ("before", "after"))
        table.add_row(name, *("undefined" if value is None else f"{value:.4f}" for value in values))
    table.add_row("bytes", *(f"{report['bytes'][version]:,}" for version in ("before", "after")))
    table.add_row(
        "ms per example", *(f"{report['milliseconds'][version]:.2f}" for version in ("before", "after"))
    )
    console.print(table)
    same = report["same_answers"]
    agreed = "" if same is None else f"; the same prediction for {same:.1%}"
    console.print(
        f"Largest logit difference: {report['largest_difference']:.2g} of {report['largest_logit']:.3g}, "
        f"on {report['examples']:,} examples{agreed}.",
        markup=False,
    )
    console.print(f"The model, its labels and its preprocessing are in {result.folder}.", markup=False)


def print_cache_entries(console: Console, folder: Path, entries: "Sequence[CacheEntry]") -> None:
    """Print the cache entries: time of last use, size, number of examples and description; then the total size."""
    for entry in entries:
        numbers = f"{entry.bytes:>15,} bytes  {entry.examples:>9,} examples"
        console.print(f"{entry.used:%Y-%m-%d %H:%M}  {numbers}  {entry.about}", markup=False)
    console.print(f"{sum(entry.bytes for entry in entries):,} bytes in {folder}", markup=False)


def print_publication(console: Console, planned: "PublicationPlan") -> None:
    """Print the files that would be published, their repository and its visibility."""
    visibility = "private: visible only to its owners" if planned.private else "public: visible to everyone"
    repository = "an existing repository" if planned.exists else "a new repository"
    console.print(f"To {planned.endpoint}/{planned.repository}, {repository}, {visibility}", markup=False)
    if planned.revision is not None:
        console.print(f"branch {planned.revision}{'' if planned.has_branch else ' (new)'}", markup=False)
    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for upload in planned.uploads:
        change = (
            "new" if upload.name in planned.added else "changed" if upload.name in planned.changed else ""
        )
        table.add_row(upload.name, f"{upload.size:,} bytes", change or "unchanged")
    for name in planned.removed:
        table.add_row(name, "", "removed")
    console.print(table)
    if planned.skipped:
        console.print(f"Not published: {', '.join(planned.skipped)}", markup=False)
    if planned.tag is not None:
        console.print(f"tag {planned.tag}", markup=False)
    if not planned.changes_files:
        console.print(f"Nothing has changed since commit {str(planned.head)[:12]}.", markup=False)

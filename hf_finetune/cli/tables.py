"""Tables that the command line prints: plans, metrics, comparisons, cache entries and publications."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hf_finetune.errors import counted, format_seconds, listed, quoted
from hf_finetune.planning.schedules import draw_schedule
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.schedule import PolynomialSchedule, ScheduleSpec, SchedulesSpec
from hf_finetune.recipe.yaml_text import write_yaml

if TYPE_CHECKING:
    from hf_finetune.cache.cache_dir import CacheEntry
    from hf_finetune.data.prepare import LabeledData
    from hf_finetune.evaluation.compare import Comparison
    from hf_finetune.evaluation.intervals import Interval
    from hf_finetune.planning.layers import Layout
    from hf_finetune.planning.stages import StagePlan
    from hf_finetune.publishing.export import ExportResult
    from hf_finetune.publishing.hub import PublicationPlan
    from hf_finetune.recipe import CompressSpec, Recipe, StageSpec
    from hf_finetune.runs.prepared import PlanReport

ROWS_AT_AN_END = 4
"""Number of layer groups that are printed at each end of a long table."""

_SPLIT_TITLES = {"train": "training"}

__all__ = [
    "group_phrase",
    "print_cache_entries",
    "print_comparisons",
    "print_export",
    "print_metrics",
    "print_overlap",
    "print_plan",
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
        for heading in ("", "first", "this", "difference", "95 % interval", "p"):
            table.add_column(heading, justify="left" if not heading else "right")
        for row in comparison.differences:
            ends = "-" if row.interval is None else f"{row.interval[0]:+.4f} to {row.interval[1]:+.4f}"
            p_value = "-" if row.p_value is None else f"{row.p_value:.3f}"
            values = (f"{row.first:.4f}", f"{row.value:.4f}", f"{row.value - row.first:+.4f}")
            table.add_row(row.metric, *values, ends, p_value)
        console.print(table)
        for verdict in ("above", "below", "not distinguishable"):
            if names := [row.metric for row in comparison.differences if row.verdict == verdict]:
                console.print(f"{verdict.capitalize()}: {', '.join(names)}", markup=False)
        if comparison.mcnemar is not None:
            test = comparison.mcnemar
            split = f"{test.only_first:,} correct only in the first, {test.only_this:,} only in this one"
            console.print(f"McNemar's test: {split}; p {test.p_value:.3f}\n", markup=False)


def print_export(console: Console, result: "ExportResult") -> None:
    """Print metrics, size, latency and largest logit difference of an exported model against its original."""
    report = result.report
    table = Table(box=None)
    for heading in ("", "before", "after"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in result.primary_metrics:
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


def print_plan(console: Console, recipe: "Recipe", report: "PlanReport", frozen: "Sequence[str]") -> None:
    """Print the plan of each stage: trained layers, learning rates, duration, and caching of frozen layers.

    Args:
        console: Console to print to.
        recipe: Recipe as given.
        report: Plan of its stages.
        frozen: Sentence on the prefix cache of each stage, from ``describe_prefix_caches``.
    """
    layout = report.plan.layout
    groups = (
        f"{layout.backbone_groups} layer groups (numbered from the input) and the head, from {layout.source}"
    )
    console.print(f"{recipe.model.path}: {layout.size:,} parameters in {groups}:", markup=False)
    numbered = [f"{index} {name}" for index, name in enumerate(layout.groups[:-1])]
    console.print(", ".join([*numbered, layout.groups[-1]]), markup=False)
    if report.prepared is not None:
        for name, task in report.prepared.tasks.items():
            _print_data(console, task.data, name)
    if recipe.strategy is not None:
        fields = [_non_default_fields(stage) for stage in report.recipe.stages]
        console.print(f"The strategy {recipe.strategy.name} expands to these stages:\n", markup=False)
        console.print(write_yaml({"stages": fields}), markup=False)
    stages = zip(report.recipe.stages, report.plan.stages, frozen, strict=True)
    for index, (stage, planned, sentence) in enumerate(stages):
        _print_stage(console, index, stage, planned, layout)
        if sentence:
            console.print(sentence, markup=False)
        if report.seconds:
            time = format_seconds(report.seconds[index])
            console.print(
                f"estimated time: up to {time} on this machine, from a few timed steps", markup=False
            )
    if report.notes:
        console.print()
    for note in report.notes:
        console.print(note, markup=False)


def _print_stage(
    console: Console, index: int, stage: "StageSpec", planned: "StagePlan", layout: "Layout"
) -> None:
    if solver_of(stage):
        _print_closed_form_stage(console, index, stage, planned)
        return
    steps = "steps unknown" if planned.steps is None else counted(planned.steps, "step")
    epochs = "epochs unknown" if planned.epochs is None else counted(planned.epochs, "epoch")
    title = f"Stage {index + 1}, {planned.name}: train {planned.train}"
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("layers", "parameters", "lr", "weight decay"):
        table.add_column(heading, justify="left" if heading == "layers" else "right")
    for row in _group_rows(planned):
        table.add_row(*row)
    console.print()
    console.print(table)
    if stage.compress is not None:
        console.print(_compression(stage.compress), markup=False)
    for line in _rates(planned):
        console.print(line, markup=False)
    warmup = "unknown" if planned.warmup_steps is None else f"{planned.warmup_steps:,}"
    restored = f"; restores the optimizer state of {len(planned.carried)} tensors"
    balance = _balance(stage)
    regular = (
        f"; regularize: {stage.regularize.active_fields_text}" if stage.regularize.active_fields_text else ""
    )
    console.print(
        f"trains {planned.trainable_size:,} of {planned.layout.size:,} parameters; {epochs}, {steps}, "
        f"{warmup} warmup steps; {stage.optimizer.name}{restored if planned.carried else ''}"
        f"{balance}{regular}; "
        f"{len(planned.frozen_batch_norms)} of {len(layout.batch_norms)} BatchNorm layers frozen",
        markup=False,
    )


def _group_rows(planned: "StagePlan") -> list[tuple[str, str, str, str]]:
    """Return layers, parameters, learning rate and weight decay of each group; of many, the first and the last ones."""
    merged: dict[tuple[str, float], list[Any]] = {}
    for group in planned.groups:
        merged.setdefault((group.layers, group.lr), []).append(group)
    rows = []
    for (layers, rate), groups in merged.items():
        decays = dict.fromkeys(f"{group.weight_decay:g}" for group in groups)
        rows.append((layers, sum(group.size for group in groups), rate, " / ".join(decays)))
    written = [(layers, f"{size:,}", f"{rate:.3g}", decay) for layers, size, rate, decay in rows]
    left_out = rows[ROWS_AT_AN_END:-ROWS_AT_AN_END]
    if len(left_out) < 2:
        return written
    first, last = left_out[0], left_out[-1]
    size = sum(row[1] for row in left_out)
    between = (f"... {len(left_out)} more", f"{size:,}", f"{first[2]:.3g} to {last[2]:.3g}", first[3])
    return [*written[:ROWS_AT_AN_END], between, *written[-ROWS_AT_AN_END:]]


def _print_data(console: Console, data: "LabeledData", task: str) -> None:
    """Print the sizes of the splits and the classes of a task, whose name is empty in a single-task run."""
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    sizes = [f"{len(split):,} {title}" for title, split in splits.items() if split is not None]
    names = data.label_names
    classes = f"; {len(names):,} classes: {quoted(names)}" if len(names) > 1 else ""
    name = f" of {task}" if task else ""
    console.print(f"Data{name}: {listed(sizes)} examples{classes}", markup=False)


def _print_closed_form_stage(console: Console, index: int, stage: "StageSpec", planned: "StagePlan") -> None:
    console.print(f"\nStage {index + 1}, {planned.name}: fit {planned.train}", markup=False)
    if stage.compress is not None:
        console.print(_compression(stage.compress), markup=False)
    how = stage.fit.replace("_", " ")
    console.print(
        f"fits {planned.trainable_size:,} of {planned.layout.size:,} parameters by {how} on frozen features, without "
        "optimizer steps; its regularization strength is chosen by cross-validation on the training split"
        f"{_balance(stage)}",
        markup=False,
    )


def _balance(stage: "StageSpec") -> str:
    return f"; balance: {stage.balance.method}" if stage.balance.method != "none" else ""


def _compression(spec: "CompressSpec") -> str:
    if spec.method == "structured":
        return f"first removes {spec.prune:.3g} of the neurons of each feed-forward layer"
    return f"first sets {spec.prune:.3g} of the backbone's linear and convolution weights to 0 and keeps them at 0"


def _non_default_fields(stage: "StageSpec") -> dict[str, Any]:
    """Return the fields of a stage that differ from their defaults, with the shorthands of recipe files."""
    fields = stage.model_dump(mode="json", exclude_defaults=True)
    if isinstance(stage.schedule, SchedulesSpec):
        by_part = {"head": stage.schedule.head, "backbone": stage.schedule.backbone}
        fields["schedule"] = {
            part: {"name": schedule.name, **parameters}
            if (parameters := _schedule_parameters(schedule))
            else schedule.name
            for part, schedule in by_part.items()
        }
    return fields


def _schedule_parameters(schedule: ScheduleSpec) -> dict[str, Any]:
    """Return the parameters of a schedule that differ from their defaults."""
    return schedule.model_dump(mode="json", exclude_defaults=True, exclude={"name"})


def _rates(planned: "StagePlan") -> list[str]:
    """Return a line per schedule: its layer groups, and a drawing of the rate over the steps if these are known."""
    layers: dict[ScheduleSpec, list[str]] = {}
    for group in planned.groups:
        layers.setdefault(group.schedule, []).append(group.layers)
    lines = []
    for schedule, names in layers.items():
        line = f"learning rate of {' to '.join(dict.fromkeys((names[0], names[-1])))}: {_schedule(schedule)}"
        if planned.steps and planned.warmup_steps is not None:
            line += f", over the steps: {draw_schedule(schedule, planned.steps, planned.warmup_steps)}"
        lines.append(line)
    return lines


def _schedule(schedule: ScheduleSpec) -> str:
    if isinstance(schedule, PolynomialSchedule):
        return f"polynomial {schedule.power:g}"
    return ", ".join(
        [schedule.name, *(f"{name} {value}" for name, value in _schedule_parameters(schedule).items())]
    )

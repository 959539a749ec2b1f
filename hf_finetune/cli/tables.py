"""What the command line prints of plans, metrics and what is kept or sent: tables."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hf_finetune.data.formatting import format_seconds, listed, quoted
from hf_finetune.planning.schedules import draw_schedule
from hf_finetune.recipe.head_fit import fitted_by
from hf_finetune.recipe.schedule import ScheduleSpec, SchedulesSpec
from hf_finetune.recipe.yaml_text import write_yaml

if TYPE_CHECKING:
    from hf_finetune.cache.cache_dir import CacheEntry
    from hf_finetune.evaluation.compare import Comparison
    from hf_finetune.evaluation.intervals import Interval
    from hf_finetune.planning.layers import Layout
    from hf_finetune.planning.stages import StagePlan
    from hf_finetune.publishing.export import ExportResult
    from hf_finetune.publishing.hub import Publication
    from hf_finetune.recipe import CompressSpec, Recipe, StageSpec
    from hf_finetune.runs.prepare import PlanReport, Ready

ROWS_AT_AN_END = 4
"""Rows of layer groups that are printed at either end of a long table."""

_SPLITS = {"train": "training"}

__all__ = [
    "grouping",
    "print_comparisons",
    "print_export",
    "print_kept",
    "print_metrics",
    "print_plan",
    "print_publication",
    "print_seen",
    "print_slices",
]


def print_metrics(
    console: Console,
    metrics: Mapping[str, float],
    intervals: "Mapping[str, Interval | None]",
    caption: str,
    notes: Sequence[str] = (),
) -> None:
    """Print metrics one below the other, those that have an interval with it, and notes on them."""
    table = Table(box=None, show_header=False)
    for name, value in metrics.items():
        ends = intervals.get(name)
        shown = "undefined" if math.isnan(value) else f"{value:.4f}"
        table.add_row(name, shown, f"{ends[0]:.4f} to {ends[1]:.4f} (95 %)" if ends else "")
    console.print(table)
    console.print(caption, markup=False)
    for note in notes:
        console.print(note, markup=False)


def grouping(groups: int | None, column: str | None) -> str:
    """Return what is to be said of groups that were resampled; nothing if there are none."""
    if groups is None:
        return ""
    from hf_finetune.evaluation.intervals import FEW_GROUPS

    few = "; intervals of so few are not to be relied on" if groups < FEW_GROUPS else ""
    return f" in {groups:,} groups of {column}, which are resampled whole{few}"


def print_seen(console: Console, seen: "Mapping[str, int] | None", examples: int) -> None:
    """Print how many of the examples a run has trained on or chosen by; nothing if that is not known."""
    if seen is None:
        return
    counts = {_SPLITS.get(name, name): count for name, count in seen.items() if count}
    if not any(seen.get(name) for name in ("train", "validation")):
        console.print("None of the examples was in the training or validation split.", markup=False)
        return
    (first, number), *others = counts.items()
    parts = [f"{number:,} of {examples:,} examples were in the {first} split"]
    parts += [f"{count:,} in the {name} split" for name, count in others]
    learnt = ": the metrics do not tell how good the model is on new examples" if seen.get("train") else ""
    console.print(f"{', '.join(parts)}{learnt}.", markup=False)


def print_slices(console: Console, found: Mapping[str, Any]) -> None:
    """Print the slices of each column, the worst first, and a sentence on it."""
    if not found:
        return
    from hf_finetune.report.slices import slice_tables

    for each in slice_tables(found):
        table = Table(box=None, title=f"\nBy {each.column}", title_justify="left")
        for heading in ("", "examples", *each.metrics, "95 % interval", ""):
            table.add_column(heading, justify="right" if heading else "left")
        for row in each.rows:
            values = ["undefined" if value is None else f"{value:.4f}" for value in row["metrics"].values()]
            ends = row["intervals"][each.metrics[0]]
            surely = f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""
            table.add_row(Text(row["name"]), f"{row['examples']:,}", *values, surely, ", ".join(row["notes"]))
        console.print(table)
        console.print(each.verdict, markup=False)


def print_comparisons(console: Console, first: str, comparisons: "Sequence[Comparison]") -> None:
    """Print each run beside the first one: metrics, differences with their intervals, and what they mean."""
    for each in comparisons:
        grouped = grouping(each.groups, each.group_column)
        console.print(f"{each.run} beside {first}, on {each.examples:,} test examples{grouped}", markup=False)
        if each.others:
            console.print(
                f"{each.others:,} of the test examples have the name of one of the first run's, but another content. "
                "If the data was put in another order or renamed between the runs, they were not judged on the same "
                "examples.",
                markup=False,
            )
        table = Table(box=None)
        for heading in ("", "first", "this", "difference", "95 % interval", "p"):
            table.add_column(heading, justify="left" if not heading else "right")
        for found in each.differences:
            ends = "-" if found.interval is None else f"{found.interval[0]:+.4f} to {found.interval[1]:+.4f}"
            chance = "-" if found.p_value is None else f"{found.p_value:.3f}"
            values = (f"{found.first:.4f}", f"{found.value:.4f}", f"{found.value - found.first:+.4f}")
            table.add_row(found.metric, *values, ends, chance)
        console.print(table)
        for verdict in ("above", "below", "not distinguishable"):
            if names := [found.metric for found in each.differences if found.verdict == verdict]:
                console.print(f"{verdict.capitalize()}: {', '.join(names)}", markup=False)
        if each.mcnemar is not None:
            split = f"{each.mcnemar.only_first:,} right in the first only, {each.mcnemar.only_this:,} in this one only"
            console.print(f"McNemar's test: {split}; p {each.mcnemar.p_value:.3f}\n", markup=False)


def print_export(console: Console, result: "ExportResult") -> None:
    """Print what an exported model says and costs beside the model that it was made from."""
    report = result.report
    table = Table(box=None)
    for heading in ("", "before", "after"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in result.headline:
        values = (report["metrics"][when][name] for when in ("before", "after"))
        table.add_row(name, *("undefined" if value is None else f"{value:.4f}" for value in values))
    table.add_row("bytes", *(f"{report['bytes'][when]:,}" for when in ("before", "after")))
    table.add_row(
        "ms for one example", *(f"{report['milliseconds'][when]:.2f}" for when in ("before", "after"))
    )
    console.print(table)
    same = report["same_answers"]
    agreed = "" if same is None else f"; the same answer for {same:.1%}"
    console.print(
        f"Largest difference of a logit: {report['largest_difference']:.2g} of {report['largest_logit']:.3g}, "
        f"on {report['examples']:,} examples{agreed}.",
        markup=False,
    )
    console.print(f"The model, its labels and its preprocessing are in {result.folder}.", markup=False)


def print_kept(console: Console, folder: Path, kept: "Sequence[CacheEntry]") -> None:
    """Print what is kept in the cache folder: when it was last used, its bytes, its examples, what it is of."""
    for each in kept:
        line = (
            f"{each.used:%Y-%m-%d %H:%M}  {each.bytes:>15,} bytes  {each.examples:>9,} examples  {each.about}"
        )
        console.print(line, markup=False)
    console.print(f"{sum(each.bytes for each in kept):,} bytes in {folder}", markup=False)


def print_publication(console: Console, planned: "Publication") -> None:
    """Print what would be published, where, and who would see it."""
    who = "private: only its owners see it" if planned.private else "public: everybody sees it"
    there = "a repository that is there" if planned.exists else "a new repository"
    console.print(f"To {planned.endpoint}/{planned.repository}, {there}, {who}", markup=False)
    if planned.revision is not None:
        console.print(f"branch {planned.revision}{'' if planned.has_branch else ' (new)'}", markup=False)
    table = Table(box=None, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for upload in planned.uploads:
        new = "new" if upload.name in planned.added else "changed" if upload.name in planned.changed else ""
        table.add_row(upload.name, f"{upload.size:,} bytes", new or "as it is there")
    for name in planned.removed:
        table.add_row(name, "", "removed there")
    console.print(table)
    if planned.left:
        console.print(f"Not published: {', '.join(planned.left)}", markup=False)
    if planned.tag is not None:
        console.print(f"tag {planned.tag}", markup=False)
    if not planned.changes_files:
        console.print(f"Nothing has changed since commit {str(planned.head)[:12]}.", markup=False)


def print_plan(console: Console, recipe: "Recipe", report: "PlanReport", frozen: "Sequence[str]") -> None:
    """Print a table per stage: what is trained, at which rates, for how long, and what of the rest is computed once."""
    layout = report.plan.layout
    groups = f"{layout.backbone_groups} layer groups and the head, from {layout.source}"
    console.print(f"{recipe.model.path}: {layout.size:,} parameters in {groups}:", markup=False)
    numbered = [f"{index} {name}" for index, name in enumerate(layout.groups[:-1])]
    console.print(", ".join([*numbered, layout.groups[-1]]), markup=False)
    if report.ready is not None:
        _print_data(console, report.ready)
    if recipe.strategy is not None:
        written = [_written(stage) for stage in report.recipe.stages]
        console.print(f"The strategy {recipe.strategy.name} writes these stages:\n", markup=False)
        console.print(write_yaml({"stages": written}), markup=False)
    stages = zip(report.recipe.stages, report.plan.stages, frozen, strict=True)
    for index, (stage, planned, sentence) in enumerate(stages):
        _print_stage(console, index, stage, planned, layout)
        if sentence:
            console.print(sentence, markup=False)
        if report.seconds:
            most = format_seconds(report.seconds[index])
            console.print(f"takes at most about {most} here, measured on a few steps", markup=False)
    if report.notes:
        console.print()
    for note in report.notes:
        console.print(note, markup=False)


def _print_stage(
    console: Console, index: int, stage: "StageSpec", planned: "StagePlan", layout: "Layout"
) -> None:
    if fitted_by(stage):
        _print_fitted(console, index, stage, planned)
        return
    steps = "unknown steps" if planned.steps is None else _several(planned.steps, "step")
    epochs = "unknown epochs" if planned.epochs is None else _several(planned.epochs, "epoch")
    table = Table(
        title=f"Stage {index + 1}, {planned.name}: train {planned.train}", title_justify="left", box=None
    )
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
    carried = f"; carries on with the optimizer's state of {len(planned.carried)} tensors"
    balance = _balance(stage)
    regular = f"; regularize: {stage.regularize.words}" if stage.regularize.words else ""
    console.print(
        f"trains {planned.trainable_size:,} of {planned.layout.size:,} parameters; {epochs}, {steps}, "
        f"{warmup} of warmup; {stage.optimizer.name}{carried if planned.carried else ''}"
        f"{balance}{regular}; "
        f"frozen BatchNorm: {len(planned.frozen_batch_norms)} of {len(layout.batch_norms)}",
        markup=False,
    )


def _group_rows(planned: "StagePlan") -> list[tuple[str, str, str, str]]:
    """Return layers, parameters, rate and weight decay of each layer group; of many groups, those at the ends."""
    merged: dict[tuple[str, float], list[Any]] = {}
    for group in planned.groups:
        merged.setdefault((group.layers, group.lr), []).append(group)
    rows = [
        (
            layers,
            sum(group.size for group in groups),
            rate,
            " / ".join(dict.fromkeys(f"{group.weight_decay:g}" for group in groups)),
        )
        for (layers, rate), groups in merged.items()
    ]
    written = [(layers, f"{size:,}", f"{rate:.3g}", decay) for layers, size, rate, decay in rows]
    left_out = rows[ROWS_AT_AN_END:-ROWS_AT_AN_END]
    if len(left_out) < 2:
        return written
    first, last = left_out[0], left_out[-1]
    size = sum(row[1] for row in left_out)
    between = (f"... {len(left_out)} more", f"{size:,}", f"{first[2]:.3g} to {last[2]:.3g}", first[3])
    return [*written[:ROWS_AT_AN_END], between, *written[-ROWS_AT_AN_END:]]


def _print_data(console: Console, ready: "Ready", name: str = "") -> None:
    """Print the sizes of the splits and the classes; of several tasks, each by itself."""
    if ready.parts:
        for task, part in ready.parts.items():
            _print_data(console, part, f" of {task}")
        return
    data = ready.data
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    sizes = [f"{len(split):,} {title}" for title, split in splits.items() if split is not None]
    names = data.label_names
    classes = f"; {len(names):,} classes: {quoted(names)}" if len(names) > 1 else ""
    console.print(f"Data{name}: {listed(sizes)} examples{classes}", markup=False)


def _print_fitted(console: Console, index: int, stage: "StageSpec", planned: "StagePlan") -> None:
    console.print(f"\nStage {index + 1}, {planned.name}: fit {planned.train}", markup=False)
    if stage.compress is not None:
        console.print(_compression(stage.compress), markup=False)
    how = stage.fit.replace("_", " ")
    console.print(
        f"finds {planned.trainable_size:,} of {planned.layout.size:,} parameters by {how} on what the frozen layers "
        f"give, without steps; its strength is chosen by cross-validation on the training split{_balance(stage)}",
        markup=False,
    )


def _balance(stage: "StageSpec") -> str:
    return f"; balance: {stage.balance.method}" if stage.balance.method != "none" else ""


def _compression(spec: "CompressSpec") -> str:
    if spec.method == "structured":
        return f"first takes {spec.prune:.3g} of the neurons of each feed-forward layer"
    return f"first sets {spec.prune:.3g} of the backbone's linear and convolution weights to 0, and keeps them there"


def _several(number: float, word: str) -> str:
    return f"{number:,.15g} {word}" if number == 1 else f"{number:,.15g} {word}s"


def _written(stage: "StageSpec") -> dict[str, Any]:
    """Give what differs from the defaults of a stage, as short as a recipe may say it."""
    fields = stage.model_dump(mode="json", exclude_defaults=True)
    if isinstance(stage.schedule, SchedulesSpec):
        by_part = {"head": stage.schedule.head, "backbone": stage.schedule.backbone}
        fields["schedule"] = {
            part: {"name": one.name, **given} if (given := _given(one)) else one.name
            for part, one in by_part.items()
        }
    return fields


def _given(schedule: ScheduleSpec) -> dict[str, Any]:
    """Give the parameters of a schedule that are not its defaults."""
    return schedule.model_dump(mode="json", exclude_defaults=True, exclude={"name"})


def _rates(planned: "StagePlan") -> list[str]:
    """Draw the rate over the steps, as far as these are known: a line for all groups of one schedule."""
    layers: dict[ScheduleSpec, list[str]] = {}
    for group in planned.groups:
        layers.setdefault(group.schedule or ScheduleSpec(), []).append(group.layers)
    drawn = dict.fromkeys(layers, "")
    if planned.steps is not None and planned.warmup_steps is not None:
        drawn = {each: draw_schedule(each, planned.steps, planned.warmup_steps) for each in layers}
    ends = {schedule: dict.fromkeys((names[0], names[-1])) for schedule, names in layers.items()}
    return [
        f"rate of {' to '.join(ends[schedule])}: {' '.join(filter(None, [drawn[schedule], _schedule(schedule)]))}"
        for schedule in layers
    ]


def _schedule(schedule: ScheduleSpec) -> str:
    if schedule.name == "polynomial":
        return f"polynomial {schedule.power:g}"
    return ", ".join([schedule.name, *(f"{name} {value}" for name, value in _given(schedule).items())])

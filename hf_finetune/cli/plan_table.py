"""Tables of the plan of a recipe."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from hf_finetune.errors import counted, format_seconds, join_quoted, join_words
from hf_finetune.planning.schedules import draw_schedule
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.schedule import PolynomialSchedule, ScheduleSpec, SchedulesSpec
from hf_finetune.recipe.yaml_text import write_yaml
from hf_finetune.targets import TARGETS

if TYPE_CHECKING:
    from hf_finetune.data.prepare import LabeledData
    from hf_finetune.planning.layers import Layout
    from hf_finetune.planning.stages import StagePlan
    from hf_finetune.recipe.compress import CompressSpec
    from hf_finetune.recipe.schema import Recipe
    from hf_finetune.recipe.stage_fields import StageSpec
    from hf_finetune.runs.prepared import PlanReport

ROWS_AT_AN_END = 4
"""Number of layer groups that are printed at each end of a long table."""

__all__ = ["print_plan"]


def print_plan(console: Console, recipe: "Recipe", report: "PlanReport", frozen: "Sequence[str]") -> None:
    """Print the plan of each stage: trained layers, learning rates, duration, and caching of frozen layers.

    Args:
        console: Console to print to.
        recipe: Recipe as given.
        report: Plan of its stages.
        frozen: Sentence on the prefix cache of each stage, from ``describe_prefix_caches``.
    """
    layout = report.plan.layout
    has_head = any(parameter.group == layout.head_group for parameter in layout.parameters)
    groups = f"{layout.backbone_group_count} layer groups (numbered from the input)"
    groups += f"{' and the head' if has_head else ''}, from {layout.source}"
    console.print(f"{recipe.model.title}: {layout.size:,} parameters in {groups}:", markup=False)
    numbered = [f"{index} {name}" for index, name in enumerate(layout.groups[:-1])]
    console.print(", ".join([*numbered, *(layout.groups[-1:] if has_head else ())]), markup=False)
    if report.prepared is not None:
        for name, task in report.prepared.tasks.items():
            _print_data(console, task.data, name)
    if recipe.strategy is not None:
        fields = [_non_default_fields(spec) for spec in report.recipe.stages]
        console.print(f"The strategy {recipe.strategy.name} expands to these stages:\n", markup=False)
        console.print(write_yaml({"stages": fields}), markup=False)
    stages = zip(report.recipe.stages, report.plan.stages, frozen, strict=True)
    for index, (spec, plan, sentence) in enumerate(stages):
        _print_stage(console, index, spec, plan, layout)
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
    console: Console, index: int, spec: "StageSpec", plan: "StagePlan", layout: "Layout"
) -> None:
    if solver_of(spec):
        _print_closed_form_stage(console, index, spec, plan)
        return
    steps = "steps unknown" if plan.steps is None else counted(plan.steps, "step")
    seeds = f"mean of the weights of {spec.seeds} trainings, each " if spec.seeds else ""
    epochs = "epochs unknown" if plan.epochs is None else counted(plan.epochs, "epoch")
    title = f"Stage {index + 1}, {plan.name}: train {plan.train}"
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("layers", "parameters", "lr", "weight decay / of norms and biases"):
        table.add_column(heading, justify="left" if heading == "layers" else "right")
    for row in _group_rows(plan):
        table.add_row(*row)
    console.print()
    console.print(table)
    if spec.compress is not None:
        console.print(_compression(spec.compress), markup=False)
    for line in _rates(plan):
        console.print(line, markup=False)
    warmup = "unknown" if plan.warmup_steps is None else f"{plan.warmup_steps:,}"
    restored = f"; restores the optimizer state of {len(plan.carried)} tensors"
    balance = _balance(spec)
    regular = (
        f"; regularize: {spec.regularize.active_fields_text}" if spec.regularize.active_fields_text else ""
    )
    batch_norms = ""
    if layout.batch_norms:
        count = f"{len(plan.frozen_batch_norms)} of {len(layout.batch_norms)}"
        batch_norms = f"; {count} BatchNorm layers frozen"
    console.print(
        f"trains {plan.trainable_size:,} of {plan.layout.size:,} parameters; {seeds}{epochs}, {steps}, "
        f"{warmup} warmup steps; {spec.optimizer.name}{restored if plan.carried else ''}"
        f"{balance}{regular}{batch_norms}",
        markup=False,
    )


def _group_rows(plan: "StagePlan") -> list[tuple[str, str, str, str]]:
    """Return layers, parameters, learning rate and weight decay of each group; of many, the first and the last ones."""
    merged: dict[tuple[str, float], list[Any]] = {}
    for group in plan.groups:
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
    has_classes = len(names) > 1 and TARGETS[data.target].has_classes
    classes = f"; {len(names):,} classes: {join_quoted(names)}" if has_classes else ""
    name = f" of {task}" if task else ""
    console.print(f"Data{name}: {join_words(sizes)} examples{classes}", markup=False)


def _print_closed_form_stage(console: Console, index: int, spec: "StageSpec", plan: "StagePlan") -> None:
    console.print(f"\nStage {index + 1}, {plan.name}: fit {plan.train}", markup=False)
    if spec.compress is not None:
        console.print(_compression(spec.compress), markup=False)
    how = spec.fit.replace("_", " ")
    console.print(
        f"fits {plan.trainable_size:,} of {plan.layout.size:,} parameters by {how} on frozen features, without "
        "optimizer steps; its regularization strength is chosen by cross-validation on the training split"
        f"{_balance(spec)}",
        markup=False,
    )


def _balance(spec: "StageSpec") -> str:
    return f"; balance: {spec.balance.method}" if spec.balance.method != "none" else ""


def _compression(spec: "CompressSpec") -> str:
    if spec.method == "structured":
        return f"first removes {spec.prune:.3g} of the neurons of each feed-forward layer"
    return f"first sets {spec.prune:.3g} of the backbone's linear and convolution weights to 0 and keeps them at 0"


def _non_default_fields(spec: "StageSpec") -> dict[str, Any]:
    """Return the fields of a stage that differ from their defaults, with the shorthands of recipe files."""
    fields = spec.model_dump(mode="json", exclude_defaults=True)
    if isinstance(spec.schedule, SchedulesSpec):
        by_part = {"head": spec.schedule.head, "backbone": spec.schedule.backbone}
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


def _rates(plan: "StagePlan") -> list[str]:
    """Return a line per schedule: its layer groups, and a drawing of the rate over the steps if these are known."""
    layers: dict[ScheduleSpec, list[str]] = {}
    for group in plan.groups:
        layers.setdefault(group.schedule, []).append(group.layers)
    lines = []
    for schedule, names in layers.items():
        line = f"learning rate of {_layer_range(names, plan.layout)}: {_schedule(schedule)}"
        if plan.steps and plan.warmup_steps is not None:
            line += f", over the steps: {draw_schedule(schedule, plan.steps, plan.warmup_steps)}"
        lines.append(line)
    return lines


def _layer_range(names: "Sequence[str]", layout: "Layout") -> str:
    """Return the layers that parameter groups span, from the input: ``blocks.0..head``; one layer as its name."""
    ends = [end for name in names for end in name.removeprefix(f"{layout.adapter} in ").split("..")]
    ends.sort(key=layout.groups.index)
    return "..".join(dict.fromkeys((ends[0], ends[-1])))


def _schedule(schedule: ScheduleSpec) -> str:
    if isinstance(schedule, PolynomialSchedule):
        return f"polynomial {schedule.power:g}"
    return ", ".join(
        [schedule.name, *(f"{name} {value}" for name, value in _schedule_parameters(schedule).items())]
    )

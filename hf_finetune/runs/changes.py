"""Changes of recipe, data and checkpoint when a run is resumed, and their effect on its stages."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hf_finetune.errors import InputError, Problem, short_repr
from hf_finetune.planning.batch_split import split_batch
from hf_finetune.planning.stages import build_plan
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.tasks import TASKS
from hf_finetune.training.checkpoints import checkpoint_step, last_checkpoint, stage_folder
from hf_finetune.training.manifest import Manifest

__all__ = [
    "Changes",
    "Position",
    "adapt_to_processes",
    "cannot_resume",
    "change_problems",
    "find_changes",
    "find_position",
    "requires_restart",
]

# Fields that may change while a stage is interrupted, anywhere and in the stage itself; a change of any other field
# restarts the stage. A changed path of data or checkpoint needs no restart: fingerprints detect changed contents.
NO_RESTART_FIELDS = (
    r"data\.(path|config|revision|columns|split|target|on_error|limit|workers)\b|"
    r"model\.(?!adapter\.alpha|head)|evaluation\.|limit\b|speed\.|domain_adaptation\.target\b"
)
NO_RESTART_STAGE_FIELDS = (
    r"lr|weight_decay|layer_decay|schedule|warmup|epochs|max_steps|clip|label_smoothing|early_stopping|"
    r"batch_size|accumulation"
)
MISSING = object()


@dataclass(frozen=True)
class Changes:
    """Differences between the manifest of a run and the inputs with which it is resumed.

    Attributes:
        recipe: Changed recipe fields by dotted path, each with the value before and after the change.
        data: Whether the data differs, that of the target domain included.
        checkpoint: Whether the checkpoint of the model or of a teacher differs.
    """

    recipe: Mapping[str, tuple[Any, Any]]
    data: bool
    checkpoint: bool

    def __bool__(self) -> bool:
        return bool(self.recipe) or self.data or self.checkpoint

    def sentence(self) -> str:
        """Return all changes as one line: ``stages.0.lr: 0.05 -> 0.02; data changed``."""
        fields = [
            f"{path}: {_format_value(before)} -> {_format_value(after)}"
            for path, (before, after) in self.recipe.items()
        ]
        inputs = {"data": self.data, "checkpoint": self.checkpoint}
        return "; ".join([*fields, *(f"{name} changed" for name, changed in inputs.items() if changed)])

    def as_json(self) -> dict[str, Any]:
        """Return the changes with JSON types only, for the manifest."""
        fields = {path: [_plain(value) for value in pair] for path, pair in self.recipe.items()}
        return {**asdict(self), "recipe": fields}


@dataclass(frozen=True)
class Position:
    """Point at which a run was interrupted.

    Attributes:
        stage: Index of the first stage that is not done; the number of stages if all are done.
        step: Optimizer step of that stage's last checkpoint; 0 if it has none.
        restarts: Whether that stage has to restart, because its checkpoint does not fit the changes.
    """

    stage: int
    step: int
    restarts: bool = False


def find_changes(manifest: Manifest, recipe: Recipe, fingerprints: Mapping[str, str]) -> Changes:
    """Return the differences between a run and the inputs with which it is resumed.

    Args:
        manifest: Manifest of the run.
        recipe: Recipe with which it is resumed.
        fingerprints: Fingerprints of ``data`` and ``checkpoint`` with which it is resumed.
    """
    fields = dict(_compare(_trained(_content(manifest)), _trained(recipe.model_dump(mode="json")), ""))
    differs = {name: manifest.fingerprints.get(name) != fingerprints[name] for name in ("data", "checkpoint")}
    return Changes(fields, **differs)


def _content(manifest: Manifest) -> Mapping[str, Any]:
    """Return the recipe of a run without unused fields, which older versions wrote; unchanged if it is invalid now."""
    try:
        return parse_recipe(manifest.recipe).model_dump(mode="json")
    except InputError:
        return manifest.recipe


def _trained(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a recipe without ``publish``, which does not affect training."""
    return {field: value for field, value in recipe.items() if field != "publish"}


def find_position(folder: Path, manifest: Manifest) -> Position:
    """Return the point at which a run was interrupted.

    Args:
        folder: Run directory.
        manifest: Manifest of the run.
    """
    for index, record in enumerate(manifest.stages):
        if record.state != "done":
            last = last_checkpoint(stage_folder(folder, index, record.name))
            return Position(index, checkpoint_step(last) if last and record.state == "running" else 0)
    return Position(len(manifest.stages), 0)


def change_problems(folder: Path, changes: Changes, possible: bool) -> list[Problem]:
    """Return the problems of resuming a run with changes that the user has not allowed.

    Args:
        folder: Run directory.
        changes: Changes of the run.
        possible: Whether the run can be resumed with the changes; if so, ``--allow-changes`` is suggested.
    """
    problems = []
    if changes.recipe:
        rule = f"has changed since the run started: {Changes(changes.recipe, False, False).sentence()}"
        allow = "add --allow-changes to accept the changes, " if possible else ""
        repair = f"Resume with {folder / 'recipe.yaml'}, {allow}or start a new run."
        problems.append(Problem("The recipe", rule, "", repair))
    repair = "Start a new run."
    if possible:
        repair = "Add --allow-changes to accept the changes, or start a new run."
    for name in ("data", "checkpoint"):
        if getattr(changes, name):
            problems.append(Problem(f"The {name}", "has changed since the run started", "", repair))
    return problems


def cannot_resume(
    manifest: Manifest, prepared: PreparedRun, fingerprints: Mapping[str, str], position: Position
) -> list[Problem]:
    """Return the problems that prevent resuming a run even if the user allows changes.

    Args:
        manifest: Manifest of the run.
        prepared: Checked run with the current inputs.
        fingerprints: Fingerprints of the current inputs.
        position: Point at which the run was interrupted.
    """
    problems = []
    requested = prepared.requested.model_dump(mode="json")
    names = [spec.name for spec in prepared.recipe.stages]
    for index, record in enumerate(manifest.stages):
        if record.state == "done" and names[index : index + 1] != [record.name]:
            value = repr(names[index]) if index < len(names) else ""
            repair = "Finished stages cannot be renamed, moved or removed; start a new run."
            rule = f"must be the finished stage {record.name!r}"
            problems.append(Problem(f"stages[{index}]", rule, value, repair))
        elif record.state == "done" and _pruning(manifest.recipe, index) != _pruning(requested, index):
            rule = "must not change in a finished stage"
            repair = "Its weights are already pruned; start a new run."
            problems.append(Problem(f"stages[{index}].compress", rule, "", repair))
    problems += _pretraining_problems(manifest, requested, fingerprints)
    trained = position.stage > 0 or position.step > 0
    if trained and manifest.fingerprints.get("classes") != fingerprints["classes"]:
        rule = "have changed since the run started"
        problems.append(Problem("The classes of the data", rule, "", "Start a new run."))
    elif (
        trained
        and prepared.requested.model.new is not None
        and manifest.fingerprints.get("data") != fingerprints["data"]
    ):
        made = TASKS[prepared.recipe.task_type].modality.made_of_data
        rule = f"cannot be trained further: {made}, which has changed"
        problems.append(Problem("model.new", rule, "", "Restore the data of the run, or start a new run."))
    elif trained and manifest.fingerprints.get("architecture") != fingerprints["architecture"]:
        rule = "must have the same architecture as at the start of the run"
        repair = "The trained weights fit only that architecture; start a new run."
        problems.append(Problem("model.path", rule, repr(prepared.recipe.model.path), repair))
    if not problems and position.step and not position.restarts and position.stage < len(names):
        steps = prepared.plan.stages[position.stage].steps or position.step
        if steps < position.step:
            field = "epochs" if prepared.recipe.stages[position.stage].epochs is not None else "max_steps"
            rule = f"must amount to at least the {position.step} steps already trained"
            problems.append(Problem(f"stages[{position.stage}].{field}", rule, f"{steps} steps"))
    return problems


def _pretraining_problems(
    manifest: Manifest, requested: Mapping[str, Any], fingerprints: Mapping[str, str]
) -> list[Problem]:
    """Return the problem if the pretraining was changed or added too late, or if its data changed before it is done."""
    spec, previous = requested.get("domain_adaptation"), _content(manifest).get("domain_adaptation")
    if manifest.pretraining and spec != previous:
        rule = "must not change after the pretraining has started"
        return [Problem("domain_adaptation", rule, "", "Start a new run.")]
    is_running = manifest.pretraining.get("state") == "running"
    if is_running and manifest.fingerprints.get("data") != fingerprints["data"]:
        rule = "must not change until the pretraining is finished"
        return [Problem("The data", rule, "", "Start a new run.")]
    has_started = any(record.state != "pending" for record in manifest.stages)
    if has_started and not manifest.pretraining and (spec or {}).get("method") == "continue_pretraining":
        rule = "must not be continue_pretraining after the first stage has started"
        return [Problem("domain_adaptation.method", rule, "", "Start a new run.")]
    return []


def _pruning(recipe: Mapping[str, Any], index: int) -> Any:
    return recipe["stages"][index].get("compress")


def requires_restart(manifest: Manifest, changes: Changes, prepared: PreparedRun, position: Position) -> bool:
    """Return whether the changes force the interrupted stage to restart.

    Args:
        manifest: Manifest of the run.
        changes: Changes of the inputs.
        prepared: Checked run with the current inputs.
        position: Point at which the run was interrupted.
    """
    if changes.data:
        return True
    if position.stage >= len(prepared.recipe.stages):
        return False
    seeds = f"stages.{position.stage}.seeds"
    if seeds in changes.recipe or prepared.recipe.stages[position.stage].seeds is not None:
        # the trainings that are done would differ from the others
        return any(not re.match(NO_RESTART_FIELDS, path) for path in changes.recipe)
    if not position.step:
        return False
    prefix, spec = f"stages.{position.stage}", prepared.recipe.stages[position.stage]
    no_restart = re.compile(
        rf"{NO_RESTART_FIELDS}|{prefix}\.({NO_RESTART_STAGE_FIELDS})\b|stages\.(?!{position.stage}\b)"
    )
    chosen_by_first = spec.best is not None and spec.best.metric is None
    for path in changes.recipe:
        if path.startswith("metrics"):
            if chosen_by_first and path in ("metrics", "metrics.0"):
                return True
        elif not no_restart.match(path):
            return True
    return not _same_groups(manifest, prepared, position)


def _same_groups(manifest: Manifest, prepared: PreparedRun, position: Position) -> bool:
    """Return whether the parameter groups of the optimizer and the number of examples per step are unchanged."""
    spec = prepared.requested.stages[position.stage]
    try:
        before = StageSpec.model_validate(manifest.recipe["stages"][position.stage])
        plan = build_plan(prepared.plan.layout, [before]).stages[0]
    except (ValidationError, InputError, KeyError, IndexError):
        return False
    groups = prepared.plan.stages[position.stage].groups
    return before.batch_size * before.accumulation == spec.batch_size * spec.accumulation and [
        group.parameters for group in plan.groups
    ] == [group.parameters for group in groups]


def adapt_to_processes(recipe: Recipe, manifest: Manifest, processes: int) -> Recipe:
    """Return the recipe with its batch sizes adapted to another number of processes.

    Each optimizer step trains on the same examples as before.

    Args:
        recipe: Recipe of the whole run.
        manifest: Manifest of the run, with the number of processes at its start.
        processes: Current number of processes.

    Raises:
        InputError: If the batches of a stage that is not done cannot be divided evenly among the processes.
    """
    if processes == manifest.processes:
        return recipe
    problems, stages = [], []
    done = {record.name for record in manifest.stages if record.state == "done"}
    for index, spec in enumerate(recipe.stages):
        split = split_batch(spec.batch_size, spec.accumulation, manifest.processes, processes)
        if split is None and spec.name not in done:
            examples = spec.batch_size * spec.accumulation * manifest.processes
            fitting = [str(number) for number in range(1, examples + 1) if examples % number == 0]
            repair = f"Resume with one of these numbers of processes: {', '.join(fitting)}."
            rule = "must have a global batch size that is divisible by the number of processes"
            value = f"{examples} examples on {processes} processes"
            problems.append(Problem(f"stages[{index}]", rule, value, repair))
        batch_size, accumulation = split or (spec.batch_size, spec.accumulation)
        stages.append(spec.model_copy(update={"batch_size": batch_size, "accumulation": accumulation}))
    if problems:
        raise InputError(problems)
    return recipe.model_copy(update={"stages": tuple(stages)})


def _compare(before: Any, now: Any, path: str) -> list[tuple[str, tuple[Any, Any]]]:
    """Return the fields that differ: dotted path, and the value before and after the change."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [*before, *(key for key in now if key not in before)]
    elif _holds_parts(before) and _holds_parts(now):
        keys = list(range(max(len(before), len(now))))
        before, now = dict(enumerate(before)), dict(enumerate(now))
    else:
        return [] if _plain(before) == _plain(now) else [(path, (before, now))]
    differences = []
    for key in keys:
        field = f"{path}.{key}".removeprefix(".")
        differences += _compare(before.get(key, MISSING), now.get(key, MISSING), field)
    return differences


def _holds_parts(value: Any) -> bool:
    return isinstance(value, Sequence) and any(isinstance(item, Mapping) for item in value)


def _plain(value: Any) -> Any:
    return None if value is MISSING else value


def _format_value(value: Any) -> str:
    if value is MISSING or value is None:
        return "null" if value is None else "(not set)"
    return repr(value["name"]) if isinstance(value, Mapping) and "name" in value else short_repr(value)

"""The checked content of a run, before anything is written: recipe, data, checkpoint config and plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedConfig

from hf_finetune.data.multi_task import MultiTask
from hf_finetune.data.prepare import LabelledData
from hf_finetune.data.unlabelled import UnlabelledData
from hf_finetune.evaluation.registry import MetricSettings
from hf_finetune.evaluation.selection_metrics import resolution_notes
from hf_finetune.planning.stages import Plan
from hf_finetune.recipe import Recipe
from hf_finetune.tasks import Inputs, Task

__all__ = ["PlanReport", "PoolingChoice", "PreparedRun", "with_input_notes"]


@dataclass(frozen=True)
class PlanReport:
    """Plan of a recipe.

    Attributes:
        recipe: Recipe with the stages expanded where it has a strategy.
        plan: Plan of the stages.
        notes: Sentences for the user.
        examples: Number of training examples; None if the data could not be read.
        config: Config of the model.
        configs: Config of the model of each of several tasks; empty for a single task.
        trust_remote_code: Whether the user allows code of the checkpoint to run.
        prepared: Checked run; None if the data could not be read.
        seconds: Estimated duration of each stage (seconds), an upper bound; empty if nothing was measured.
    """

    recipe: Recipe
    plan: Plan
    notes: tuple[str, ...]
    examples: int | None
    config: PreTrainedConfig
    configs: Mapping[str, PreTrainedConfig] = field(default_factory=dict)
    trust_remote_code: bool = False
    prepared: "PreparedRun | None" = None
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True)
class PoolingChoice:
    """Choice of the pooling of frozen texts.

    Attributes:
        losses: Cross-validated loss of each pooling.
        before: Run with the architecture's own head, whose model computed the vectors.
        key: Name of the files that hold the vectors.
    """

    losses: Mapping[str, float]
    before: "PreparedRun"
    key: str


@dataclass(frozen=True)
class PreparedRun:
    """Everything that a run needs, checked; nothing is written yet.

    Attributes:
        recipe: Recipe that each process follows, with the stages expanded.
        requested: Recipe of the whole run, with the stages expanded. It differs from ``recipe`` only in a run that is
            resumed on another number of processes, over which its batches are distributed.
        task: Task, or the combination of several.
        data: Labeled data with its splits.
        config: Config of the model.
        processor: Image processor or tokenizer.
        plan: Plan of the stages.
        primary_metrics: Names of the metrics, the leading one first.
        target: Inputs of the target domain; None without domain adaptation.
        parts: Prepared run of each of several tasks; empty for a single task.
        trust_remote_code: Whether the user allows code of checkpoints and metrics to run.
        stage_notes: Notes on the fields that the recipe leaves to the checkpoint, and on rates far from its defaults.
        processor_notes: Notes on changes of the processor that the recipe does not ask for.
        pooling: Choice of the pooling of frozen texts; None if it was not chosen.
    """

    recipe: Recipe
    requested: Recipe
    task: Task | MultiTask
    data: LabelledData
    config: PreTrainedConfig
    processor: Any
    plan: Plan
    primary_metrics: tuple[str, ...]
    target: UnlabelledData | None = None
    parts: Mapping[str, "PreparedRun"] = field(default_factory=dict)
    trust_remote_code: bool = False
    stage_notes: tuple[str, ...] = ()
    processor_notes: tuple[str, ...] = ()
    pooling: "PoolingChoice | None" = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user on the data and the stages."""
        resolution = [
            f"{task}: {note}" if task else note
            for task, part in (self.parts or {"": self}).items()
            for note in resolution_notes(self.recipe.stages, part.primary_metrics[0], part.data, task)
        ]
        target_notes = self.target.notes if self.target else ()
        return (*self.data.notes, *target_notes, *resolution, *self.processor_notes, *self.stage_notes)

    @property
    def metric_settings(self) -> MetricSettings:
        """Classes and costs, on which some metrics depend."""
        return MetricSettings(self.data.label_names, self.recipe.evaluation.costs or {})

    @property
    def pretrains(self) -> bool:
        """Whether masked inputs of the target domain train the backbone before the first stage."""
        spec = self.recipe.domain_adaptation
        return self.target is not None and spec is not None and spec.method == "continue_pretraining"

    @property
    def saves(self) -> str:
        """Form in which the run saves its model: ``merged``, ``adapter`` or ``both``."""
        return self.recipe.model.adapter.save if self.recipe.model.adapter else "merged"


def with_input_notes(prepared: PreparedRun, inputs: Inputs) -> PreparedRun:
    """Return the run with the notes on the model inputs added to the notes of its data and of each task's data."""
    if not inputs.notes:
        return prepared
    data = _with_notes(
        prepared.data, [f"{task}: {note}" if task else note for task, note in inputs.notes.items()]
    )
    parts = {
        task: replace(part, data=_with_notes(part.data, [inputs.notes[task]]))
        if task in inputs.notes
        else part
        for task, part in prepared.parts.items()
    }
    return replace(prepared, data=data, parts=parts)


def _with_notes(data: LabelledData, notes: Sequence[str]) -> LabelledData:
    return replace(data, notes=(*data.notes, *notes))

"""The checked content of a run, before anything is written: recipe, data, checkpoint config and plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datasets import Dataset
from transformers import PreTrainedConfig

from hf_finetune.data.multi_task import MultiTask
from hf_finetune.data.prepare import LabeledData
from hf_finetune.data.unlabeled import UnlabeledData
from hf_finetune.evaluation.selection_metrics import resolution_notes
from hf_finetune.planning.stages import Plan
from hf_finetune.recipe.domain import ContinuePretraining
from hf_finetune.recipe.schema import Recipe
from hf_finetune.targets import ASSUMED_TARGET
from hf_finetune.targets.decision_rule import DecisionRule
from hf_finetune.targets.metric import MetricSettings
from hf_finetune.tasks import Inputs, Task

__all__ = ["UNKNOWN_DATA", "PlanReport", "PoolingChoice", "PreparedRun", "with_input_notes"]

UNKNOWN_DATA = LabeledData(Dataset.from_dict({}), None, None, ASSUMED_TARGET, ("0", "1"), (), "")
"""Placeholder for data that cannot be read, with which a recipe is planned: two classes without examples."""


@dataclass(frozen=True)
class PlanReport:
    """Plan of a recipe.

    Attributes:
        recipe: Recipe with the stages expanded where it has a strategy.
        plan: Plan of the stages.
        notes: Sentences for the user.
        examples: Number of training examples; None if the data could not be read.
        configs: Config of the model of each task.
        trust_remote_code: Whether the user allows code of the checkpoint to run.
        prepared: Checked run; None if the data could not be read.
        seconds: Estimated duration of each stage (seconds), an upper bound; empty if nothing was measured.
    """

    recipe: Recipe
    plan: Plan
    notes: tuple[str, ...]
    examples: int | None
    configs: Mapping[str, PreTrainedConfig]
    trust_remote_code: bool = False
    prepared: "PreparedRun | None" = None
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True)
class PoolingChoice:
    """Choice of the pooling of frozen texts, or of the layer of a speech model.

    Attributes:
        losses: Cross-validated loss of each pooling or layer.
        before: Run with the architecture's own head, whose model computed the vectors.
    """

    losses: Mapping[str, float]
    before: "PreparedRun"


@dataclass(frozen=True)
class PreparedRun:
    """Everything that a run needs, checked; nothing is written yet.

    Attributes:
        recipe: Recipe with the stages expanded and the batch sizes adapted to the number of processes.
        requested: Recipe with the stages expanded and the batch sizes as given. It differs from ``recipe`` only in a
            run that is resumed on another number of processes.
        task: Task, or the combination of several.
        data: Labeled data with its splits; ``UNKNOWN_DATA`` if it could not be read.
        config: Config of the model.
        processor: Image processor or tokenizer.
        plan: Plan of the stages.
        metric_names: Names of the metrics of the recipe; the first one selects checkpoints by default.
        domain_inputs: Inputs of the target domain; None without domain adaptation.
        joined: Prepared run of each task of a multi-task run; empty for a single task. See ``tasks``.
        trust_remote_code: Whether the user allows code of checkpoints and metrics to run.
        stage_notes: Notes on the fields that depend on the checkpoint, and on rates far from its defaults.
        processor_notes: Notes on changes of the processor that the recipe does not ask for.
        pooling: Choice of the pooling of frozen texts; None if it was not chosen.
    """

    recipe: Recipe
    requested: Recipe
    task: Task | MultiTask
    data: LabeledData
    config: PreTrainedConfig
    processor: Any
    plan: Plan
    metric_names: tuple[str, ...]
    domain_inputs: UnlabeledData | None = None
    joined: Mapping[str, "PreparedRun"] = field(default_factory=dict)
    trust_remote_code: bool = False
    stage_notes: tuple[str, ...] = ()
    processor_notes: tuple[str, ...] = ()
    pooling: "PoolingChoice | None" = None

    @property
    def tasks(self) -> Mapping[str, "PreparedRun"]:
        """Prepared run of each task, at least one; the only task of a run has the name ``""``."""
        return self.joined or {"": self}

    @property
    def is_joint(self) -> bool:
        """Whether several tasks share the model."""
        return len(self.tasks) > 1

    @property
    def has_data(self) -> bool:
        """Whether the data of all tasks was read."""
        return all(task.data is not UNKNOWN_DATA for task in self.tasks.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user on the data and the stages."""
        resolution = [
            f"{task}: {note}" if task else note
            for task, task_run in self.tasks.items()
            for note in resolution_notes(self.recipe.stages, task_run.metric_names[0], task_run.data, task)
        ]
        domain_notes = self.domain_inputs.notes if self.domain_inputs else ()
        return (*self.data.notes, *domain_notes, *resolution, *self.processor_notes, *self.stage_notes)

    @property
    def metric_settings(self) -> MetricSettings:
        """Classes and costs, on which some metrics depend."""
        return MetricSettings(self.data.label_names, self.recipe.evaluation.costs or {})

    @property
    def decision_rule(self) -> DecisionRule:
        """Rule that decides the classes of multi-label examples, before thresholds are fitted."""
        return DecisionRule(top_k=self.recipe.evaluation.top_k)

    @property
    def pretrains(self) -> bool:
        """Whether masked inputs of the target domain train the backbone before the first stage."""
        return self.domain_inputs is not None and isinstance(
            self.recipe.domain_adaptation, ContinuePretraining
        )

    @property
    def save_format(self) -> str:
        """Form in which the run saves its model: ``merged``, ``adapter`` or ``both``."""
        return self.recipe.model.adapter.save if self.recipe.model.adapter else "merged"


def with_input_notes(prepared: PreparedRun, inputs: Inputs) -> PreparedRun:
    """Return the run with the notes on the model inputs added to the notes of its data and of each task's data.

    Args:
        prepared: Checked run.
        inputs: Examples as model inputs, with a note for some tasks.
    """
    if not inputs.notes:
        return prepared
    notes = [f"{task}: {note}" if task else note for task, note in inputs.notes.items()]
    joined = dict(prepared.joined)
    for name, task in prepared.joined.items():
        if name in inputs.notes:
            joined[name] = replace(task, data=_with_notes(task.data, [inputs.notes[name]]))
    return replace(prepared, data=_with_notes(prepared.data, notes), joined=joined)


def _with_notes(data: LabeledData, notes: Sequence[str]) -> LabeledData:
    return replace(data, notes=(*data.notes, *notes))

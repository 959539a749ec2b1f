"""Domain adaptation in a run: pretraining on masked inputs before the first stage, or alignment in the stages."""

import logging
from dataclasses import dataclass, replace

from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedModel

from hf_finetune.errors import InputError, Problem
from hf_finetune.methods import Method
from hf_finetune.methods.domain_alignment import DomainAlignment
from hf_finetune.models.find_head import head_names
from hf_finetune.models.layout import read_layout
from hf_finetune.models.masked_models import build_masked_model
from hf_finetune.models.vocabulary import embedding_rows
from hf_finetune.planning.domain_adaptation import PRETRAINING
from hf_finetune.planning.groups import plan_groups
from hf_finetune.planning.stages import PlannedStage, StagePlan, steps_per_epoch
from hf_finetune.recipe.domain import Alignment, ContinuePretraining
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.tasks.examples import MaskedInputs
from hf_finetune.tasks.masked_examples import WrappedClassifier
from hf_finetune.training.manifest import Manifest

__all__ = ["Pretraining", "load_alignments", "prepare_pretraining"]

logger = logging.getLogger(__name__)

WARMUP = 0.06
"""Share of the optimizer steps used for warmup. Source: Gururangan et al. 2020, Don't Stop Pretraining, table 13."""


@dataclass(frozen=True)
class Pretraining:
    """Model, settings and data of the pretraining before the first stage.

    Attributes:
        model: Model that predicts masked tokens or pixels.
        stage: Settings and plan, in the form of a stage.
        masked: Masked examples.
        notes: Notes for the user.
    """

    model: PreTrainedModel
    stage: PlannedStage
    masked: MaskedInputs
    notes: tuple[str, ...]


def load_alignments(prepared: PreparedRun) -> dict[int, Method]:
    """Return the domain alignment of each stage that has one, by the index of the stage.

    The inputs of the target domain are preprocessed like training examples, augmentation included.
    """
    alignment, domain_inputs = prepared.recipe.domain_adaptation, prepared.domain_inputs
    if domain_inputs is None or not isinstance(alignment, Alignment):
        return {}
    recipe = prepared.recipe
    data = replace(prepared.data, train=domain_inputs.dataset, validation=None, test=None, pool=None)
    examples = prepared.task.prepare(data, prepared.processor, recipe.data, recipe.seed).train
    stages = enumerate(zip(recipe.stages, prepared.plan.stages, strict=True))
    return {
        index: DomainAlignment(examples, alignment.method, alignment.weight)
        for index, (spec, plan) in stages
        if DomainAlignment.is_used(recipe, spec, plan)
    }


def prepare_pretraining(
    prepared: PreparedRun, classifier: PreTrainedModel, before: Manifest | None, state: PartialState
) -> Pretraining | None:
    """Build the pretraining of a run.

    Args:
        prepared: Checked run.
        classifier: Checkpoint with its new head; for images ``continue_pretraining`` trains its weights in place.
        before: Manifest of the run if it is resumed, else None.
        state: Process state.

    Returns:
        The pretraining; None if the recipe has none, or if it is done.

    Raises:
        InputError: If the checkpoint cannot be pretrained on masked inputs, or if an unfinished pretraining is resumed
            on another number of processes.
    """
    domain, domain_inputs = prepared.recipe.domain_adaptation, prepared.domain_inputs
    if domain_inputs is None or not isinstance(domain, ContinuePretraining):
        return None
    if before is not None and before.pretraining.get("state") == "done":
        return None
    if before is not None and before.pretraining and before.processes != state.num_processes:
        rule = f"must be resumed on {before.processes} processes"
        raise InputError(Problem("The unfinished pretraining", rule, str(state.num_processes)))
    dataset = _select_inputs(prepared, domain_inputs.dataset, domain)
    seed, model_spec = prepared.recipe.seed, prepared.recipe.model
    notes: list[str] = []
    splits = replace(prepared.data, train=dataset, validation=None, test=None, pool=None)
    masked = prepared.task.modality.masked(
        splits, prepared.processor, prepared.recipe.data, seed, domain.mask
    )
    if masked.wrap is not None:
        model = masked.wrap(classifier, seed)
    else:
        model, notes = build_masked_model(
            model_spec.path,
            str(masked.auto_model),
            revision=model_spec.revision,
            dropout=model_spec.dropout,
            seed=seed,
            trust_remote_code=prepared.trust_remote_code,
            rows=embedding_rows(prepared.config),
        )
    spec = _build_stage(domain)
    plan = _build_plan(model, spec, len(masked.train), state.num_processes)
    return Pretraining(model, PlannedStage(spec, plan, (seed - 1) % 2**32), masked, tuple(notes))


def _select_inputs(prepared: PreparedRun, target: Dataset, spec: ContinuePretraining) -> Dataset:
    """Return the inputs to mask: those of the target domain, and with ``source`` also those of the training split."""
    columns = prepared.task.modality.columns_in(prepared.data.train.column_names)
    target = target.select_columns(columns)
    if not spec.source:
        return target
    source = prepared.data.train.select_columns(columns)
    return concatenate_datasets([target, source.cast(target.features)])


def _build_stage(spec: ContinuePretraining) -> StageSpec:
    epochs = 1.0 if spec.epochs is None else spec.epochs
    return StageSpec(
        name=PRETRAINING,
        train="all",
        epochs=epochs if spec.max_steps is None else None,
        max_steps=spec.max_steps,
        lr=spec.lr,
        batch_size=spec.batch_size,
        warmup=WARMUP,
        best=None,
    )


def _build_plan(model: PreTrainedModel, spec: StageSpec, examples: int, processes: int) -> StagePlan:
    """Return a plan that trains all parameters except an image classifier's head, which masked images do not reach."""
    layout = read_layout(model)
    unused = set()
    if isinstance(model, WrappedClassifier):
        unused = {f"classifier.{name}" for name in head_names(model.classifier)}
    trainable = tuple(name for name in layout.names() if name not in unused)
    per_epoch = steps_per_epoch(examples, spec.batch_size, 1, processes)
    steps = spec.max_steps or max(round((spec.epochs or 1.0) * per_epoch + 0.499999), 1)
    sizes = {parameter.name: parameter.size for parameter in layout.parameters}
    return StagePlan(
        name=PRETRAINING,
        train="all",
        trainable=trainable,
        groups=plan_groups(layout, trainable, spec.lr or 0.0, spec.weight_decay, 1.0, spec.schedule),
        trainable_size=sum(sizes[name] for name in trainable),
        frozen_batch_norms=(),
        epochs=spec.epochs or steps / per_epoch,
        steps=steps,
        warmup_steps=round(WARMUP * steps),
        layout=layout,
    )

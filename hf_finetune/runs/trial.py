"""Trial of a search: train a recipe on some examples, and predict others; no test split, no report, no saved model."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, TrainerCallback

from hf_finetune.data.prepare import LabeledData
from hf_finetune.data.slices import group_or_id
from hf_finetune.distributed import broadcast_from_main
from hf_finetune.evaluation.metrics import labels_of, probabilities
from hf_finetune.files import atomic_folder
from hf_finetune.methods.proximal import pretrained_weights
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.caching import cache_settings, decode_images
from hf_finetune.runs.pooling_choice import choose_pooling
from hf_finetune.runs.prepare import prepare_with_data
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.stages import train_stages
from hf_finetune.runs.start import load_start
from hf_finetune.runs.weights import load_stage_weights
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.tasks import Inputs
from hf_finetune.tasks.examples import SequenceOutputs
from hf_finetune.training.checkpoints import stage_folder
from hf_finetune.training.manifest import Manifest, StageRecord, read_manifest

__all__ = ["TrialResult", "train_and_predict", "training_cost"]

_SHARED_FIELDS = ("task", "model", "data", "speed", "domain_adaptation", "seed")
"""Fields of a recipe that every stage depends on."""


@dataclass(frozen=True)
class TrialResult:
    """Predictions of a recipe for the examples that were held out, and what they took.

    Attributes:
        examples: Labels and scores of these examples.
        groups: Group of each example, or its id if the data has no groups.
        seconds: Duration of training and prediction (seconds), without that of shared stages.
        epochs: Number of epochs that each stage trained; 0 for a fitted head.
        kept_epochs: Number of epochs of each stage up to the weights that it kept.
        cost: Number of parameters that an example passes on average, in the forward and the backward passes of all
            stages and in a prediction: a measure of the computation that is the same on every machine.
        parameters: Number of parameters of the model.
        bytes: Size of its weights.
        milliseconds: Mean time of a held-out example, preprocessing included.
        smaller: Predictions after training on four fifths of the training examples; None if there are none.
    """

    examples: ScoredExamples
    groups: tuple[str, ...]
    seconds: float
    epochs: tuple[float, ...]
    kept_epochs: tuple[float, ...]
    cost: float
    parameters: int
    bytes: int
    milliseconds: float
    smaller: ScoredExamples | None = None


def train_and_predict(
    recipe: Recipe,
    data: LabeledData,
    folder: Path,
    state: PartialState,
    *,
    shared: Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    trust_remote_code: bool = False,
) -> TrialResult:
    """Train a recipe on the training examples of data, and predict the examples of its test split.

    Args:
        recipe: Recipe of a single task.
        data: Data whose test split is held out, such as a fold.
        folder: Folder for the stages of this trial, which is removed at the end.
        state: State of the process; all processes call this function.
        shared: Folder in which trials with the same first stages find them; None shares nothing.
        callbacks: Further callbacks for the Trainer of each stage.
        trust_remote_code: Whether code of checkpoints and metrics may run.

    Returns:
        Predictions of the held-out examples.

    Raises:
        InputError: If the recipe cannot be trained on the data.
        DivergedError: If a stage diverges.
    """
    start_time = perf_counter()
    prepared = prepare_with_data(recipe, data, state.num_processes, trust_remote_code=trust_remote_code)
    prepared = choose_pooling(prepared, recipe.strategy.name if recipe.strategy else None, None, state)
    start = load_start(prepared, None, state)
    specs_and_plans = zip(prepared.recipe.stages, prepared.plan.stages, strict=True)
    caches = [cache_settings(prepared, spec, plan) for spec, plan in specs_and_plans]
    start = replace(start, inputs=decode_images(start.inputs, prepared, caches))
    keys = _stage_keys(prepared)
    manifest = broadcast_from_main(state, lambda: _open_trial(folder, prepared, keys, shared))
    manifest = train_stages(
        prepared,
        start,
        pretrained_weights(start.built.model, prepared.recipe.stages, prepared.plan),
        caches,
        manifest=manifest,
        folder=folder,
        state=state,
        callbacks=callbacks,
    )
    stages = [record.result for record in manifest.stages]
    epochs = tuple(0.0 if "fit" in stage else float(stage["epochs"]) for stage in stages)
    held_out = data.test
    assert held_out is not None

    def finish() -> TrialResult:
        model = load_stage_weights(prepared, folder, len(stages))
        predict_time = perf_counter()
        examples = _predict(model, prepared, state.device)
        milliseconds = 1000 * (perf_counter() - predict_time) / len(examples)
        if shared is not None:
            _share_stages(folder, prepared, keys, shared)
        shutil.rmtree(folder)
        return TrialResult(
            examples=examples,
            groups=group_or_id(held_out),
            seconds=perf_counter() - start_time,
            epochs=epochs,
            kept_epochs=tuple(_kept(stage, passes) for stage, passes in zip(stages, epochs, strict=True)),
            cost=_cost(stages, epochs),
            parameters=stages[-1]["total_parameters"],
            bytes=sum(weight.numel() * weight.element_size() for weight in model.state_dict().values()),
            milliseconds=milliseconds,
        )

    return broadcast_from_main(state, finish)


def _kept(stage: Mapping[str, Any], epochs: float) -> float:
    """Return the number of epochs of a stage up to the weights that it kept."""
    if stage["best_step"] is None or not stage["steps"]:
        return epochs
    return epochs * float(stage["best_step"]) / float(stage["steps"])


def _cost(stages: Sequence[Mapping[str, Any]], epochs: Sequence[float]) -> float:
    """Return the computation of the stages and of a prediction."""
    trained = [(stage["total_parameters"], stage["trainable_parameters"]) for stage in stages]
    return training_cost(trained, epochs)


def training_cost(parameters: Sequence[tuple[int, int]], epochs: Sequence[float]) -> float:
    """Return the computation of stages and of a prediction, see ``TrialResult``; a backward pass counts twice.

    Args:
        parameters: Number of all and of the trained parameters of each stage.
        epochs: Number of epochs of each stage; 0 for a fitted head.
    """
    return float(parameters[-1][0]) + sum(
        passes * (total + 2 * trained) for (total, trained), passes in zip(parameters, epochs, strict=True)
    )


def _stage_keys(prepared: PreparedRun) -> list[str]:
    """Return a key for each stage; stages with the same key have the same examples, settings and stages before them."""
    content = prepared.recipe.model_dump(mode="json")
    fields = {name: content[name] for name in _SHARED_FIELDS}
    rows = {} if prepared.data.pool is None else dict(prepared.data.pool.rows)
    digest = hashlib.sha256(json.dumps([fields, prepared.data.fingerprint, rows], sort_keys=True).encode())
    keys = []
    following = [spec.carry_optimizer for spec in prepared.recipe.stages[1:]]
    for stage, keeps_optimizer in zip(content["stages"], [*following, False], strict=True):
        digest.update(json.dumps([stage, keeps_optimizer], sort_keys=True).encode())
        keys.append(digest.hexdigest())
    return keys


def _open_trial(folder: Path, prepared: PreparedRun, keys: Sequence[str], shared: Path | None) -> Manifest:
    """Return the manifest of a trial whose first stages are done if another trial shares them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    recipe = prepared.recipe
    manifest = Manifest(tuple(StageRecord(spec.name) for spec in recipe.stages), {}, {}, recipe.seed)
    for index, spec in enumerate(recipe.stages[:-1]):
        source = shared / keys[index] if shared is not None else None
        if source is None or not source.is_dir():
            break
        target = stage_folder(folder, index, spec.name)
        target.parent.mkdir(exist_ok=True)
        target.symlink_to(source.absolute(), target_is_directory=True)
        record = read_manifest(source / "manifest.json").stages[index]
        manifest = manifest.with_stage(index, state="done", result=record.result)
    return manifest


def _share_stages(folder: Path, prepared: PreparedRun, keys: Sequence[str], shared: Path) -> None:
    """Copy the stages of a trial, except the last one, to the folder of shared stages."""
    for index, spec in enumerate(prepared.recipe.stages[:-1]):
        source = stage_folder(folder, index, spec.name)
        if source.is_symlink() or (shared / keys[index]).exists():
            continue
        shared.mkdir(parents=True, exist_ok=True)
        with atomic_folder(shared / keys[index]) as partial:
            shutil.copytree(
                source, partial, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoint-*")
            )
            shutil.copy(folder / "manifest.json", partial)


@torch.no_grad()
def _predict(model: PreTrainedModel, prepared: PreparedRun, device: torch.device) -> ScoredExamples:
    """Return labels and scores of the test split."""
    data, recipe = prepared.data, prepared.recipe
    assert data.test is not None
    held_out = replace(data, train=data.test, validation=data.test, test=None, pool=None)
    inputs: Inputs = prepared.task.prepare(held_out, prepared.processor, recipe.data, recipe.seed)
    loader: Any = DataLoader(
        inputs.validation, batch_size=recipe.evaluation.batch_size, collate_fn=inputs.collate
    )
    model.to(device).eval()
    outputs = []
    for batch in loader:
        tensors = {name: value.to(device) for name, value in batch.items() if name != "labels"}
        outputs.append(_outputs(model, tensors, inputs.sequences))
    labels = labels_of(data.test, data.target, len(data.label_names))
    scores = probabilities(np.concatenate(outputs), data.target)
    return ScoredExamples(
        labels, scores, data.target, prepared.decision_rule, settings=prepared.metric_settings
    )


def _outputs(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], sequences: SequenceOutputs | None
) -> np.ndarray:
    """Return the logits of a batch [batch, outputs], or the texts that the model writes [batch]."""
    if sequences is None:
        logits: np.ndarray = model(**batch).logits.float().cpu().numpy()
        return logits
    with sequences.observe(model) as observed:
        steps = model(**batch).logits
    return np.array(sequences.texts(sequences.predict(model, steps, observed).cpu().numpy()), dtype=object)

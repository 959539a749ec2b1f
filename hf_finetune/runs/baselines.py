"""Baselines of a run, which its report shows next to the model."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.evaluation.classifier import Classifier
from hf_finetune.evaluation.compare import paired_difference
from hf_finetune.evaluation.evaluate import EvaluationResult, evaluate_model
from hf_finetune.evaluation.linear_probe import Probe, frozen_features, linear_probe
from hf_finetune.evaluation.metrics import compute_metrics, labels_of, without_nan
from hf_finetune.evaluation.neighbors import nearest_neighbors
from hf_finetune.evaluation.predictions import BASELINE_FOLDER, Predictions, write_predictions
from hf_finetune.evaluation.simple_baseline import simple_baselines
from hf_finetune.models.build import build_skeleton, load_processor
from hf_finetune.performance.allocator import keep_freed_memory
from hf_finetune.performance.execution_modes import DTYPES, ExecutionMode
from hf_finetune.runs.caching import (
    feature_kinds,
    has_linear_probe,
    has_simple_baselines,
    probe_settings,
    without_augmentation,
)
from hf_finetune.runs.checkpoint import load_pretrained, read_task_config
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.targets import TARGETS
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.targets.top_scores import Scores, TopScores, constant_scores
from hf_finetune.tasks import TASKS
from hf_finetune.training.linear_folds import assign_folds

__all__ = [
    "compare_with_baselines",
    "constant_baseline",
    "fit_frozen_baselines",
    "fit_simple_baselines",
    "predictions_of",
    "untrained_baseline",
]

logger = logging.getLogger(__name__)

MAX_PROBE_CELLS = 4_000_000
"""Largest number of training examples times classes for which the linear probe is fitted."""


def constant_baseline(prepared: PreparedRun, result: EvaluationResult) -> dict[str, Scores]:
    """Return the scores of the baseline that predicts the same for every example: a constant of the training labels.

    Args:
        prepared: Checked run.
        result: Evaluation of the model on the test split.

    Returns:
        Scores on the test split by the name ``majority``; empty if there is no such constant for the label type.
    """
    target, classes = prepared.data.target, len(prepared.data.label_names)
    if not TARGETS[target].constant_baseline:
        return {}
    constant_prediction = TARGETS[target].constant_prediction(
        labels_of(prepared.data.train, target, classes), classes
    )
    if isinstance(result.scores, TopScores):
        return {"majority": constant_scores(constant_prediction, result.labels)}
    return {"majority": np.broadcast_to(constant_prediction, result.scores.shape)}


def untrained_baseline(prepared: PreparedRun, device: torch.device) -> dict[str, Scores]:
    """Return the predictions of the checkpoint as it is, with its own input, before any training.

    Args:
        prepared: Checked run.
        device: Device on which they are computed.

    Returns:
        Scores on the test split by the name ``untrained``; empty if the checkpoint does not predict such labels, or if
        its outputs are replaced by new ones.
    """
    target, single = prepared.data.target, prepared.recipe
    assert prepared.data.test is not None
    if not TARGETS[target].has_untrained_baseline or single.model.new is not None:
        return {}
    data = prepared.task.modality.checkpoint_data(single.data)
    plain_model = single.model.model_copy(update={"adapter": None})
    recipe = single.model_copy(update={"data": data, "model": plain_model})
    task, modality = TASKS[recipe.task], prepared.task.modality
    config = read_task_config(recipe, prepared.data.label_names, target, prepared.trust_remote_code)
    processor = load_processor(
        recipe.model.path,
        modality,
        revision=recipe.model.revision,
        trust_remote_code=prepared.trust_remote_code,
    )
    modality.configure(processor, config, data, partial(build_skeleton, config, task))
    built = load_pretrained(replace(prepared, recipe=recipe, config=config, processor=processor))
    if built.has_new_head:
        return {}
    logger.info("Predicting the test split with the checkpoint before training, a baseline.")
    settings = modality.pipeline_settings(processor, built.model)
    pipe = task.build_pipeline(built.model.to(device), {**settings, "device": device})
    size = recipe.evaluation.batch_size if modality.makes_batches(processor) else 1
    classifier = Classifier(pipe, task.name, target, prepared.data.label_names, size)
    return {"untrained": evaluate_model(classifier, prepared.data.test).scores}


def fit_simple_baselines(prepared: PreparedRun) -> dict[str, Probe]:
    """Fit the baselines of the modality: models of its own, or on simple features.

    Args:
        prepared: Checked run.

    Returns:
        Predictions on the test split by name of the baseline; empty if the modality has none, if the recipe asks for no
        such baseline, or if the fit would take too long.
    """
    models = prepared.task.modality.simple_models
    if models is not None and prepared.recipe.evaluation.linear_probe is not None:
        fitted = dict(models.fit(prepared.data, prepared.recipe.data))
        if models.frozen is not None and prepared.recipe.model.new is None:
            fitted |= models.frozen(load_pretrained(prepared).model, prepared.processor, prepared.data)
        return {name: Probe(scores, settings) for name, (scores, settings) in fitted.items()}
    features = prepared.task.modality.simple_features
    if features is None or not has_simple_baselines(prepared):
        return {}
    try:
        return simple_baselines(features, prepared.data, prepared.recipe)
    except CacheUnavailableError as error:
        logger.info("No baseline on %s: %s.", features.title, error)
        return {}


@keep_freed_memory()
def fit_frozen_baselines(
    prepared: PreparedRun, modes: list[ExecutionMode], device: torch.device
) -> dict[str, Probe]:
    """Fit the baselines on frozen features of the pretrained checkpoint.

    These are the linear probe, a logistic regression (ridge for regression), and for multi-label data also the nearest
    neighbors. Their training examples are preprocessed like test examples, without augmentation.

    Args:
        prepared: Checked run.
        modes: Execution mode of each stage; the features are computed in the precision of the first stage.
        device: Device on which the features are computed.

    Returns:
        Predictions on the test split by name, ``nearest_neighbors`` and ``linear_probe``; empty if the recipe asks for
        none, without those that cannot be fitted.
    """
    if not has_linear_probe(prepared) or prepared.recipe.model.new is not None:
        return {}
    cells = len(prepared.data.train) * len(prepared.data.label_names)
    if TARGETS[prepared.data.target].linear_solver == "logistic_regression" and cells > MAX_PROBE_CELLS:
        logger.info(
            "No linear probe: a logistic regression of "
            f"{len(prepared.data.label_names):,} classes on {len(prepared.data.train):,} examples would take too long."
        )
        return {}
    logger.info("Fitting the linear probe, a baseline on frozen features of the pretrained checkpoint.")
    prepared = prepared.pooling.before if prepared.pooling else prepared
    model, plain = load_pretrained(prepared).model, without_augmentation(prepared)
    recipe, data = plain.recipe, replace(prepared.data, validation=prepared.data.test, pool=None)
    probes: dict[str, Probe] = {}
    try:
        features = frozen_features(
            model,
            prepared.task.prepare(data, prepared.processor, recipe.data, recipe.seed),
            probe_settings(replace(plain, data=data)),
            poolings=feature_kinds(prepared),
            device=device,
            batch_size=recipe.stages[0].batch_size,
            autocast=DTYPES[modes[0].precision],
        )
        if TARGETS[data.target].has_several_classes:
            labels = labels_of(data.train, data.target, len(data.label_names))
            folds = assign_folds(
                data.train["label"][:], data.target, 1, recipe.seed, groups=data.train_groups
            )
            probes["nearest_neighbors"] = nearest_neighbors(features, labels, folds)
        probes["linear_probe"] = linear_probe(features, data, model.config, seed=recipe.seed)
    except CacheUnavailableError as error:
        logger.info("No linear probe: %s.", error)
    return probes


def compare_with_baselines(
    prepared: PreparedRun, result: EvaluationResult, baselines: Mapping[str, Scores], folder: Path
) -> dict[str, Any]:
    """Compare the model with each baseline on the same test examples, and write the predictions of the baselines.

    Args:
        prepared: Checked run.
        result: Evaluation of the model on the test split.
        baselines: Scores of each baseline on the test split.
        folder: Run directory.

    Returns:
        ``baselines`` and ``baseline_differences`` of ``metrics.json``: for each baseline its primary metrics, and the
        difference of the model from them, with interval, p-value and verdict.
    """
    content: dict[str, Any] = {"baselines": {}, "baseline_differences": {}}
    (folder / BASELINE_FOLDER).mkdir(exist_ok=True)
    metric_names = [name for name in prepared.metric_names if name != "loss"]
    rule = prepared.decision_rule
    for baseline, scores in baselines.items():
        write_predictions(
            folder / BASELINE_FOLDER / f"{baseline}.parquet",
            replace(predictions_of(result), scores=scores),
            rule,
            probabilities=prepared.recipe.evaluation.probabilities,
        )
        examples = replace(result.examples, scores=scores, rule=rule)
        content["baselines"][baseline] = without_nan(compute_metrics(metric_names, examples))
        content["baseline_differences"][baseline] = {
            name: _difference(name, examples, result.examples, prepared.recipe.seed) for name in metric_names
        }
    return content


def predictions_of(result: EvaluationResult) -> Predictions:
    """Return the predictions of an evaluation, as they are stored.

    Args:
        result: Evaluation of a model.
    """
    return Predictions(
        *(result.ids, result.labels, result.scores, result.target, result.label_names),
        *(result.groups, result.group_column),
    )


def _difference(name: str, baseline: ScoredExamples, model: ScoredExamples, seed: int) -> dict[str, Any]:
    difference = paired_difference(name, baseline, model, seed=seed)
    gain = difference.value - difference.first
    return {
        "difference": gain if np.isfinite(gain) else None,
        "interval": list(difference.interval) if difference.interval else None,
        "p_value": difference.p_value,
        "verdict": difference.verdict,
    }

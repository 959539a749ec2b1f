"""Frozen features of a checkpoint: computed once for all examples outside the test split, and judged on parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch

from hf_finetune.data.prepare import LabeledData, Pool
from hf_finetune.data.slices import group_or_id
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.linear_probe import frozen_features
from hf_finetune.evaluation.metrics import labels_of, probabilities
from hf_finetune.publishing.parity import median_milliseconds
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.caching import probe_settings, text_poolings, without_augmentation
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.estimates import typical_rows
from hf_finetune.runs.prepare import prepare_with_data
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.trial import TrialResult, training_cost
from hf_finetune.search.parts import Part, PartLoader
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.tasks import Inputs
from hf_finetune.training.linear_fit import LinearFit, assign_folds, fit_best, fit_linear

__all__ = ["FrozenFeatures", "compute_features", "judge_features", "time_example", "whole_pool"]


TIMED_EXAMPLES, TIMED_BATCHES = 8, 3
"""Size and number of the batches by which the time of an example is measured."""


@dataclass(frozen=True)
class FrozenFeatures:
    """Inputs of the head of a checkpoint, for unaugmented examples.

    Attributes:
        by_pooling: Features [examples, features] by token pooling; the pooling is ``""`` for images.
        network: The checkpoint with a new head.
        inputs: The examples as model inputs.
        device: Device of the forward passes.
    """

    by_pooling: dict[str, np.ndarray]
    network: Any
    inputs: Inputs
    device: torch.device


def whole_pool(recipe: Recipe, loader: PartLoader) -> LabeledData:
    """Return data whose training examples are all examples outside the test split; it has no other splits.

    Args:
        recipe: Recipe of a single task.
        loader: Loader of the parts.
    """
    data = loader.load(recipe, Part(0, 1))[1]
    pool = _pool_of(data)
    return replace(
        data,
        train=pool.dataset,
        validation=None,
        test=None,
        pool=None,
        fingerprint=pool.fingerprint,
        train_groups=pool.groups,
        split_fingerprints={"train": pool.fingerprint},
        hashes={},
    )


def compute_features(prepared: PreparedRun, data: LabeledData) -> FrozenFeatures:
    """Compute the frozen features of the training examples of data, or read them from the prefix cache.

    Args:
        prepared: Checked run with the checkpoint.
        data: Data of the examples.

    Raises:
        CacheUnavailableError: If the features cannot be computed.
        InputError: If the weights cannot be loaded, or the features are not finite.
    """
    plain = without_augmentation(replace(prepared, data=data))
    recipe = plain.recipe
    network = load_pretrained(prepared).model
    only_train = replace(data, validation=None, test=None, pool=None)
    inputs = plain.task.prepare(only_train, prepared.processor, recipe.data, recipe.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    features = frozen_features(
        network,
        inputs,
        probe_settings(plain),
        poolings=text_poolings(prepared),
        device=device,
        batch_size=recipe.stages[0].batch_size,
    )
    by_pooling = {name: splits["train"] for name, splits in features.items()}
    if not all(np.isfinite(values).all() for values in by_pooling.values()):
        raise InputError(Problem("model.path", "must have finite features for all examples"))
    return FrozenFeatures(by_pooling, network, inputs, device)


def judge_features(
    recipe: Recipe,
    parts: Sequence[Part],
    loader: PartLoader,
    *,
    has_time: Callable[[Sequence[TrialResult]], bool],
    trust_remote_code: bool = False,
) -> dict[Part, TrialResult] | None:
    """Predict parts by a linear head that is fitted to the frozen features of the other examples.

    This is what a run of the recipe does, without a forward pass for each part.

    Args:
        recipe: Recipe of one stage that fits the head, without augmentation.
        parts: Parts to predict.
        loader: Loader of the parts.
        has_time: Called after each part with the results so far; returns whether there is time for the next part.
        trust_remote_code: Whether code of checkpoints may run.

    Returns:
        Result of each part for which there was time, at least of the first; None if no solver fits the head, because
        it is not linear.

    Raises:
        CacheUnavailableError: If the features cannot be computed.
        InputError: If the checkpoint cannot be used.
    """
    pool = whole_pool(recipe, loader)
    prepared = prepare_with_data(recipe, pool, trust_remote_code=trust_remote_code)
    if not solver_of(prepared.recipe.stages[-1]):
        return None
    frozen = compute_features(prepared, pool)
    milliseconds = time_example(frozen.network, frozen.inputs, frozen.device)
    results: dict[Part, TrialResult] = {}
    for part in parts:
        if results and not has_time(list(results.values())):
            break
        results[part] = _judge_part(loader.load(recipe, part)[1], prepared, frozen, milliseconds)
    return results


def _judge_part(
    fold: LabeledData, prepared: PreparedRun, frozen: FrozenFeatures, milliseconds: float
) -> TrialResult:
    """Predict the held-out examples of a fold; ``prepared`` and ``frozen`` have all examples outside the test split."""
    start_time = perf_counter()
    pool, target = prepared.data, prepared.data.target
    rows = _pool_of(fold).rows
    held_out, train = np.asarray(rows["test"]), np.concatenate([rows["train"], rows.get("validation", ())])
    train = train.astype(int)
    labels = labels_of(pool.train, target, len(pool.label_names))
    folds = assign_folds(
        pool.train.select(train)["label"][:],
        target,
        1,
        prepared.recipe.seed,
        groups=np.asarray(pool.train_groups)[train].tolist(),
    )
    features = {name: values[train] for name, values in frozen.by_pooling.items()}
    pooling, fit, _ = fit_best(features, labels[train], target, len(pool.label_names), folds)
    rows = folds != folds.max()
    smaller_fit = fit_linear(
        features[pooling][rows],
        labels[train][rows],
        target,
        len(pool.label_names),
        (fit.inverse_strength,),
    )

    def predict(fitted: LinearFit) -> ScoredExamples:
        outputs = fitted(frozen.by_pooling[pooling][held_out])
        scores = probabilities(outputs, target)
        return ScoredExamples(labels[held_out], scores, target, settings=prepared.metric_settings)

    weights = list(frozen.network.state_dict().values())
    size = sum(weight.numel() for weight in frozen.network.parameters())
    return TrialResult(
        examples=predict(fit),
        groups=group_or_id(pool.train.select(held_out)),
        seconds=perf_counter() - start_time,
        epochs=(0.0,),
        kept_epochs=(0.0,),
        cost=training_cost([(size, 0)], [0.0]),
        parameters=size,
        bytes=sum(weight.numel() * weight.element_size() for weight in weights),
        milliseconds=milliseconds,
        smaller=predict(smaller_fit),
    )


def time_example(network: Any, inputs: Any, device: torch.device) -> float:
    """Return the median time of an example in a small batch, preprocessing included, in milliseconds.

    Args:
        network: The model.
        inputs: Examples as model inputs.
        device: Device of the forward passes.
    """
    rows = typical_rows(inputs, min(TIMED_EXAMPLES, len(inputs.train)))
    network.to(device).eval()

    def predict() -> None:
        batch = inputs.collate([inputs.train[row] for row in rows])
        with torch.no_grad():
            network(**{name: value.to(device) for name, value in batch.items() if name != "labels"})
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return median_milliseconds(predict, repeats=TIMED_BATCHES, warm_up=1) / len(rows)


def _pool_of(data: LabeledData) -> Pool:
    """Return the examples that a part was taken from."""
    assert data.pool is not None
    return data.pool

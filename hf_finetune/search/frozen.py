"""Frozen features of a checkpoint: computed once for all examples outside the test split, and judged on parts."""

from collections.abc import Callable, Mapping, Sequence
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
from hf_finetune.runs.caching import feature_kinds, probe_settings, without_augmentation
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.estimates import typical_rows
from hf_finetune.runs.prepare import prepare_with_data
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.trial import TrialResult, training_cost
from hf_finetune.search.parts import Part, PartLoader
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.tasks import Inputs
from hf_finetune.training.linear_fit import LinearFit, fit_best, fit_linear
from hf_finetune.training.linear_folds import assign_folds

__all__ = ["FrozenNetwork", "judge_features", "load_network", "whole_pool"]


TIMED_EXAMPLES, TIMED_BATCHES = 8, 3
"""Size and number of the batches by which the time of an example is measured."""


@dataclass(frozen=True)
class FrozenNetwork:
    """A checkpoint, and unaugmented examples as its inputs.

    Attributes:
        prepared: Checked run of the examples, without augmentation.
        network: The checkpoint with a new head.
        inputs: The examples as model inputs.
        device: Device of the forward passes.
        poolings: Token poolings whose features are computed.
    """

    prepared: PreparedRun
    network: Any
    inputs: Inputs
    device: torch.device
    poolings: tuple[str, ...]

    def features(self) -> dict[str, np.ndarray]:
        """Compute the inputs of the head for all examples, or read them from the prefix cache.

        Returns:
            Features [examples, features] by token pooling; the pooling is ``""`` for images.

        Raises:
            CacheUnavailableError: If the features cannot be computed.
            InputError: If the features are not finite.
        """
        features = frozen_features(
            self.network,
            self.inputs,
            probe_settings(self.prepared),
            poolings=self.poolings,
            device=self.device,
            batch_size=self.prepared.recipe.stages[0].batch_size,
        )
        by_pooling = {name: splits["train"] for name, splits in features.items()}
        if not all(np.isfinite(values).all() for values in by_pooling.values()):
            raise InputError(Problem("model.path", "must have finite features for all examples"))
        return by_pooling

    def milliseconds(self) -> float:
        """Return the median time of an example in a small batch, preprocessing included, in milliseconds."""
        rows = typical_rows(self.inputs, min(TIMED_EXAMPLES, len(self.inputs.train)))
        self.network.to(self.device).eval()

        def predict() -> None:
            batch = self.inputs.collate([self.inputs.train[row] for row in rows])
            with torch.no_grad():
                self.network(
                    **{name: value.to(self.device) for name, value in batch.items() if name != "labels"}
                )
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return median_milliseconds(predict, repeats=TIMED_BATCHES, warm_up=1) / len(rows)


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


def load_network(prepared: PreparedRun, data: LabeledData) -> FrozenNetwork:
    """Load a checkpoint and the training examples of data as its inputs.

    Args:
        prepared: Checked run with the checkpoint.
        data: Data of the examples.

    Returns:
        The checkpoint with its examples; no features are computed yet.

    Raises:
        InputError: If the weights cannot be loaded.
    """
    plain = without_augmentation(replace(prepared, data=data))
    network = load_pretrained(prepared).model
    only_train = replace(data, validation=None, test=None, pool=None)
    inputs = plain.task.prepare(only_train, prepared.processor, plain.recipe.data, plain.recipe.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return FrozenNetwork(plain, network, inputs, device, feature_kinds(prepared))


def judge_features(
    recipe: Recipe,
    parts: Sequence[Part],
    loader: PartLoader,
    *,
    can_begin: Callable[[int, float], bool] = lambda examples, milliseconds: True,
    has_time: Callable[[Sequence[TrialResult]], bool],
    trust_remote_code: bool = False,
) -> dict[Part, TrialResult] | None:
    """Predict parts by a linear head that is fitted to the frozen features of the other examples.

    This is what a run of the recipe does, without a forward pass for each part.

    Args:
        recipe: Recipe of one stage that fits the head, without augmentation.
        parts: Parts to predict.
        loader: Loader of the parts.
        can_begin: Called with the number of examples and the milliseconds of each before their features are computed;
            returns whether there is time for that.
        has_time: Called after each part with the results so far; returns whether there is time for the next part.
        trust_remote_code: Whether code of checkpoints may run.

    Returns:
        Result of each part for which there was time: at least of the first, or none at all if ``can_begin`` returned
        false. None if no solver fits the head, because it is not linear.

    Raises:
        CacheUnavailableError: If the features cannot be computed.
        InputError: If the checkpoint cannot be used.
    """
    pool = whole_pool(recipe, loader)
    prepared = prepare_with_data(recipe, pool, trust_remote_code=trust_remote_code)
    if not solver_of(prepared.recipe.stages[-1]):
        return None
    frozen = load_network(prepared, pool)
    milliseconds = frozen.milliseconds()
    if not can_begin(len(pool.train), milliseconds):
        return {}
    by_pooling = frozen.features()
    pooling = prepared.recipe.model.head.pool
    if pooling in by_pooling:  # otherwise it is chosen by cross-validation, as in a run
        by_pooling = {pooling: by_pooling[pooling]}
    results: dict[Part, TrialResult] = {}
    for part in parts:
        if results and not has_time(list(results.values())):
            break
        results[part] = _judge_part(loader.load(recipe, part)[1], frozen, by_pooling, milliseconds)
    return results


def _judge_part(
    fold: LabeledData, frozen: FrozenNetwork, by_pooling: Mapping[str, np.ndarray], milliseconds: float
) -> TrialResult:
    """Predict the held-out examples of a fold; ``frozen`` and its features have all examples outside the test split."""
    start_time = perf_counter()
    prepared = frozen.prepared
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
    features = {name: values[train] for name, values in by_pooling.items()}
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
        outputs = fitted(by_pooling[pooling][held_out])
        scores = probabilities(outputs, target)
        return ScoredExamples(
            labels[held_out], scores, target, prepared.decision_rule, settings=prepared.metric_settings
        )

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


def _pool_of(data: LabeledData) -> Pool:
    """Return the examples that a part was taken from."""
    assert data.pool is not None
    return data.pool

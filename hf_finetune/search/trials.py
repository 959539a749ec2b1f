"""Trials of a search: each recipe is trained on parts of the examples, and its predictions are stored."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from accelerate import PartialState
from transformers import TrainerCallback

from hf_finetune.distributed import LostProcessError, broadcast_from_main
from hf_finetune.evaluation.metrics import compute_metrics
from hf_finetune.files import atomic_file, read_json_object
from hf_finetune.recipe.load import dump_recipe
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.trial import TrialResult, train_and_predict
from hf_finetune.search.parts import Part, PartLoader
from hf_finetune.targets.decision_rule import DecisionRule
from hf_finetune.targets.metric import MetricSettings
from hf_finetune.targets.scored_examples import ScoredExamples, group_indices
from hf_finetune.training.manifest import write_json

__all__ = ["Trial", "TrialRunner"]

_UNCOMPARED = {"search", "output_dir", "track", "publish"}
"""Fields of a recipe that have no effect on its trial."""
_MEASURED = ("seconds", "cost", "parameters", "bytes", "milliseconds")
"""Numbers of a result that are stored as they are."""


@dataclass
class Trial:
    """A recipe with its results so far.

    Attributes:
        recipe: Recipe of the trial.
        fields: Fields in which it differs from other trials, by dotted path.
        results: Result of each part that is done.
        failure: Reason why it has no further results; empty if there is none.
        number: Number in its study, from 1; 0 without a study.
    """

    recipe: Recipe
    fields: Mapping[str, Any]
    results: dict[Part, TrialResult] = field(default_factory=dict)
    failure: str = ""
    number: int = 0

    @property
    def seconds(self) -> float:
        """Duration of its trainings so far (seconds)."""
        return sum(result.seconds for result in self.results.values())

    @property
    def cost(self) -> float:
        """Mean computation of its parts, see ``TrialResult``."""
        return fmean(result.cost for result in self.results.values())

    def examples(self, parts: Iterable[Part] | None = None, *, smaller: bool = False) -> ScoredExamples:
        """Return the predictions of several parts together.

        Args:
            parts: Parts that are done; None takes all of them.
            smaller: Whether to return those after training on four fifths of the training examples; all parts have
                them.
        """
        chosen = [self.results[part] for part in (self.results if parts is None else parts)]
        first = chosen[0].examples
        predictions = [result.smaller if smaller else result.examples for result in chosen]
        labels = np.concatenate([each.labels for each in predictions if each is not None])
        scores = np.concatenate([each.scores for each in predictions if each is not None])
        names = [name for result in chosen for name in result.groups]
        groups = group_indices(names) if len(set(names)) < len(names) else None
        return ScoredExamples(labels, scores, first.target, first.rule, groups, first.settings)

    def value(self, metric: str) -> float:
        """Return a metric of all predictions so far.

        Args:
            metric: Name of the metric.
        """
        return compute_metrics([metric], self.examples())[metric]


class TrialRunner:
    """Training of recipes on parts; what is done is read from the folder of the search.

    Args:
        folder: Folder of the search.
        state: State of the process; all processes call the methods.
        callbacks: Further callbacks for the Trainer of each stage.
        trust_remote_code: Whether code of checkpoints and metrics may run.
    """

    def __init__(
        self,
        folder: Path,
        state: PartialState,
        *,
        callbacks: Sequence[TrainerCallback] = (),
        trust_remote_code: bool = False,
    ):
        self.folder, self.state = folder, state
        self.callbacks, self.trust_remote_code = tuple(callbacks), trust_remote_code
        self.loader = PartLoader()

    def run(self, trial: Trial, part: Part, callbacks: Sequence[TrainerCallback] = ()) -> bool:
        """Train the recipe of a trial on a part, unless that is done, and add the result to the trial.

        A recipe that cannot be trained gets a ``failure`` instead.

        Args:
            trial: The trial, which is changed.
            part: Part that is held out.
            callbacks: Further callbacks for this part.

        Returns:
            Whether there is a result.
        """
        folder = self._folder(trial.recipe)
        stored = broadcast_from_main(self.state, lambda: _read(folder, part))
        if stored is None:
            try:
                stored = self._train(trial.recipe, part, folder, callbacks)
            except LostProcessError:
                raise
            except (RuntimeError, ValueError) as error:  # the other trials go on
                stored = " ".join(str(error).split())
            if self.state.is_main_process:
                _write(folder, part, stored, trial.recipe)
        if isinstance(stored, str):
            trial.failure = stored
            return False
        trial.results[part] = stored
        return True

    def read(self, trial: Trial, parts: Sequence[Part]) -> None:
        """Add the stored results of parts to a trial.

        Args:
            trial: The trial, which is changed.
            parts: Parts that may be done.
        """
        for part in parts:
            stored = _read(self._folder(trial.recipe), part)
            if isinstance(stored, str):
                trial.failure = stored
            elif stored is not None:
                trial.results[part] = stored

    def store(self, trial: Trial) -> None:
        """Write the results of a trial that were not computed by ``run``.

        Args:
            trial: Trial with results.
        """
        if self.state.is_main_process:
            for part, result in trial.results.items():
                _write(self._folder(trial.recipe), part, result, trial.recipe)

    def _train(
        self, recipe: Recipe, part: Part, folder: Path, callbacks: Sequence[TrainerCallback]
    ) -> TrialResult:
        fold_recipe, data = self.loader.load(recipe, part)
        training = folder / f"training-{part.name}"
        try:
            return train_and_predict(
                fold_recipe,
                data,
                training,
                self.state,
                shared=self.folder / "shared",
                callbacks=[*self.callbacks, *callbacks],
                trust_remote_code=self.trust_remote_code,
            )
        finally:
            if self.state.is_main_process:
                shutil.rmtree(training, ignore_errors=True)

    def _folder(self, recipe: Recipe) -> Path:
        content = recipe.model_dump(mode="json", exclude=_UNCOMPARED)
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return self.folder / "trials" / digest[:16]

    def remove_shared(self) -> None:
        """Remove the stages that trials share."""
        if self.state.is_main_process:
            shutil.rmtree(self.folder / "shared", ignore_errors=True)


def _read(folder: Path, part: Part) -> "TrialResult | str | None":
    """Return the stored result of a part, or the reason why there is none; None if the part is not done."""
    content = read_json_object(folder / f"{part.name}.json")
    if not content:
        return None
    if "failure" in content:
        return str(content["failure"])
    with np.load(folder / f"{part.name}.npz") as arrays:
        labels, groups = _from_stored(arrays["labels"]), tuple(arrays["groups"].tolist())
        all_scores = {name: _from_stored(arrays[name]) for name in ("scores", "smaller") if name in arrays}
    settings = MetricSettings(tuple(content["classes"]), content["costs"])
    rule = DecisionRule(top_k=content.get("top_k"))
    examples = {
        name: ScoredExamples(labels, scores, content["target"], rule, settings=settings)
        for name, scores in all_scores.items()
    }
    measured = {name: content[name] for name in _MEASURED}
    return TrialResult(
        examples["scores"],
        groups,
        smaller=examples.get("smaller"),
        epochs=tuple(content["epochs"]),
        kept_epochs=tuple(content["kept_epochs"]),
        **measured,
    )


def _storable(values: Any) -> Any:
    """Return labels or scores in a form that is stored without objects."""
    array = np.asarray(values)
    return array.astype(str) if array.dtype == object else array


def _from_stored(values: np.ndarray) -> np.ndarray:
    """Return labels or scores as metrics take them: texts are objects."""
    return values.astype(object) if values.dtype.kind == "U" else values


def _write(folder: Path, part: Part, result: "TrialResult | str", recipe: Recipe) -> None:
    """Store the result of a part, or the reason why there is none, in the folder of the trial."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "recipe.yaml") as temporary:
        temporary.write_text(dump_recipe(recipe), encoding="utf-8")
    if isinstance(result, str):
        write_json(folder / f"{part.name}.json", {"failure": result})
        return
    examples = result.examples
    with atomic_file(folder / f"{part.name}.npz") as temporary, temporary.open("wb") as file:
        arrays = {"labels": examples.labels, "scores": examples.scores}
        if result.smaller is not None:
            arrays["smaller"] = result.smaller.scores
        np.savez(
            file, groups=np.array(result.groups), **{name: _storable(each) for name, each in arrays.items()}
        )
    content = {
        "target": examples.target,
        "classes": list(examples.settings.label_names),
        "costs": examples.settings.costs,
        "top_k": examples.rule.top_k,
        "epochs": list(result.epochs),
        "kept_epochs": list(result.kept_epochs),
        **{name: getattr(result, name) for name in _MEASURED},
    }
    write_json(folder / f"{part.name}.json", content)

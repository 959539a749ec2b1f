"""Ranking of the candidates for data or for the data of a recipe, and the recipe of the recommended one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_finetune.data.prepare import LabeledData
from hf_finetune.data.recipe_data import load_data
from hf_finetune.errors import InputError, Problem
from hf_finetune.recipe.load import dump_recipe, load_recipe, parse_recipe
from hf_finetune.recipe.multitask import MultiTaskRecipe
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.shipped import RENAMED, shipped_recipes
from hf_finetune.recipe.yaml_text import read_yaml
from hf_finetune.search.candidates import Candidate, read_candidates
from hf_finetune.search.choose import Progress, RankedCheckpoint, Ranking, choose_checkpoint
from hf_finetune.search.draft_recipe import draft_recipe
from hf_finetune.search.inspect_data import inspect_data
from hf_finetune.tasks import TASKS, Modality

__all__ = ["CandidateFilter", "RankedCandidates", "rank_candidates"]

PERMISSIVE = "permissive"
_PERMISSIVE_LICENSES = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause")


@dataclass(frozen=True)
class CandidateFilter:
    """Candidates to rank.

    Attributes:
        download: Whether candidates that are not on this machine are ranked too.
        max_parameters: Maximum number of parameters, in millions; None is any.
        license: ``permissive``, or None for any license.
    """

    download: bool = False
    max_parameters: float | None = None
    license: str | None = None

    def accepts(self, candidate: Candidate) -> bool:
        """Return whether a candidate is small enough and has a suitable license.

        Args:
            candidate: The candidate.
        """
        is_small = self.max_parameters is None or candidate.parameters <= self.max_parameters
        return is_small and (self.license is None or candidate.license in _PERMISSIVE_LICENSES)


@dataclass(frozen=True)
class RankedCandidates:
    """Ranking of candidates, with their licenses and a recommendation.

    Attributes:
        ranking: The ranking.
        recommended: The fastest checkpoint that cannot be distinguished from the best one; if no such checkpoint is
            fast enough, the best of those that are.
        recipe_text: Recipe with the recommended checkpoint, in YAML.
        licenses: License of each listed candidate by its path or Hub id.
        absent: Candidates that are not on this machine and were not ranked.
    """

    ranking: Ranking
    recommended: RankedCheckpoint
    recipe_text: str
    licenses: Mapping[str, str | None]
    absent: tuple[str, ...]

    @property
    def recommendation(self) -> str:
        """Sentence that names the recommended checkpoint and the reason."""
        reason = "the fastest that cannot be distinguished from the best"
        if not self.recommended.is_as_good:
            reason = "the best within --max-latency, but worse than the best of all"
        return f"Recommended: {self.recommended.model}, {reason}."

    def as_json(self) -> dict[str, Any]:
        """Return the ranking as JSON values."""
        entries = [
            {**asdict(entry), "license": self.licenses.get(entry.model), "comparison": entry.comparison}
            for entry in self.ranking.ranked
        ]
        return {
            "metric": self.ranking.metric,
            "recommended": self.recommended.model,
            "checkpoints": entries,
            "not_ranked": self.ranking.refused,
            "not_on_this_machine": list(self.absent),
        }


def rank_candidates(
    source: str,
    models: Sequence[str],
    allowed: CandidateFilter,
    *,
    max_milliseconds: float | None = None,
    progress: Progress | None = None,
    trust_remote_code: bool = False,
) -> RankedCandidates:
    """Rank checkpoints for labeled data, or for the data of a recipe.

    Args:
        source: Folder, table or Hub id with labeled examples; or path or name of a recipe.
        models: Checkpoints to rank; empty ranks the candidates for the modality.
        allowed: Which candidates to rank.
        max_milliseconds: Maximum time per example of the recommended checkpoint; None is any.
        progress: Called before each checkpoint.
        trust_remote_code: Whether code of checkpoints may run.

    Returns:
        The ranking and the recommendation.

    Raises:
        InputError: If the data or every checkpoint cannot be used, or if no checkpoint is fast enough.
    """
    if allowed.license not in (None, PERMISSIVE):
        raise InputError(Problem("--license", f"must be {PERMISSIVE}", repr(allowed.license)))
    if models and allowed != CandidateFilter():
        rule = "must not be set with --max-params, --license or --download"
        raise InputError(Problem("--model", rule, repair="These restrict the shipped list of candidates."))
    data, modality, write_recipe = _read_source(source)
    chosen, licenses, absent = (list(models), dict[str, str | None](), tuple[str, ...]())
    if not chosen:
        chosen, licenses, absent = _candidates(modality, allowed)

    def recipe_for(model: str) -> Recipe:
        content, problems = read_yaml(write_recipe(model), source)
        if problems:
            raise InputError(problems)
        return parse_recipe(content)

    ranking = choose_checkpoint(
        chosen, recipe_for, data, progress=progress, trust_remote_code=trust_remote_code
    )
    recommended = _recommend(ranking, max_milliseconds)
    return RankedCandidates(ranking, recommended, write_recipe(recommended.model), licenses, absent)


def _recommend(ranking: Ranking, max_milliseconds: float | None) -> RankedCheckpoint:
    fast = [
        entry
        for entry in ranking.ranked
        if max_milliseconds is None or entry.milliseconds <= max_milliseconds
    ]
    if not fast:
        quickest = min(entry.milliseconds for entry in ranking.ranked)
        repair = f"The fastest checkpoint takes {quickest:.1f} milliseconds."
        raise InputError(Problem("--max-latency", "must allow a checkpoint", f"{max_milliseconds:g}", repair))
    as_good = [entry for entry in fast if entry.is_as_good]
    return min(as_good, key=lambda entry: entry.milliseconds) if as_good else fast[0]


def _read_source(source: str) -> tuple[LabeledData, Modality, Callable[[str], str]]:
    """Return the data, its modality, and a function that writes the recipe with a checkpoint."""
    is_recipe = source.endswith((".yaml", ".yml")) or (
        source in {*shipped_recipes(), *RENAMED} and not Path(source).exists()
    )
    if not is_recipe:
        inspected = inspect_data(source)
        return inspected.data, inspected.task.modality, lambda model: draft_recipe(inspected, model)
    recipe = load_recipe(source)
    if isinstance(recipe, MultiTaskRecipe):
        raise InputError(Problem(source, "must be a recipe of a single task"))

    def write(model: str) -> str:
        changes = {"path": model} if model == recipe.model.path else {"path": model, "revision": None}
        return dump_recipe(recipe.model_copy(update={"model": recipe.model.model_copy(update=changes)}))

    return load_data(recipe), TASKS[recipe.task].modality, write


def _candidates(
    modality: Modality, allowed: CandidateFilter
) -> tuple[list[str], dict[str, str | None], tuple[str, ...]]:
    """Return the candidates to rank, their licenses, and those that are not on this machine."""
    accepted = [
        candidate for candidate in read_candidates(modality).checkpoints if allowed.accepts(candidate)
    ]
    locations = {candidate.model: candidate.location() for candidate in accepted}
    absent = tuple(model for model, location in locations.items() if location is None)
    licenses = {locations[candidate.model] or candidate.model: candidate.license for candidate in accepted}
    ranked = [location or model for model, location in locations.items() if location or allowed.download]
    if not ranked:
        repair = "Add --download to download candidates from the Hub, or name a checkpoint with --model."
        raise InputError(
            Problem("--model", "must be set, because no suitable candidate is on this machine", "", repair)
        )
    return ranked, licenses, () if allowed.download else absent

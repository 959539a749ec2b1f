"""Candidates: the checkpoints that are considered for a modality, and which of them are on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from huggingface_hub import try_to_load_from_cache
from pydantic import Field

from hf_finetune.errors import InputError, Problem
from hf_finetune.fields.base import Part
from hf_finetune.recipe.shipped import shipped_candidates
from hf_finetune.recipe.yaml_text import read_yaml
from hf_finetune.tasks import Modality

__all__ = ["Candidate", "CandidateList", "choose_at_hand", "models_at_hand", "read_candidates"]

ASSETS = Path("assets")
"""Folder below the working directory in which checkpoints are looked for, in addition to the cache of the Hub."""
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class Candidate(Part):
    """A checkpoint, with facts that help to choose.

    Attributes:
        model: Hub id.
        parameters: Number of parameters, in millions.
        input: Width of its input in pixels, or the largest number of its tokens, or its longest input in seconds.
        license: Identifier of its license on the Hub.
        languages: ``english`` or ``multilingual`` for texts.
        pretraining: Its pretraining in a few words.
        gated: Whether the Hub asks for consent to a license before a download; None if unknown.
        folder: Name of a folder below ``assets`` that contains the same weights.
    """

    in_recipes: ClassVar[bool] = False

    model: str
    parameters: float = Field(gt=0)
    input: int | None = None
    license: str | None = None
    languages: str | None = None
    pretraining: str | None = None
    gated: bool | None = None
    folder: str | None = None

    def location(self) -> str | None:
        """Return the path or the Hub id from which the checkpoint loads without network; None if it is not here."""
        if self.folder is not None and (ASSETS / self.folder / "config.json").is_file():
            return (ASSETS / self.folder).as_posix()
        cached = isinstance(try_to_load_from_cache(self.model, "config.json"), str) and any(
            isinstance(try_to_load_from_cache(self.model, name), str) for name in _WEIGHTS
        )
        return self.model if cached else None


class CandidateList(Part):
    """The candidates for a modality.

    Attributes:
        date: Day on which the list was made, ``YYYY-MM-DD``.
        default: Hub id of the checkpoint for a first run.
        checkpoints: The candidates, the most recommended first.
    """

    in_recipes: ClassVar[bool] = False

    date: str
    default: str
    checkpoints: Sequence[Candidate]


def read_candidates(modality: Modality) -> CandidateList:
    """Return the candidates for a modality.

    Args:
        modality: Kind of input.

    Returns:
        The shipped list.

    Raises:
        InputError: If the package has no list for this modality.
    """
    path = shipped_candidates(modality.name)
    if path is None:
        rule = f"must be set, because there is no list of checkpoints for {modality.plural}"
        raise InputError(Problem("--model", rule))
    content, problems = read_yaml(path.read_text(encoding="utf-8"), str(path))
    if problems:
        raise InputError(problems)
    return CandidateList.model_validate(content, strict=False)


def models_at_hand(modality: Modality) -> list[str]:
    """Return paths and Hub ids of the candidates that are on this machine; the default candidate if none is.

    Args:
        modality: Kind of input.
    """
    candidates = read_candidates(modality)
    here = [location for candidate in candidates.checkpoints if (location := candidate.location())]
    return here or [candidates.default]


def choose_at_hand(candidates: CandidateList) -> tuple[str, bool]:
    """Return the first candidate that is on this machine, else the default of the list, and whether it is here.

    Args:
        candidates: The candidates.
    """
    locations = (candidate.location() for candidate in candidates.checkpoints)
    location = next((location for location in locations if location is not None), None)
    return (candidates.default, False) if location is None else (location, True)

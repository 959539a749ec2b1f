"""How tokens become one vector where no recipe says it: as the checkpoint declares, or as suits its architecture."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import PreTrainedConfig
from transformers.utils import cached_file

from hf_finetune.models.defaults import find_row
from hf_finetune.recipe.head import OF_CHECKPOINT, OWN, POOLING_NAMES
from hf_finetune.recipe.model import ModelSpec

__all__ = ["HEAD_POOLINGS", "DefaultPooling", "declared_pooling", "default_pooling", "fill_pooling"]

HEAD_POOLINGS = ("cls", "mean")
"""Poolings that a head of this package has."""
MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
}
"""Fields of ``1_Pooling/config.json`` in checkpoints of sentence-transformers."""


@dataclass(frozen=True)
class DefaultPooling:
    """The pooling that suits a checkpoint.

    Attributes:
        name: ``own``, or one of ``HEAD_POOLINGS``.
        whose: Who says so, for people.
    """

    name: str
    whose: str


def declared_pooling(path: str, revision: str | None = None) -> str | None:
    """Return the pooling that a checkpoint of sentence-transformers declares in ``1_Pooling/config.json``.

    Returns:
        A name of ``POOLING_NAMES``; None if it declares none, or several at once.
    """
    try:
        file = cached_file(
            path, "1_Pooling/config.json", revision=revision, _raise_exceptions_for_missing_entries=False
        )
        content = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError):
        return None
    declared = [name for mode, name in MODES.items() if isinstance(content, dict) and content.get(mode)]
    return declared[0] if len(declared) == 1 and declared[0] in POOLING_NAMES else None


def default_pooling(
    config: PreTrainedConfig, modality: Literal["image", "text"], path: str, revision: str | None = None
) -> DefaultPooling:
    """Return the pooling that suits a checkpoint.

    Args:
        config: Of the checkpoint.
        modality: What it takes. For images it is what the architecture's own head reads: where docs/rates.md has the
            mean over places, the own head reads just that.
        path: Of the checkpoint: a Hub id or a folder.
        revision: Branch, tag or commit on the Hub.
    """
    if modality == "image":
        return DefaultPooling(OWN, "what the architecture's own head reads")
    declared = declared_pooling(path, revision)
    if declared in HEAD_POOLINGS:
        return DefaultPooling(declared, "the checkpoint's 1_Pooling/config.json has it")
    row = find_row(config, modality)
    if row is None or row.pooling == OWN:
        return DefaultPooling(OWN, "what the architecture's own head reads")
    return DefaultPooling(row.pooling, f"default of {row.family}")


def fill_pooling(
    spec: ModelSpec, default: DefaultPooling, *, is_left: bool, is_chosen: bool
) -> tuple[ModelSpec, tuple[str, ...]]:
    """Replace the pooling that is left to the checkpoint by the one that suits it, or say that another suits it.

    Args:
        spec: The checkpoint and its head, as in a recipe.
        default: The pooling that suits it.
        is_left: Whether the recipe states neither a pooling nor a rate.
        is_chosen: Whether the run chooses the pooling by cross-validation.

    Returns:
        The checkpoint and its head, and a sentence for people where there is something to say.
    """
    needs_code = default.name != OWN
    if spec.head.pool == OF_CHECKPOINT or (is_left and needs_code):
        needs = (
            " Plain transformers needs trust_remote_code=True for this head; own keeps the architecture's."
            if needs_code
            else ""
        )
        head = spec.head.model_copy(update={"pool": default.name})
        note = f"model.head.pool is {default.name}: {default.whose}.{needs}"
        return spec.model_copy(update={"head": head}), (note,)
    if spec.head.pool is not None or is_chosen or not needs_code:
        return spec, ()
    return spec, (
        f"model.head.pool is own, the architecture's. {POOLING_NAMES[default.name].capitalize()} would suit the "
        f"checkpoint better ({default.whose}): auto takes it, and plain transformers then needs trust_remote_code=True "
        "to load the model. own, written out, ends this note.",
    )

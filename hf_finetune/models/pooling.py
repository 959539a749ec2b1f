"""Default pooling of a checkpoint, if the recipe sets none: as it declares, or as suits its architecture."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import cached_file

from hf_finetune.models.defaults import find_defaults_row
from hf_finetune.models.head_spec import FIELD
from hf_finetune.recipe.head import CHECKPOINT_POOLING, OWN_POOLING, POOLING_DESCRIPTIONS
from hf_finetune.recipe.head_fit import uses_checkpoint_pooling
from hf_finetune.recipe.model import ModelSpec
from hf_finetune.recipe.schema import Recipe

__all__ = [
    "HEAD_POOLINGS",
    "POOLED",
    "DefaultPooling",
    "declared_pooling",
    "default_pooling",
    "fill_pooling",
    "uses_default_pooling",
]

HEAD_POOLINGS = ("cls", "mean")
"""Poolings of this package's head that have no weights to train."""
POOLED = (
    *("albert", "bert", "camembert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet", "roberta"),
    "xlm-roberta",
)
"""``model_type`` of the architectures whose own head may be replaced by one with these poolings."""
POOLING_MODES = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "weightedmean": "weightedmean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
}
"""Pooling by value of ``pooling_mode`` in ``1_Pooling/config.json`` of sentence-transformers checkpoints."""
LEGACY_POOLING_FIELDS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
}
"""Pooling by boolean field of that file, as older versions write it."""
CLASSIFIER_SUFFIX = "ForSequenceClassification"


@dataclass(frozen=True)
class DefaultPooling:
    """Pooling that suits a checkpoint.

    Attributes:
        name: A pooling of ``HeadSpec``.
        source: Source of this choice, for messages to the user.
        is_saved: Whether the checkpoint was saved with a head of this package, which has this pooling.
    """

    name: str
    source: str
    is_saved: bool = False


def declared_pooling(path: str, revision: str | None = None) -> str | None:
    """Return the pooling that a sentence-transformers checkpoint declares in ``1_Pooling/config.json``.

    Returns:
        A name of ``POOLING_DESCRIPTIONS``; None if the checkpoint declares none, an unknown one, or several at once.
    """
    try:
        file = cached_file(
            path, "1_Pooling/config.json", revision=revision, _raise_exceptions_for_missing_entries=False
        )
        content = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    mode = content.get("pooling_mode")
    modes = mode if isinstance(mode, list) else [mode] if mode is not None else []
    declared = [POOLING_MODES.get(str(value)) for value in modes]
    declared = declared or [name for field, name in LEGACY_POOLING_FIELDS.items() if content.get(field)]
    return declared[0] if len(declared) == 1 else None


def default_pooling(config: PreTrainedConfig, path: str, revision: str | None = None) -> DefaultPooling:
    """Return the pooling that suits a checkpoint.

    A checkpoint that already is a classifier keeps the pooling of its head. For image models whose default is
    the mean over positions, the architecture's own head already computes it.

    Args:
        config: Config of the checkpoint.
        path: The checkpoint: a Hub id or a folder.
        revision: Branch, tag or commit on the Hub.
    """
    own_pooling = DefaultPooling(OWN_POOLING, "the input of the architecture's own head")
    if config.model_type not in POOLED:
        return own_pooling
    saved = _settings(path, revision)
    if isinstance(head := saved.get(FIELD), Mapping):
        if not head.get("pool"):
            return own_pooling
        return DefaultPooling(str(head["pool"]), "pooling of the checkpoint's own head", is_saved=True)
    architectures = saved.get("architectures")
    if isinstance(architectures, list) and any(
        str(name).endswith(CLASSIFIER_SUFFIX) for name in architectures
    ):
        return own_pooling
    declared = declared_pooling(path, revision)
    if declared in HEAD_POOLINGS:
        return DefaultPooling(declared, "from the checkpoint's 1_Pooling/config.json")
    row = find_defaults_row(config)
    if declared is not None or row is None or row.pooling == OWN_POOLING:
        return own_pooling
    return DefaultPooling(row.pooling, f"default of {row.family}")


def _settings(path: str, revision: str | None) -> Mapping[str, Any]:
    """Return the content of a checkpoint's config.json; an empty mapping if it cannot be read."""
    try:
        content: Mapping[str, Any] = PreTrainedConfig.get_config_dict(path, revision=revision)[0]
    except (OSError, ValueError):
        return {}
    return content


def uses_default_pooling(recipe: Recipe, default: DefaultPooling) -> bool:
    """Return whether a recipe leaves the pooling to the checkpoint.

    Args:
        recipe: Single-task recipe, as requested.
        default: Default pooling of its checkpoint. The pooling of a saved head is kept, whatever the learning rates.
    """
    spec = recipe.model
    if spec.head.pool is not None:
        return spec.head.pool == CHECKPOINT_POOLING
    merges = spec.adapter is None or spec.adapter.save == "merged"
    return uses_checkpoint_pooling(recipe) or (default.is_saved and merges)


def fill_pooling(
    spec: ModelSpec, default: DefaultPooling, *, uses_default: bool, is_chosen: bool
) -> tuple[ModelSpec, tuple[str, ...]]:
    """Set the pooling of the head to the checkpoint's default, or return a note if another pooling would suit it.

    Args:
        spec: The checkpoint and its head, as in a recipe.
        default: Default pooling of the checkpoint.
        uses_default: Whether the recipe leaves the pooling to the checkpoint, see ``uses_default_pooling``.
        is_chosen: Whether the run chooses the pooling by cross-validation.

    Returns:
        The checkpoint and its head with the pooling set, and at most one note for the user.
    """
    needs_code = default.name != OWN_POOLING
    if uses_default and (needs_code or spec.head.pool is not None):
        keep_hint = "" if default.is_saved else "; own keeps the architecture's pooling"
        code_note = f" Plain transformers needs trust_remote_code=True for this head{keep_hint}."
        head = spec.head.model_copy(update={"pool": default.name})
        note = f"model.head.pool is {default.name}: {default.source}.{code_note if needs_code else ''}"
        return spec.model_copy(update={"head": head}), (note,)
    if spec.head.pool is not None or is_chosen or not needs_code or spec.adapter is not None:
        return spec, ()
    return spec, (
        "model.head.pool is not set, so the architecture's pooling (own) is used; "
        f"{POOLING_DESCRIPTIONS[default.name]} suits the checkpoint better ({default.source}). Set it to auto for that "
        "pooling (plain transformers then needs trust_remote_code=True to load the model), or to own to silence this "
        "note.",
    )

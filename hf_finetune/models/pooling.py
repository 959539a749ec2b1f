"""How tokens become one vector where no recipe says it: as the checkpoint declares, or as suits its architecture."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.utils import cached_file

from hf_finetune.models.defaults import find_row
from hf_finetune.models.head_spec import FIELD
from hf_finetune.recipe import Recipe
from hf_finetune.recipe.head import OF_CHECKPOINT, OWN, POOLING_NAMES
from hf_finetune.recipe.head_fit import leaves_pooling
from hf_finetune.recipe.model import ModelSpec

__all__ = [
    "HEAD_POOLINGS",
    "POOLED",
    "DefaultPooling",
    "declared_pooling",
    "default_pooling",
    "fill_pooling",
    "is_left",
]

HEAD_POOLINGS = ("cls", "mean")
"""Poolings that a head of this package has, and that need no training."""
POOLED = (
    *("albert", "bert", "camembert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet", "roberta"),
    "xlm-roberta",
)
"""``model_type`` of the architectures whose own head gives way to one that pools in these ways."""
MODES = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "weightedmean": "weightedmean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
}
"""Values of ``pooling_mode`` in ``1_Pooling/config.json``, of checkpoints of sentence-transformers."""
OLDER_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
}
"""Fields of that file as older versions write it, each true or false."""
CLASSIFIER = "ForSequenceClassification"


@dataclass(frozen=True)
class DefaultPooling:
    """The pooling that suits a checkpoint.

    Attributes:
        name: A pooling of ``HeadSpec``.
        whose: Who says so, for people.
        is_saved: Whether the checkpoint has a head of this package, which pools so.
    """

    name: str
    whose: str
    is_saved: bool = False


def declared_pooling(path: str, revision: str | None = None) -> str | None:
    """Return the pooling that a checkpoint of sentence-transformers declares in ``1_Pooling/config.json``.

    Returns:
        A name of ``POOLING_NAMES``; None if it declares none, one that is not known, or several at once.
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
    declared = [MODES.get(str(each)) for each in modes]
    declared = declared or [name for field, name in OLDER_MODES.items() if content.get(field)]
    return declared[0] if len(declared) == 1 else None


def default_pooling(config: PreTrainedConfig, path: str, revision: str | None = None) -> DefaultPooling:
    """Return the pooling that suits a checkpoint.

    A checkpoint that is a classifier already keeps what its head reads. Where docs/rates.md has the mean over places,
    the architecture's own head reads just that.

    Args:
        config: Of the checkpoint.
        path: Of the checkpoint: a Hub id or a folder.
        revision: Branch, tag or commit on the Hub.
    """
    own = DefaultPooling(OWN, "what the architecture's own head reads")
    if config.model_type not in POOLED:
        return own
    saved = _settings(path, revision)
    if isinstance(head := saved.get(FIELD), Mapping):
        pool = head.get("pool")
        return DefaultPooling(str(pool), "the checkpoint's own head pools so", is_saved=True) if pool else own
    architectures = saved.get("architectures")
    if isinstance(architectures, list) and any(str(name).endswith(CLASSIFIER) for name in architectures):
        return own
    declared = declared_pooling(path, revision)
    if declared in HEAD_POOLINGS:
        return DefaultPooling(declared, "the checkpoint's 1_Pooling/config.json has it")
    row = find_row(config)
    if declared is not None or row is None or row.pooling == OWN:
        return own
    return DefaultPooling(row.pooling, f"default of {row.family}")


def _settings(path: str, revision: str | None) -> Mapping[str, Any]:
    """Return the settings of a checkpoint as they are in its file; nothing if they cannot be read."""
    try:
        content: Mapping[str, Any] = PreTrainedConfig.get_config_dict(path, revision=revision)[0]
    except (OSError, ValueError):
        return {}
    return content


def is_left(recipe: Recipe, default: DefaultPooling) -> bool:
    """Return whether a recipe leaves the pooling to the checkpoint.

    Args:
        recipe: Of one task, as it was given.
        default: The pooling that suits its checkpoint. That of a saved head stays, whatever the rates.
    """
    spec = recipe.model
    if spec.head.pool is not None:
        return spec.head.pool == OF_CHECKPOINT
    merges = spec.adapter is None or spec.adapter.save == "merged"
    return leaves_pooling(recipe) or (default.is_saved and merges)


def fill_pooling(
    spec: ModelSpec, default: DefaultPooling, *, is_left: bool, is_chosen: bool
) -> tuple[ModelSpec, tuple[str, ...]]:
    """Replace the pooling that is left to the checkpoint by the one that suits it, or say that another suits it.

    Args:
        spec: The checkpoint and its head, as in a recipe.
        default: The pooling that suits it.
        is_left: Whether the pooling is left to the checkpoint.
        is_chosen: Whether the run chooses the pooling by cross-validation.

    Returns:
        The checkpoint and its head, and a sentence for people where there is something to say.
    """
    needs_code = default.name != OWN
    if is_left and (needs_code or spec.head.pool is not None):
        keeps = "" if default.is_saved else "; own keeps the architecture's"
        needs = (
            f" Plain transformers needs trust_remote_code=True for this head{keeps}." if needs_code else ""
        )
        head = spec.head.model_copy(update={"pool": default.name})
        note = f"model.head.pool is {default.name}: {default.whose}.{needs}"
        return spec.model_copy(update={"head": head}), (note,)
    if spec.head.pool is not None or is_chosen or not needs_code or spec.adapter is not None:
        return spec, ()
    return spec, (
        f"model.head.pool is own, the architecture's. {POOLING_NAMES[default.name].capitalize()} would suit the "
        f"checkpoint better ({default.whose}): auto takes it, and plain transformers then needs trust_remote_code=True "
        "to load the model. own, written out, ends this note.",
    )

"""Check the weights of a checkpoint: none is missing, unexpected, of another shape, nan or infinite."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from hf_finetune.errors import InputError, Problem, join_words, short_repr
from hf_finetune.fields.patterns import PatternError, find_matches
from hf_finetune.models.pretraining_weights import pretraining_weights, untrained_norms

__all__ = ["check_finite_weights", "check_loaded_weights"]

# Poolers, pretraining heads and layer weights that a classifier does not use, and buffers of old checkpoints.
IGNORED_WEIGHTS = re.compile(
    r"(^|\.)(pooler|cls|layer_weights|lm_head|mlm_head|vocab_\w+|\w+_predictions?|decoder|mask_token)(\.|$)|position_ids$"
)
# Weight files, in the order in which transformers looks for them.
_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def check_loaded_weights(
    path: str,
    model: PreTrainedModel,
    info: dict[str, Any],
    head: set[str],
    old_head: set[str],
    allow_missing: Sequence[str],
    saved: PreTrainedConfig | None,
) -> list[str]:
    """Check that no weight is missing or unexpected, apart from those that only pretraining needs.

    Args:
        path: The checkpoint.
        model: The model with its loaded weights.
        info: Loading info of ``from_pretrained``.
        head: Names of the new head's weights.
        old_head: Names of the weights of the checkpoint's head that the new head does not have.
        allow_missing: Regular expressions of names that may be missing or unexpected.
        saved: Config in the checkpoint; None if it has none.

    Returns:
        Notes about unused and new weights.

    Raises:
        InputError: If weights are missing, unexpected, or of another shape.
    """
    is_allowed = _allowed(allow_missing, info).__contains__
    missing = [name for name in sorted(info["missing_keys"]) if name not in head and not is_allowed(name)]
    new_norms = untrained_norms(model, saved, missing) if saved is not None else {}
    missing = [name for name in missing if name not in new_norms]
    mismatched = [
        entry
        for entry in sorted(info["mismatched_keys"])
        if entry[0] not in head and not is_allowed(entry[0])
    ]
    unexpected = [name for name in sorted(info["unexpected_keys"]) if not is_allowed(name)]
    prefix = f"{model.base_model_prefix}."
    ignored = [
        name
        for name in unexpected
        if IGNORED_WEIGHTS.search(name) or _is_old_head(name, prefix) or {name, f"{prefix}{name}"} & old_head
    ]
    unknown = [name for name in unexpected if name not in ignored]
    pretrained = pretraining_weights(saved, type(model), unexpected) if saved is not None else {}
    unknown = [name for name in unknown if name not in pretrained]
    ignored = [name for name in ignored if name not in pretrained]
    if problems := _problems(path, missing, mismatched, unknown):
        raise InputError(problems)
    return _notes(pretrained, ignored, new_norms)


def _problems(
    path: str,
    missing: Sequence[str],
    mismatched: Sequence[tuple[str, Sequence[int], Sequence[int]]],
    unknown: Sequence[str],
) -> list[Problem]:
    repair = "Add the names to model.allow_missing if this is intended."
    problems = []
    if missing:
        rule = "must contain every weight outside the head"
        problems.append(
            Problem("model.path", rule, repr(path), f"It lacks {join_words(missing, 4)}. {repair}")
        )
    for name, shape, expected in mismatched[:5]:
        rule = f"must contain {name} with shape {list(expected)}"
        problems.append(Problem("model.path", rule, str(list(shape)), repair))
    if unknown:
        rule = "must contain only weights of its architecture"
        problems.append(
            Problem("model.path", rule, repr(path), f"It also contains {join_words(unknown, 4)}. {repair}")
        )
    return problems


def _notes(pretrained: Mapping[str, str], ignored: Sequence[str], new_norms: Mapping[str, str]) -> list[str]:
    notes = []
    for owner in dict.fromkeys(pretrained.values()):
        names = [name for name, class_name in pretrained.items() if class_name == owner]
        notes.append(
            f"Checkpoint weights not loaded, because only {owner} needs them: {join_words(names, 4)}."
        )
    if ignored:
        notes.append(f"Checkpoint weights not loaded: {join_words(ignored, 4)}.")
    if new_norms:
        owner = next(iter(new_norms.values()))
        notes.append(
            f"Normalization weights that {owner} does not have start as the identity: {join_words(new_norms, 4)}."
        )
    return notes


def _allowed(allow_missing: Sequence[str], info: Mapping[str, Any]) -> set[str]:
    """Return the names of missing, unexpected and mismatched weights that the recipe allows."""
    mismatched = [entry[0] for entry in info["mismatched_keys"]]
    names = {*info["missing_keys"], *info["unexpected_keys"], *mismatched}
    allowed: set[str] = set()
    for index, pattern in enumerate(allow_missing):
        try:
            allowed.update(find_matches(pattern, names))
        except PatternError as error:
            raise InputError(
                Problem(f"model.allow_missing[{index}]", str(error), short_repr(pattern))
            ) from error
    return allowed


def _is_old_head(name: str, prefix: str) -> bool:
    """Return whether a weight has a typical name of a head and lies outside the backbone's prefix."""
    return not name.startswith(prefix) and bool(re.match(r"(classifier|score|head|qa_outputs|fc)\b", name))


def check_finite_weights(path: str, model: PreTrainedModel) -> None:
    """Raise an error for a checkpoint with nan or infinite weights, which training cannot repair.

    Args:
        path: Source of the weights: a Hub id, ``timm/NAME``, or a folder.
        model: Model with the checkpoint's weights.

    Raises:
        InputError: If a parameter is not finite, or a buffer is nan; a buffer may hold a mask of infinite values.
    """
    broken = {
        name: kind
        for tensors, kinds in ((model.named_parameters(), ("nan", "inf")), (model.named_buffers(), ("nan",)))
        for name, tensor in tensors
        if (kind := _not_finite(tensor)) in kinds
    }
    if not broken:
        return
    name, kind = next(iter(broken.items()))
    file = _file_of(path, name)
    value = f"{kind} in {name}" + (f" of {file}" if file else "")
    if len(broken) > 1:
        more = len(broken) - 1
        value += f", and in {more:,} more weight{'s' if more > 1 else ''}"
    repair = "Download or copy it again, or use another checkpoint: training cannot repair it."
    raise InputError(Problem("model.path", "must contain finite weights", value, repair))


def _not_finite(tensor: torch.Tensor) -> str:
    """Return ``nan`` if a tensor contains nan, else ``inf`` if it contains an infinite value, else an empty string."""
    # fast path: the sum needs no extra memory, and is finite unless weights are broken or enormous
    if tensor.is_meta or not tensor.is_floating_point() or bool(torch.isfinite(tensor.detach().sum())):
        return ""
    if bool(torch.isnan(tensor).any()):
        return "nan"
    return "" if bool(torch.isfinite(tensor).all()) else "inf"


def _file_of(path: str, name: str) -> str:
    """Return the name of the file that contains a weight; empty if it is not known."""
    folder = Path(path).expanduser()
    file = next((file for file in _FILES if (folder / file).is_file()), "")
    if not file.endswith(".json"):
        return file
    places: dict[str, str] = json.loads((folder / file).read_text(encoding="utf-8"))["weight_map"]
    # names of backbone weights may be longer in the model than in the checkpoint
    return next((places[key] for key in places if f".{name}".endswith(f".{key}")), "")

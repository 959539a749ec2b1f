"""Selection of the input columns of a table: named by the user, known from training, or inferred from their names."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from hf_finetune.data.columns import pair_partners
from hf_finetune.data.formatting import quoted
from hf_finetune.data.label_form import read_form
from hf_finetune.errors import InputError, Problem, nearest

__all__ = ["INPUT_KEYS", "choose_columns", "find_id_column", "label_columns", "parse_columns", "takes_pairs"]

INPUT_KEYS = ("image", "text", "text_pair", "id")
"""Keys of ``--column KEY=NAME``."""

Memory = Mapping[str, Any]
"""Columns used in training, by role: image, text, text_pair, label."""

_NAMES = {
    "image": ("image", "img", "picture", "photo", "file", "file_name", "filename", "path", "image_path"),
    "text": ("text", "sentence", "review", "content", "comment", "message", "document", "body"),
}
_IDS = ("id", "idx")


def parse_columns(given: Sequence[str], keys: Collection[str] = INPUT_KEYS) -> dict[str, str]:
    """Parse columns in the form ``KEY=NAME``.

    Args:
        given: Values of ``--column``.
        keys: Valid keys.

    Returns:
        Column name by key.

    Raises:
        InputError: If a value is not of the form ``KEY=NAME``, or if a key is unknown or repeated.
    """
    columns: dict[str, str] = {}
    problems = []
    for value in given:
        key, equals, name = value.partition("=")
        if not equals or not key.strip() or not name.strip():
            rule = "must be KEY=NAME"
            problems.append(Problem("--column", rule, repr(value), "For example text=question."))
        elif key.strip() not in keys:
            rule = f"must name one of {', '.join(keys)}"
            problems.append(Problem("--column", rule, repr(key), nearest(key, tuple(keys))))
        elif key.strip() in columns:
            problems.append(Problem("--column", f"must name {key.strip()} once", repr(value)))
        else:
            columns[key.strip()] = name.strip()
    if problems:
        raise InputError(problems)
    return columns


def takes_pairs(memory: Memory | None) -> bool | None:
    """Return whether a model was trained on text pairs; None if unknown."""
    return None if memory is None or "text" not in memory else memory.get("text_pair") is not None


def label_columns(memory: Memory | None) -> tuple[str, ...]:
    """Return the label columns used in training."""
    return read_form((memory or {}).get("label")).columns


def choose_columns(
    place: str,
    present: Sequence[str],
    image: bool,
    named: Mapping[str, str],
    memory: Memory | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Choose the input columns of a table.

    Args:
        place: Name of the table in the messages.
        present: Columns of the table.
        image: Whether the inputs are images; else texts or text pairs.
        named: Columns that the user named, by role: image, text, text_pair, id.
        memory: Columns used in training; None if they are unknown.

    Returns:
        Column names by role (image, or text and possibly text_pair), and notes on the choice.

    Raises:
        InputError: If a named column is missing, or if there is no candidate or several.
    """
    foreign = ("text", "text_pair") if image else ("image",)
    problems = [
        Problem(f"--column {key}", f"must be left out for a model of {'images' if image else 'texts'}", name)
        for key, name in named.items()
        if key in foreign
    ]
    problems += [
        Problem(place, f"must have the column that was named for {key}", repr(name), nearest(name, present))
        for key, name in named.items()
        if key not in foreign and name not in present
    ]
    if problems:
        raise InputError(problems)
    known = dict(memory or {})
    candidates = [name for name in present if name not in (*label_columns(memory), *named.values())]
    if image:
        return _choose_one(place, present, "image", named, known, candidates)
    pairs = takes_pairs(memory)
    if pairs:
        return _choose_pair(place, present, named, known)
    used, notes = _choose_one(place, present, "text", named, known, candidates)
    if pairs is None:
        if "text_pair" in named:
            used["text_pair"] = named["text_pair"]
        elif used["text"] == "text" and "text_pair" in present:
            used["text_pair"] = "text_pair"
        return used, notes
    second = named.get("text_pair") or next(
        (name for name in ("text_pair", *pair_partners(used["text"])) if name in candidates), None
    )
    if second is not None and second != used["text"]:
        notes.append(f"{place}: the column {second!r} is not read, because the model takes single texts.")
    return used, notes


def _choose_one(
    place: str,
    present: Sequence[str],
    key: str,
    named: Mapping[str, str],
    known: Memory,
    candidates: Sequence[str],
) -> tuple[dict[str, str], list[str]]:
    """Choose the image column, or the text column of single texts."""
    if key in named:
        return {key: named[key]}, []
    trained = known.get(key)
    if trained in present:
        return {key: str(trained)}, []
    likely = [name for name in candidates if name.lower() in _NAMES[key]]
    # Where the trained text column is missing, another one is not inferred by name if there are several candidates.
    guess = likely[0] if len(likely) == 1 and (trained is None or key == "image") else None
    inputs = [name for name in candidates if name != find_id_column(candidates, ())]
    chosen = key if key in candidates else guess or (inputs[0] if len(inputs) == 1 else None)
    if chosen is None and len(candidates) == 1:
        chosen = candidates[0]
    if chosen is not None:
        if trained is None:
            return {key: chosen}, []
        return {key: chosen}, [f"{place}: no column {trained!r} as in training; {chosen!r} is read instead."]
    rule = f"must have one column that is plainly the {key}"
    repair = f"Rename the one with the {key}s to {key!r}, or name it: --column {key}=NAME."
    if trained is not None:
        rule = f"must have the column {trained!r}, which the model was trained on"
        close = nearest(str(trained), candidates)
        hint = f"{close} " if close.startswith("Nearest") else ""
        repair = f"{hint}Rename the one with the {key}s, or name it: --column {key}=NAME."
    raise InputError(Problem(place, rule, f"columns {quoted(present)}", repair))


def _choose_pair(
    place: str, present: Sequence[str], named: Mapping[str, str], known: Memory
) -> tuple[dict[str, str], list[str]]:
    """Choose both columns of a text pair: named by the user, as in training, or with the default names."""
    used = {}
    for key in ("text", "text_pair"):
        options = (named.get(key), known[key], key)
        used[key] = next((name for name in options if name is not None and name in present), None)
    wanted = (known["text"], known["text_pair"])
    chosen = {key: name for key, name in used.items() if name is not None}
    if len(set(chosen.values())) < len(used):
        rule = (
            f"must have the columns {wanted[0]!r} and {wanted[1]!r}, because the model takes pairs of texts"
        )
        repair = "Rename two columns, or name them: --column text=NAME --column text_pair=NAME."
        raise InputError(Problem(place, rule, f"columns {quoted(present)}", repair))
    notes = [
        f"{place}: no column {known[key]!r} as in training; {name!r} is read instead."
        for key, name in chosen.items()
        if key not in named and name != known[key]
    ]
    return chosen, notes


def find_id_column(present: Sequence[str], used: Collection[str]) -> str | None:
    """Return the column of example ids: ``id``, else the first ID, Id, idx; None if there is none."""
    likely = [name for name in present if name.lower() in _IDS and name not in used]
    return "id" if "id" in likely else likely[0] if likely else None

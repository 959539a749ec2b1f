"""Which columns hold the example, its label and its group: named, or told by their type and name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Features, Image, Value

from hf_finetune.data.formatting import MOST_SHOWN, quoted
from hf_finetune.data.label_form import LabelForm, read_form
from hf_finetune.data.locate import Modality
from hf_finetune.errors import InputError, Problem, nearest

__all__ = ["IMAGE_NAMES", "Columns", "find_columns", "find_inputs", "pair_partners", "resolved_columns"]

IMAGE_NAMES = (
    "image", "img", "picture", "photo", "file", "file_name", "filename", "path",
    "file_path", "filepath", "image_path", "image_file", "img_path",
)  # fmt: skip
_TEXT_NAMES = (
    "text", "sentence", "review", "content", "comment", "message", "tweet",
    "document", "body", "question", "title",
)  # fmt: skip
_PAIR_NAMES = (
    ("text", "text_pair"), ("text1", "text2"), ("text_a", "text_b"), ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"), ("sentence_A", "sentence_B"), ("premise", "hypothesis"),
    ("question1", "question2"), ("question", "sentence"), ("question", "answer"), ("question", "context"),
    ("question", "passage"), ("query", "document"), ("query", "passage"),
)  # fmt: skip
_LABEL_NAMES = ("label", "labels", "target", "targets", "class", "category", "sentiment", "score", "rating")
_CHOSEN_BY_SOURCE = "split"
"""The key of ``named`` that says how examples are divided, which is done when the data is loaded."""
_STRINGS = ("string", "large_string")
_BINARIES = ("binary", "large_binary")


@dataclass(frozen=True)
class Columns:
    """The columns that are used, by what they hold: ``image``, or ``text`` and perhaps ``text_pair``.

    Of ``slices``, ``texts`` are those that hold texts in some split. ``labels`` are the columns of the labels where
    each class has its own; then ``label`` is the first of them.
    """

    label: str
    labels: tuple[str, ...] = ()
    weight: str | None = None
    image: str | None = None
    text: str | None = None
    text_pair: str | None = None
    group: str | None = None
    slices: tuple[str, ...] = ()
    texts: frozenset[str] = frozenset()

    def inputs(self) -> tuple[str, ...]:
        """Names of the columns that hold the example itself."""
        return tuple(name for name in (self.image, self.text, self.text_pair) if name is not None)


def find_columns(
    features: Features, modality: Modality, named: Mapping[str, Any], group: str | None = None
) -> tuple[Columns, tuple[str, ...]]:
    """Find the columns to use, and say which were not named but inferred.

    A column of the plain name (``image``, ``text``, ``label``) is taken before any other that would do.

    Args:
        features: The columns of the data and their types.
        modality: What an example is.
        named: Column names by what they hold: image, text, text_pair, label, weight, group. None is to be inferred.
            For label also a list of names, or the fields of ``data.columns.label``.
        group: The group column of the splits. The same as ``named["group"]``; either may be given.

    Raises:
        InputError: If a named column is missing or of the wrong type, or if no column or several look right.
    """
    form = read_form(named.get("label"))
    apart = ("label", _CHOSEN_BY_SOURCE)
    given = {key: name for key, name in named.items() if name is not None and key not in apart}
    problems = _check_named(features, modality, given, group, form.columns)
    if problems:
        raise InputError(problems)
    group = group or given.get("group")
    label, label_problems = _find_label(features, form, taken=(group, *given.values()))
    taken = (label, *form.columns, group, given.get("weight"))
    if modality == "image":
        image, input_problems = _find_image(features, given, taken)
        found: dict[str, Any] = {"image": image}
    else:
        text, text_pair, input_problems = _find_text(features, given, taken)
        found = {"text": text, "text_pair": text_pair}
    if label is None or input_problems:
        raise InputError([*input_problems, *label_problems])
    labels, weight = form.columns if form.several else (), given.get("weight")
    columns = Columns(label=label, labels=labels, weight=weight, group=group, slices=(), **found)
    inferred = [
        f"{key} from {name!r}"
        for key, name in (*found.items(), ("label", label))
        if name and key not in given and name not in form.columns
    ]
    return columns, (f"Columns inferred: {', '.join(inferred)}.",) if inferred else ()


def find_inputs(features: Features, modality: Modality, named: Mapping[str, Any]) -> Columns:
    """Find the columns of the example itself in data whose labels, if there are any, are not read.

    Args:
        features: The columns of the data and their types.
        modality: What an example is.
        named: As for ``find_columns``; label and group do not matter.

    Raises:
        InputError: If a named column is missing or of the wrong type, or if no column or several look right.
    """
    inputs = ("image", "text", "text_pair")
    given = {key: name for key, name in named.items() if name is not None and key in inputs}
    if problems := _check_named(features, modality, given, None):
        raise InputError(problems)
    taken = (*read_form(named.get("label")).columns, named.get("group"), named.get("weight"))
    if modality == "image":
        image, problems = _find_image(features, given, taken)
        found: dict[str, Any] = {"image": image}
    else:
        text, text_pair, problems = _find_text(features, given, taken)
        found = {"text": text, "text_pair": text_pair}
    if problems:
        raise InputError(problems)
    return Columns(label="", slices=(), texts=frozenset(), **found)


def resolved_columns(named: Mapping[str, Any], used: Columns) -> dict[str, Any]:
    """Return the columns of inputs and labels as a recipe names them, with what was inferred filled in.

    Args:
        named: As for ``find_columns``.
        used: The columns that were found.

    Returns:
        ``image``, or ``text`` and ``text_pair`` (None for single texts), and ``label``: JSON values.
    """
    inputs = (
        {"image": used.image} if used.image is not None else {"text": used.text, "text_pair": used.text_pair}
    )
    label = named.get("label")
    return {**inputs, "label": used.label if label is None else _plain(label)}


def _plain(label: Any) -> Any:
    """Return a label column as JSON has it: lists in the place of tuples."""
    if isinstance(label, Mapping):
        return {key: _plain(value) for key, value in label.items() if value is not None}
    return list(label) if isinstance(label, tuple | list) else label


def pair_partners(name: str) -> tuple[str, ...]:
    """Return the names that a pair's second column usually has beside a first one."""
    return tuple(second for first, second in _PAIR_NAMES if first == name)


def _check_named(
    features: Features,
    modality: Modality,
    given: Mapping[str, str],
    group: str | None,
    labels: Sequence[str] = (),
) -> list[Problem]:
    problems = []
    for key, name in given.items():
        foreign = ("text", "text_pair") if modality == "image" else ("image",)
        if key in foreign:
            problems.append(
                Problem(f"data.columns.{key}", f"must be left out for {modality} data", repr(name))
            )
        elif name not in features:
            problems.append(_no_such_column(f"data.columns.{key}", name, features))
        elif key == "image" and not _is_image(features[name]):
            rule = "must hold images, file paths or the bytes of image files"
            problems.append(Problem("data.columns.image", rule, _typed(name, features)))
        elif key in ("text", "text_pair") and not _is_string(features[name]):
            problems.append(Problem(f"data.columns.{key}", "must hold strings", _typed(name, features)))
    if "text_pair" in given and "text" not in given and modality == "text":
        problems.append(
            Problem(
                "data.columns.text", "must be named when text_pair is", f"text_pair {given['text_pair']!r}"
            )
        )
    problems += [
        _no_such_column("data.columns.label", name, features) for name in labels if name not in features
    ]
    if group is not None and group not in features:
        problems.append(_no_such_column("data.split.group", group, features))
    elif group is not None and given.get("group", group) != group:
        value = f"{group!r} and {given['group']!r}"
        problems.append(Problem("data.split.group", "must be the same column as data.columns.group", value))
    return problems


def _find_label(
    features: Features, form: LabelForm, taken: Sequence[str | None]
) -> tuple[str | None, list[Problem]]:
    if form.columns:
        return form.columns[0], []
    candidates = [name for name in features if name.lower() in _LABEL_NAMES and name not in taken]
    if not candidates:
        candidates = [n for n in features if isinstance(features[n], ClassLabel) and n not in taken]
    return _only_one("label", "labels", candidates, features)


def _find_image(
    features: Features, given: Mapping[str, str], taken: Sequence[str | None]
) -> tuple[str | None, list[Problem]]:
    if "image" in given:
        return given["image"], []
    usable = [name for name in features if _is_image(features[name]) and name not in taken]
    candidates = [name for name in usable if isinstance(features[name], Image)]
    if not candidates:
        candidates = [name for name in usable if name.lower() in IMAGE_NAMES]
    if not candidates:
        candidates = [name for name in usable if not _is_string(features[name])]
    return _only_one("image", "images", candidates, features)


def _find_text(
    features: Features, given: Mapping[str, str], taken: Sequence[str | None]
) -> tuple[str | None, str | None, list[Problem]]:
    if "text" in given:
        return given["text"], given.get("text_pair"), []
    usable = [name for name in features if _is_string(features[name]) and name not in taken]
    pairs = [pair for pair in _PAIR_NAMES if pair[0] in usable and pair[1] in usable]
    if len(pairs) == 1:
        return *pairs[0], []
    candidates = [name for name in usable if name.lower() in _TEXT_NAMES]
    if not candidates and len(usable) == 1:
        candidates = usable
    text, problems = _only_one("text", "texts", candidates, features)
    return text, None, problems


def _only_one(
    key: str, plural: str, candidates: Sequence[str], features: Features
) -> tuple[str | None, list[Problem]]:
    """Take the candidate of the plain name, or the only one there is."""
    if key in candidates:
        return key, []
    if len(candidates) == 1:
        return candidates[0], []
    place, repair = f"data.columns.{key}", f"Set data.columns.{key} to one of them."
    if candidates:
        found = quoted(candidates, MOST_SHOWN)
        return None, [
            Problem(place, f"must be named, because several columns look like {plural}", found, repair)
        ]
    if key == "label" and len(features) == 1:
        repair = "If the columns are separated by another character than a comma, set data.separator."
    found = f"columns {quoted(features, MOST_SHOWN)}" if features else "no columns"
    return None, [Problem(place, f"must be named, because no column looks like {plural}", found, repair)]


def _is_string(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in _STRINGS


def _is_image(feature: Any) -> bool:
    """Images of ``datasets``, paths, bytes, or the ``{bytes, path}`` pairs that images are stored as."""
    if isinstance(feature, Image) or _is_string(feature):
        return True
    if isinstance(feature, Value):
        return feature.dtype in _BINARIES
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _no_such_column(place: str, name: str, features: Features) -> Problem:
    return Problem(place, "must be a column of the data", repr(name), nearest(name, list(features)))


def _typed(name: str, features: Features) -> str:
    feature = features[name]
    return f"{name!r} of type {feature.dtype if isinstance(feature, Value) else type(feature).__name__}"

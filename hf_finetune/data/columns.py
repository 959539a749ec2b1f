"""Selection of the input, label and group columns: named by the user, or inferred from type and name."""

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
"""Key of ``named`` with the column that assigns rows to splits, which is applied when the data is loaded."""
_STRINGS = ("string", "large_string")
_BINARIES = ("binary", "large_binary")


@dataclass(frozen=True)
class Columns:
    """Names of the columns that are used, by role.

    Attributes:
        label: Label column; the first of ``labels`` where each class has its own column; empty if labels are not read.
        labels: Label columns where each class has its own column; else empty.
        weight: Column of example weights.
        image: Image column; None for text data.
        text: Text column; None for image data.
        text_pair: Column of the second text of a pair.
        group: Group column.
        slices: Columns for evaluation by slice.
        texts: Those of ``slices`` that hold texts in some split.
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
        """Return the names of the input columns."""
        return tuple(name for name in (self.image, self.text, self.text_pair) if name is not None)


def find_columns(
    features: Features, modality: Modality, named: Mapping[str, Any], group: str | None = None
) -> tuple[Columns, tuple[str, ...]]:
    """Find the columns to use.

    A column with the default name (``image``, ``text``, ``label``) is preferred to all other candidates.

    Args:
        features: Columns of the data and their types.
        modality: Kind of input: image or text.
        named: Column names by role: image, text, text_pair, label, weight, group. None means that the column is
            inferred. The label may also be a list of names, or the fields of ``data.columns.label``.
        group: Group column of the splits. The same as ``named["group"]``; either may be set.

    Returns:
        The columns, and a note on those that were inferred (empty if there are none).

    Raises:
        InputError: If a named column is missing or of the wrong type, or if there is no candidate or several.
    """
    form = read_form(named.get("label"))
    apart = ("label", _CHOSEN_BY_SOURCE)
    named_columns = {key: name for key, name in named.items() if name is not None and key not in apart}
    problems = _check_named(features, modality, named_columns, group, form.columns)
    if problems:
        raise InputError(problems)
    group = group or named_columns.get("group")
    label, label_problems = _find_label(features, form, taken=(group, *named_columns.values()))
    taken = (label, *form.columns, group, named_columns.get("weight"))
    if modality == "image":
        image, input_problems = _find_image(features, named_columns, taken)
        input_columns: dict[str, Any] = {"image": image}
    else:
        text, text_pair, input_problems = _find_text(features, named_columns, taken)
        input_columns = {"text": text, "text_pair": text_pair}
    if label is None or input_problems:
        raise InputError([*input_problems, *label_problems])
    labels, weight = form.columns if form.several else (), named_columns.get("weight")
    columns = Columns(label=label, labels=labels, weight=weight, group=group, slices=(), **input_columns)
    inferred = [
        f"{key} from {name!r}"
        for key, name in (*input_columns.items(), ("label", label))
        if name and key not in named_columns and name not in form.columns
    ]
    return columns, (f"Columns inferred: {', '.join(inferred)}.",) if inferred else ()


def find_inputs(features: Features, modality: Modality, named: Mapping[str, Any]) -> Columns:
    """Find the input columns of data whose labels, if any, are not read.

    Args:
        features: Columns of the data and their types.
        modality: Kind of input: image or text.
        named: As for ``find_columns``; the columns of label, weight and group are only excluded from the candidates.

    Raises:
        InputError: If a named column is missing or of the wrong type, or if there is no candidate or several.
    """
    inputs = ("image", "text", "text_pair")
    named_columns = {key: name for key, name in named.items() if name is not None and key in inputs}
    if problems := _check_named(features, modality, named_columns, None):
        raise InputError(problems)
    taken = (*read_form(named.get("label")).columns, named.get("group"), named.get("weight"))
    if modality == "image":
        image, problems = _find_image(features, named_columns, taken)
        input_columns: dict[str, Any] = {"image": image}
    else:
        text, text_pair, problems = _find_text(features, named_columns, taken)
        input_columns = {"text": text, "text_pair": text_pair}
    if problems:
        raise InputError(problems)
    return Columns(label="", slices=(), texts=frozenset(), **input_columns)


def resolved_columns(named: Mapping[str, Any], used: Columns) -> dict[str, Any]:
    """Return the input and label columns as fields of a recipe, with inferred columns filled in.

    Args:
        named: As for ``find_columns``.
        used: Columns returned by ``find_columns``.

    Returns:
        ``image``, or ``text`` and ``text_pair`` (None for single texts), and ``label``: JSON values.
    """
    inputs = (
        {"image": used.image} if used.image is not None else {"text": used.text, "text_pair": used.text_pair}
    )
    label = named.get("label")
    return {**inputs, "label": used.label if label is None else _plain(label)}


def _plain(label: Any) -> Any:
    """Return a label field with JSON types only: lists instead of tuples, and no null entries."""
    if isinstance(label, Mapping):
        return {key: _plain(value) for key, value in label.items() if value is not None}
    return list(label) if isinstance(label, tuple | list) else label


def pair_partners(name: str) -> tuple[str, ...]:
    """Return the usual names of the second column of a text pair, by the name of the first."""
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
    """Return the candidate with the default name, or the only candidate; else a problem."""
    if key in candidates:
        return key, []
    if len(candidates) == 1:
        return candidates[0], []
    place, repair = f"data.columns.{key}", f"Set data.columns.{key} to one of them."
    if candidates:
        column_list = quoted(candidates, MOST_SHOWN)
        return None, [
            Problem(place, f"must be named, because several columns look like {plural}", column_list, repair)
        ]
    if key == "label" and len(features) == 1:
        repair = "If the columns are separated by another character than a comma, set data.separator."
    column_list = f"columns {quoted(features, MOST_SHOWN)}" if features else "no columns"
    return None, [
        Problem(place, f"must be named, because no column looks like {plural}", column_list, repair)
    ]


def _is_string(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in _STRINGS


def _is_image(feature: Any) -> bool:
    """Return whether a column holds images of ``datasets``, paths, bytes, or ``{bytes, path}`` structs of images."""
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

"""Selectors: convert the value of ``train:`` in a stage into parameter names."""

import re
from collections.abc import Sequence

from hf_finetune.errors import InputError, Problem, counted, short_repr, suggestion
from hf_finetune.fields.patterns import PatternError, find_matches
from hf_finetune.planning.layers import Layout

__all__ = ["AUTO", "LAST", "form_problems", "select"]

AUTO = "auto"
"""Selector for the default of the checkpoint's architecture, replaced in a plan; cannot be combined with others."""
KEYWORDS = ("head", "all", "norms", "biases")
ADAPTER_KEYWORDS = ("adapter", "lora", "dora", "ia3")
PATTERN_FORMS = ("last:N", "layers[A:B]", "/regular expression/")
LAST = re.compile(r"last:(\d+)")
LAYERS = re.compile(r"layers\[(-?\d+)?(:)?(-?\d+)?\]")


def select(layout: Layout, selector: str | Sequence[str], place: str = "train") -> tuple[str, ...]:
    """Return the names of the parameters that a selector matches, in the model's order.

    Args:
        layout: Parameters and layer groups of the model.
        selector: ``head``; ``all``; ``last:3`` (the head and the last three layer groups); ``layers[8:]`` (layer
            groups by index or slice, 0 = nearest the input, without the head); ``norms``; ``biases``;
            ``lora``, ``dora``, ``ia3`` or ``adapter`` (the model's adapter and the head);
            ``/regular expression/`` searched in parameter names; or a list of these, which means their union.
            An adapter's weights are matched by words and regular expressions that apply to them, such as ``all``, but
            not by ``head``, ``last:N`` and ``layers[A:B]``.
        place: Location of the selector in the recipe, for the error.

    Raises:
        InputError: If a selector is malformed or matches no parameter.
    """
    parts = [selector] if isinstance(selector, str) else list(selector)
    if not parts:
        raise InputError(Problem(place, "must not be empty", "[]", _forms(layout.adapter)))
    problems: list[Problem] = []
    chosen: set[str] = set()
    for part in parts:
        try:
            matched = _match(layout, part, place)
        except InputError as error:
            problems.extend(error.problems)
            continue
        if not matched:
            problems.append(_no_match(layout, part, place))
        chosen.update(matched)
    if problems:
        raise InputError(problems)
    return tuple(name for name in layout.names() if name in chosen)


def _match(layout: Layout, part: str, place: str) -> set[str]:
    head = layout.head_group
    if part == "all":
        return set(layout.names())
    if part == "head":
        return _in_groups(layout, {head})
    if part in ADAPTER_KEYWORDS:
        return _adapter(layout, part, place)
    if part == "norms":
        return {parameter.name for parameter in layout.parameters if parameter.is_norm}
    if part == "biases":
        return {parameter.name for parameter in layout.parameters if parameter.is_bias}
    if last := LAST.fullmatch(part):
        return _in_groups(layout, _last(int(last[1]), head, part, place))
    if layers := LAYERS.fullmatch(part):
        return _in_groups(layout, _slice(layers, head, part, place))
    if len(part) > 2 and part.startswith("/") and part.endswith("/"):
        bare_names = [parameter.bare_name for parameter in layout.parameters]
        try:
            matched = find_matches(part[1:-1], bare_names)
        except PatternError as error:
            raise InputError(Problem(place, str(error), short_repr(part))) from error
        return {parameter.name for parameter in layout.parameters if parameter.bare_name in matched}
    raise InputError(_selector_problem(part, place, layout.adapter))


def form_problems(selector: str | Sequence[str], place: str, adapter: str | None = None) -> list[Problem]:
    """Return a problem for each part of a selector that is invalid for every model.

    Args:
        selector: Selector, see ``select``.
        place: Location of the selector in the recipe, for the problem.
        adapter: Kind of the model's adapter; None if it has none.
    """
    if selector == AUTO:
        return []
    parts = [selector] if isinstance(selector, str) else list(selector)
    return [_selector_problem(part, place, adapter) for part in parts if not _has_form(part)]


def _has_form(part: str) -> bool:
    is_pattern = len(part) > 2 and part.startswith("/") and part.endswith("/")
    return (
        part in (*KEYWORDS, *ADAPTER_KEYWORDS)
        or is_pattern
        or bool(LAST.fullmatch(part) or LAYERS.fullmatch(part))
    )


def _selector_problem(part: str, place: str, adapter: str | None) -> Problem:
    if part == AUTO:
        return Problem(place, "must be a valid selector", repr(part), "Write auto alone, not in a list.")
    words = (*KEYWORDS, adapter) if adapter else KEYWORDS
    return Problem(
        place, "must be a valid selector", repr(part), f"{suggestion(part, words)} {_forms(adapter)}"
    )


def _forms(adapter: str | None) -> str:
    words = (*KEYWORDS, adapter) if adapter else KEYWORDS
    return f"Valid: {', '.join((*words, *PATTERN_FORMS))}."


def _adapter(layout: Layout, part: str, place: str) -> set[str]:
    """Return the names of the adapter's weights and of the head: a new task needs both (peft's ``modules_to_save``)."""
    if not layout.adapter or part not in ("adapter", layout.adapter):
        kind = "lora" if part == "adapter" else part
        repair = f"Add it with model.adapter={kind}."
        if layout.adapter:
            repair = f"The model has {layout.adapter!r}."
        raise InputError(Problem(place, "must be the adapter of the model", repr(part), repair))
    adapter_names = {parameter.name for parameter in layout.parameters if parameter.is_adapter}
    return adapter_names | _in_groups(layout, {layout.head_group})


def _last(count: int, head: int, part: str, place: str) -> set[int]:
    if not 1 <= count <= head:
        rule = f"must select between 1 and {head} layer groups, the number in this model"
        repair = "For no layer group use 'head', for the whole model 'all'."
        raise InputError(Problem(place, rule, repr(part), repair))
    return set(range(head - count, head + 1))


def _slice(match: re.Match[str], head: int, part: str, place: str) -> set[int]:
    start, colon, stop = match.groups()
    if not colon:
        if start is None or not -head <= int(start) < head:
            rule = f"must index one of the {head} layer groups, 0 to {head - 1}"
            raise InputError(Problem(place, rule, repr(part)))
        return {int(start) % head}
    bounds = slice(int(start) if start else None, int(stop) if stop else None)
    return set(range(head)[bounds])


def _in_groups(layout: Layout, groups: set[int]) -> set[str]:
    return {
        parameter.name
        for parameter in layout.parameters
        if parameter.group in groups and not parameter.is_adapter
    }


def _no_match(layout: Layout, part: str, place: str) -> Problem:
    if part.startswith("/"):
        names = [parameter.bare_name for parameter in layout.parameters]
        repair = suggestion(part[1:-1], _name_parts(layout))
        if not repair.startswith("Nearest"):
            repair = (
                f"The names of this model's {len(names)} parameter tensors range from {names[0]!r} to "
                f"{names[-1]!r}."
            )
        return Problem(place, "must match at least one parameter", repr(part), repair)
    groups = counted(layout.backbone_group_count, "layer group")
    counts = f"This model has {groups} and {counted(len(layout.parameters), 'parameter tensor')}."
    return Problem(place, "must match at least one parameter", repr(part), counts)


def _name_parts(layout: Layout) -> list[str]:
    """Return the dotted prefixes and the single words of the parameter names, to suggest the nearest one to a typo."""
    prefixes: dict[str, None] = {}
    for parameter in layout.parameters:
        words = parameter.bare_name.split(".")
        for end in range(1, len(words) + 1):
            prefixes[".".join(words[:end])] = None
            prefixes[words[end - 1]] = None
    return list(prefixes)

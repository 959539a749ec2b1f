"""Reading and writing of YAML. Repeated keys are errors, and 1e-3 is a number, unlike in plain PyYAML."""

import re
from collections.abc import Hashable
from operator import itemgetter
from typing import Any

import yaml

from hf_finetune.errors import InputError, Problem, short_repr

__all__ = ["MAX_BYTES", "MAX_VALUES", "read_yaml", "write_flow_yaml", "write_yaml"]

MAX_BYTES = 1_000_000
"""Maximum size of a recipe file, in bytes; typical files have a few thousand."""
MAX_VALUES = 50_000
"""Maximum number of keys and values of a recipe; those of an alias (*name) count at each use."""

# YAML 1.2 core schema; PyYAML implements YAML 1.1, where a float needs a point and its exponent a sign
EXPONENT_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z")
FLOAT_TAG = "tag:yaml.org,2002:float"
MERGE_TAG = "tag:yaml.org,2002:merge"


MAX_INTEGER_BITS = 14_000
"""Maximum size of an integer, in bits: Python refuses to print integers of more than 4,300 digits."""


class TooManyValuesError(Exception):
    """Raised if a document has more than ``MAX_VALUES`` values; the rest of it is not read."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that records repeated keys, reads 1e-3 as a float, and stops at ``MAX_VALUES``."""

    def __init__(self, text: str):
        super().__init__(text)
        self.values = 0
        self.repeated: list[tuple[Any, int, int]] = []  # key, its line, line of its first use; 1-based

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.values += 1
        if self.values > MAX_VALUES:
            raise TooManyValuesError
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != MERGE_TAG:
                key, line = self.construct_object(key_node), key_node.start_mark.line + 1
                if key in lines:
                    self.repeated.append((key, line, lines[key]))
                lines.setdefault(key, line)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
                raise ValueError("too long")
            return value
        except (ValueError, KeyError, AttributeError) as error:  # 2024-13-45, !!bool maybe, !!timestamp today
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"not a valid {kind}", node.start_mark
            ) from error


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes text which the loader would read as a float."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(FLOAT_TAG, EXPONENT_FLOAT, list("-+.0123456789"))


def read_yaml(text: str, origin: str) -> tuple[Any, list[Problem]]:
    """Read one YAML document.

    Args:
        text: YAML document.
        origin: Name of the document in problems, such as the path of its file.

    Returns:
        Content of the document, and a problem for each repeated key.

    Raises:
        InputError: If the text is not valid YAML, or its content is too large or nested too deeply.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            _check_size(node, origin)
        value = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise InputError(_syntax_problem(error, text, origin)) from error
    except yaml.reader.ReaderError as error:
        place = f"{origin}, character {error.position + 1}"
        raise InputError(
            Problem(place, "must be printable text", short_repr(chr(error.character)))
        ) from error
    except TooManyValuesError as error:
        raise InputError(Problem(origin, f"must contain at most {MAX_VALUES:,} values")) from error
    except RecursionError as error:
        raise InputError(Problem(origin, "must not be nested too deeply")) from error
    repeated = [
        Problem(
            f"{origin}, line {line}",
            f"must not repeat the key {key!r} of line {first}",
            repair="Keep one of them.",
        )
        for key, line, first in sorted(loader.repeated, key=itemgetter(1))
    ]
    return value, repeated


def _check_size(root: yaml.Node, origin: str) -> None:
    """Check the number of values that a document has with its aliases expanded, without expanding them.

    Raises:
        InputError: If there are more than ``MAX_VALUES``, or a value contains itself through an alias.
    """
    sizes: dict[int, int | None] = {}  # None while the children of the node are being counted

    def size(node: yaml.Node) -> int:
        key = id(node)
        if key in sizes:
            known = sizes[key]
            if known is None:
                place = f"{origin}, line {node.start_mark.line + 1}"
                raise InputError(Problem(place, "must not contain a circular alias (*name)"))
            return known
        sizes[key] = None
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        total = 1 + sum(map(size, children))
        sizes[key] = total
        return total

    if (values := size(root)) > MAX_VALUES:
        rule = (
            f"must contain at most {MAX_VALUES:,} values, with those of aliases (*name) counted at each use"
        )
        raise InputError(Problem(origin, rule, f"{values:.3g}" if values > 10**9 else f"{values:,}"))


def write_yaml(value: Any) -> str:
    """Return plain mappings, lists, numbers and texts as YAML text, in their order."""
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )


def write_flow_yaml(value: Any) -> str:
    """Return plain mappings, lists, numbers and texts as YAML text in one line, without the line break.

    Args:
        value: Value to write.
    """
    for style in (
        None,
        '"',
    ):  # only double quotes can keep a line break and other control characters in one line
        text: str = yaml.dump(
            value,
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            width=float("inf"),
            default_flow_style=True,
            default_style=style,
        )
        text = text.removesuffix("\n").removesuffix("\n...")
        if text.isprintable():
            break
    return text


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, origin: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Problem(origin, "must be valid YAML", repair=f"{error.problem}.")
    lines = [*text.splitlines(), ""]
    if error.context_mark is not None and not "".join(lines[mark.line :]).strip():
        # the parser fails at the end of the file; the error is where the construct began
        mark = error.context_mark
    line = lines[mark.line].strip()
    message = ", ".join(part for part in (error.context, error.problem) if part)
    repair = f"YAML parser error: {message}."
    if r"'\t'" in message:
        repair = "Indent with spaces, not tabs."
    elif "layers[" in line:
        repair = "Inside [] and {}, put a selector such as layers[8:] in quotes."
    return Problem(
        f"{origin}, line {mark.line + 1}, column {mark.column + 1}",
        "must be valid YAML",
        short_repr(line),
        repair,
    )

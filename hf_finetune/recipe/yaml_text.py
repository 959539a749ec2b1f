"""YAML in and out. Repeated keys are errors, and 1e-3 is a number, which PyYAML alone would read as text."""

import re
from collections.abc import Hashable
from operator import itemgetter
from typing import Any

import yaml

from hf_finetune.errors import InputError, Problem
from hf_finetune.recipe.rules import shown

__all__ = ["read_yaml", "write_yaml"]

# YAML 1.2 core schema; PyYAML implements YAML 1.1, where a float needs a point and its exponent a sign
EXPONENT_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z")
FLOAT_TAG = "tag:yaml.org,2002:float"
MERGE_TAG = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """SafeLoader that remembers repeated keys and reads 1e-3 as a float."""

    def __init__(self, text: str):
        super().__init__(text)
        self.repeated: list[tuple[Any, int, int]] = []  # key, its line, the line of the first; counted from 1

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
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError) as error:  # 2024-13-45, !!bool maybe, !!timestamp today
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"not a valid {kind}", node.start_mark
            ) from error


class _Dumper(yaml.SafeDumper):
    """SafeDumper that puts quotes around text which the loader would read as a float."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(FLOAT_TAG, EXPONENT_FLOAT, list("-+.0123456789"))


def read_yaml(text: str, origin: str) -> tuple[Any, list[Problem]]:
    """Read one YAML document.

    Args:
        text: The document.
        origin: What to call it in problems: a file's path.

    Returns:
        What it holds, and a problem for each repeated key.

    Raises:
        InputError: If it is not YAML.
    """
    try:
        loader = _Loader(text)
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        raise InputError(_syntax_problem(error, text, origin)) from error
    except yaml.reader.ReaderError as error:
        place = f"{origin}, character {error.position + 1}"
        raise InputError(Problem(place, "must be printable text", shown(chr(error.character)))) from error
    except RecursionError as error:
        raise InputError(Problem(origin, "must be nested less deeply")) from error
    repeated = [
        Problem(
            f"{origin}, line {line}",
            f"must not repeat the key {key!r} of line {first}",
            repair="Keep one of them.",
        )
        for key, line, first in sorted(loader.repeated, key=itemgetter(1))
    ]
    return value, repeated


def write_yaml(value: Any) -> str:
    """Write plain mappings, lists, numbers and texts as YAML, in their order."""
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, origin: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Problem(origin, "must be valid YAML", repair=f"{error.problem}.")
    lines = [*text.splitlines(), ""]
    if error.context_mark is not None and not "".join(lines[mark.line :]).strip():
        mark = error.context_mark  # the parser notices at the end of the file; the mistake is where it began
    line = lines[mark.line].strip()
    said = ", ".join(part for part in (error.context, error.problem) if part)
    repair = f"YAML's parser says: {said}."
    if r"'\t'" in said:
        repair = "Indent with spaces, not tabs."
    elif "layers[" in line:
        repair = "Inside [] and {}, put a selector such as layers[8:] in quotes."
    return Problem(
        f"{origin}, line {mark.line + 1}, column {mark.column + 1}", "must be valid YAML", shown(line), repair
    )

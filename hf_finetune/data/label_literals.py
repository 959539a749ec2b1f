"""Parser of lists and mappings that are printed as text in the cells of a label column."""

import ast
import io
import json
import re
import tokenize
from itertools import pairwise
from typing import Any

__all__ = ["looks_like_literal", "read_literal"]

MAX_CHARACTERS = 100_000
"""Maximum length of a cell that is parsed."""
NUMPY_NUMBERS = re.compile(r"\[\s*[-+.\deE]+(?:\s+[-+.\deE]+)*\s*\]")
NUMPY_TEXTS = re.compile(r"""\[\s*(?:'[^']*'|"[^"]*")(?:\s+(?:'[^']*'|"[^"]*"))+\s*\]""")


def looks_like_literal(cell: str) -> bool:
    """Return whether a cell looks like a printed list, mapping or tuple: it is enclosed in brackets or braces."""
    text = cell.strip()
    return (len(text) > 1 and text[0] + text[-1] in ("[]", "{}")) or _is_tuple(text)


def read_literal(cell: str) -> list[Any] | dict[str, Any] | None:
    """Parse a list or a mapping printed by Python, JSON or numpy. No code is executed.

    Args:
        cell: Text such as ``['a', 'b']``, ``["a", "b"]``, ``{"a": 0.2}``, ``[0 1 1]`` or ``['a' 'b']``.

    Returns:
        A list, or a mapping with texts as keys; None if the cell is neither.
    """
    text = cell.strip()
    if len(text) > MAX_CHARACTERS:
        return None
    if NUMPY_TEXTS.fullmatch(text):  # Python would concatenate adjacent string literals
        return [literal[1:-1] for literal in re.findall(r"""'[^']*'|"[^"]*\"""", text)]
    if NUMPY_NUMBERS.fullmatch(text):
        text = "[" + ", ".join(text.strip("[] \n").split()) + "]"
    for read in (json.loads, ast.literal_eval):
        try:
            literal = read(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        if isinstance(literal, dict):
            return {str(key): value for key, value in literal.items()}
        if isinstance(literal, set | frozenset):
            return sorted(literal, key=str)
        if isinstance(literal, list | tuple) and not (read is ast.literal_eval and _joins_texts(text)):
            return list(literal)
    return None


def _is_tuple(text: str) -> bool:
    if not (text.startswith("(") and text.endswith(")")) or len(text) > MAX_CHARACTERS:
        return False
    try:
        return isinstance(ast.literal_eval(text), tuple)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return False


def _joins_texts(text: str) -> bool:
    """Return whether two string literals are adjacent without a comma, which Python would concatenate."""
    kinds = [
        token.type
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in (tokenize.NL, tokenize.NEWLINE)
    ]
    return any(first == second == tokenize.STRING for first, second in pairwise(kinds))

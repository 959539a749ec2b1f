"""Numbers as text: their forms, with a decimal point or comma, and without thousands separators."""

import re

__all__ = ["DECIMAL_COMMA", "FLOAT", "INFINITE", "INTEGER", "MINUS", "SIGN", "parse_number"]

MINUS = "\u2212"
"""Unicode minus sign, which spreadsheets and word processors write instead of a hyphen."""
SIGN = f"[+{MINUS}-]?"
INTEGER = f"0|[{MINUS}-]?[1-9][0-9]*"
FLOAT = rf"{SIGN}((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
"""Pattern of a number without leading zeros; values with leading zeros are codes."""
INFINITE = rf"{SIGN}([iI]nf(inity)?|INF)"
DECIMAL_COMMA = rf"{SIGN}(0|[1-9][0-9]*),[0-9]+"


def parse_number(text: str, mark: str) -> float | None:
    """Return the number of a text; None if it is none, or has another decimal mark or thousands separators.

    Args:
        text: Text such as ``-1.5``.
        mark: Decimal mark, a point or a comma.
    """
    written = text.strip().replace(MINUS, "-")
    plain = written
    if mark == ",":
        plain = plain.replace(",", ".") if re.fullmatch(DECIMAL_COMMA, plain) else plain
        if not re.fullmatch(rf"{INTEGER}|{DECIMAL_COMMA}", written) and re.fullmatch(FLOAT, written):
            return None if "." in written else float(written)
    return float(plain) if re.fullmatch(rf"{FLOAT}|{INFINITE}", plain) else None

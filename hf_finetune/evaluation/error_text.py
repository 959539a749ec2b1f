"""Errors of other libraries, told in a line."""

__all__ = ["cause_of", "format_error"]


def format_error(error: BaseException) -> str:
    """Give the type of an error and the first line that it says, without a full stop."""
    first_line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first_line}".rstrip(".: ")


def cause_of(error: BaseException) -> str:
    """Tell what first went wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return format_error(error)

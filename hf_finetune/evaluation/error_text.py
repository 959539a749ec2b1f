"""Exceptions of other libraries, formatted as one line."""

__all__ = ["cause_of", "format_error"]


def format_error(error: BaseException) -> str:
    """Return the type of an exception and the first line of its message, without a full stop.

    Args:
        error: Exception.
    """
    first_line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first_line}".rstrip(".: ")


def cause_of(error: BaseException) -> str:
    """Format the exception at the start of a chain of causes.

    Args:
        error: Exception at the end of the chain.

    Returns:
        Text of its first cause, as ``format_error`` returns it.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return format_error(error)

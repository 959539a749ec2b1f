"""Error messages and exit codes of the command line."""

import errno
import os
from collections.abc import Sequence

import typer
from rich.console import Console

from hf_finetune.errors import InputError, Problem, counted

__all__ = ["print_failure", "print_input_error", "print_unpublished"]

MAX_PROBLEMS = 20
"""Maximum number of problems that are printed for one input."""
# Base class of typer's errors for an invalid command line: ClickException of click, or of the copy of click that
# newer versions of typer include.
USAGE_ERROR = typer.BadParameter.__mro__[2]


def print_input_error(console: Console, error: InputError, before: int = 0) -> int:
    """Print each problem, on the main process only, and return the exit code, 2.

    Args:
        console: Console to print to.
        error: Error that contains the problems.
        before: Number of problems of the same input that were printed earlier.
    """
    if int(os.environ.get("RANK", "0")) == 0:
        count = len(error.problems)
        title = counted(count, "problem") if count > 1 else "Problem"
        if before:
            title = f"The remaining checks found {counted(count, 'more problem')}"
        console.print(f"[bold red]{title}:[/]")
        for problem in error.problems[:MAX_PROBLEMS]:
            console.print(f"  {problem}", markup=False)
        if count > MAX_PROBLEMS:
            console.print(f"  ... and {count - MAX_PROBLEMS:,} more.", markup=False)
    return 2


def print_unpublished(console: Console, problems: Sequence[Problem], command: str) -> None:
    """Print why the model of a finished run was not published, and the command that publishes it.

    Args:
        console: Console to print to.
        problems: Reasons why the model was not published.
        command: Command that publishes it.
    """
    console.print("[bold red]The run is finished, but its model was not published:[/]")
    for problem in problems:
        console.print(f"  {problem}", markup=False)
    console.print(f"To publish it later: {command}", markup=False)


def print_failure(console: Console, error: Exception) -> int:
    """Print an error other than ``InputError`` briefly, and return the exit code.

    Args:
        console: Console to print to.
        error: Error that ended the command.

    Raises:
        Exception: The error itself, if the environment variable ``HF_FINETUNE_TRACEBACK`` is set.
    """
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, typer.Abort):
        return 130
    if isinstance(error, USAGE_ERROR):
        error.show()  # type: ignore[attr-defined]
        return error.exit_code  # type: ignore[attr-defined]
    if os.environ.get("HF_FINETUNE_TRACEBACK"):
        raise error
    if _disk_is_full(error):
        console.print(
            "[bold red]The disk is full.[/] Files saved before are kept; resume a run with --resume."
        )
        return 1
    name = type(error).__name__
    # by name, because importing these classes would import torch
    is_explained = name in ("DivergedError", "LostProcessError")
    console.print(f"[bold red]{'Stopped' if is_explained else name}:[/]", end=" ")
    console.print(str(error), markup=False)
    if not is_explained:
        console.print("Set HF_FINETUNE_TRACEBACK=1 to see the traceback.", style="dim")
    return 1


def _disk_is_full(error: BaseException | None) -> bool:
    """Return whether an error or a cause of it is a full disk. safetensors sets no errno, so the text is matched."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if any(words in str(error) for words in ("No space left on device", "File too large")):
            return True
        error = error.__cause__
    return False

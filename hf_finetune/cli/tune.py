"""The command `tune`: search the values of recipe fields."""

import json
import logging
import os
import shlex
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hf_finetune.cli.search import print_table
from hf_finetune.cli.terminal import TrustRemoteCode, err, out
from hf_finetune.errors import InputError, Problem, counted, format_seconds, join_words, truncate

if TYPE_CHECKING:
    from hf_finetune.search.parts import Part
    from hf_finetune.search.trials import Trial
    from hf_finetune.search.tune import SearchResult

__all__ = ["SearchLines", "is_main_process", "print_trials", "read_seconds", "tune_app"]

tune_app = typer.Typer()


@tune_app.command("tune")
def tune_command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="Path of a recipe, or name of a shipped one.")
    ],
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUES]...",
            help="Fields to search: KEY=log:LOW..HIGH, KEY=LOW..HIGH or KEY=VALUE,VALUE, besides `search` of the "
            "recipe; KEY=VALUE sets a field for all trials.",
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            "--time", help="Time of the search, such as 20m or 1h30m; --time or --trials must be set."
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Number of trials.")] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the search, empty or new unless --resume; default: runs/NAME-DATE."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the search in --output-dir, or join it.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Search the values of recipe fields: trials on held-out examples, without the test split."""
    from hf_finetune.cli.display import default_run_folder, quiet_libraries
    from hf_finetune.recipe.load import load_recipe
    from hf_finetune.search.space import read_space, split_arguments

    overrides, dimensions = split_arguments(fields or ())
    space = read_space(load_recipe(recipe, overrides), dimensions)
    seconds = read_seconds(time)
    folder = output_dir or default_run_folder(recipe, resume, "tune")
    if folder is None:
        raise InputError(Problem("--output-dir", "must be set for this command"))
    quiet_libraries(err)
    logging.getLogger("hf_finetune").setLevel(logging.WARNING)
    from hf_finetune.distributed import destroying_process_group
    from hf_finetune.runs.clock import process_start
    from hf_finetune.search.trial_table import RECIPE, as_json, write_leaderboard, write_recipe
    from hf_finetune.search.tune import tune

    lines = SearchLines(seconds)
    with destroying_process_group():
        result = tune(
            space,
            folder,
            max_trials=trials,
            max_seconds=seconds,
            resume=resume,
            progress=lines.begin_part,
            finished=lines.end_trial,
            trust_remote_code=trust_remote_code,
            started=process_start(),
        )
    if not is_main_process():
        return
    write_leaderboard(result, folder)
    write_recipe(result, folder)
    if json_output:
        sys.stdout.write(json.dumps(as_json(result), indent=2) + "\n")
        return
    print_trials(result)
    argument = shlex.quote(str(folder / RECIPE))
    out.print(f"Recipe: {folder / RECIPE}. Train it with:", markup=False)
    out.print(f"hf-finetune run {argument}", markup=False)


def print_trials(result: "SearchResult") -> None:
    """Print the table of the trials and the score to expect of the selected one.

    Args:
        result: Result of the search.
    """
    from rich.table import Table

    from hf_finetune.search.trial_table import trial_rows

    table = Table(box=None, pad_edge=False)
    for name in ("trial", result.metric, "95 % interval", "folds", "seconds", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("fields", overflow="fold")
    for row in trial_rows(result):
        table.add_row(
            f"{'* ' if row.selected else ''}{row.number}",
            f"{row.score:.3f}",
            f"{row.low:.3f}-{row.high:.3f}",
            f"{row.parts}",
            f"{row.seconds:.0f}",
            f"{row.milliseconds:.1f}",
            _fields_text(row.fields),
        )
    print_table(table)
    for trial in result.failed:
        reason = trial.failure or "stopped early"
        out.print(f"No score: {_fields_text(trial.fields)}: {reason}", markup=False)
    for fields in result.untried:
        out.print(f"Not tried, for lack of time: {_fields_text(fields)}", markup=False)
    if result.too_long:
        numbers = ", ".join(str(index + 1) for index in result.too_long)
        out.print(f"Not selectable, for lack of time for the final run: {numbers}")
    if result.seeds > 1:
        out.print(
            f"There is time to train the last stage of the final run {result.seeds} times; the mean of the weights "
            "will be kept."
        )
    if result.running:
        numbers = join_words(map(str, result.running))
        out.print(
            f"Other processes still train {'trial' if len(result.running) == 1 else 'trials'} {numbers}. The last one "
            "makes the final selection; this is that of the trials that have ended."
        )
    selection = result.selection
    out.print("Selected (*): the least computation within one standard error of the best score.")
    expected = f"Expected {result.metric} on the test split: {selection.expected:.3f}"
    if selection.interval is not None:
        expected += f" (95 % interval {selection.interval[0]:.3f} to {selection.interval[1]:.3f})"
    out.print(f"{expected}, corrected for the selection. The test split has not been evaluated.")


class SearchLines:
    """Lines on the progress of a search; silent on all processes but the main one.

    Args:
        seconds: Time of the search (seconds); None without a limit.
    """

    def __init__(self, seconds: float | None):
        self.seconds, self.start = seconds, perf_counter()
        self.best: tuple[float, int] | None = None

    def note(self, text: str) -> None:
        """Print a line.

        Args:
            text: The line.
        """
        if is_main_process():
            err.print(text, markup=False)

    def begin_part(self, trial: "Trial", number: int, part: "Part", parts: int) -> None:
        """Print which part of a trial is trained, on a terminal.

        Args:
            trial: The trial.
            number: Its number.
            part: Part that is held out.
            parts: Number of parts.
        """
        if err.is_terminal and is_main_process():
            done = len(trial.results)
            err.print(
                f"Trial {number}, fold {done + 1} of {parts}: {_fields_text(trial.fields)}", markup=False
            )

    def end_trial(
        self, trial: "Trial", number: int, end: str, metric: str, best: tuple[float, int] | None
    ) -> None:
        """Print a line on a trial that has ended.

        Args:
            trial: The trial.
            number: Its number.
            end: How it ended.
            metric: Metric of the search.
            best: Score and number of the best trial of the study; None compares the trials of this process.
        """
        from hf_finetune.evaluation.metrics import sign_of

        if not is_main_process():
            return
        words = [f"Trial {number} {end}:"]
        if trial.results:
            value = trial.value(metric)
            words.append(f"{metric} {value:.3f} on {counted(len(trial.results), 'fold')},")
            sign = sign_of(metric)
            if end == "done" and (self.best is None or sign * value > sign * self.best[0]):
                self.best = value, number
        self.best = best or self.best
        words.append(_fields_text(trial.fields) + ".")
        if trial.failure:
            words.append(trial.failure)
        if self.best is not None:
            words.append(f"Best: {self.best[0]:.3f} (trial {self.best[1]}).")
        if self.seconds is not None:
            left = max(self.seconds - (perf_counter() - self.start), 0.0)
            words.append(f"{format_seconds(left)} left.")
        err.print(" ".join(words), markup=False)


def read_seconds(text: str | None) -> float | None:
    """Return the seconds of ``--time``.

    Args:
        text: Duration as text; None is no limit.

    Raises:
        InputError: If the text is not a duration.
    """
    from hf_finetune.fields.durations import parse_duration

    if text is None:
        return None
    seconds = parse_duration(text)
    if seconds is None:
        raise InputError(
            Problem("--time", "must be a duration above 0, such as 90s, 20m or 1h30m", repr(text))
        )
    return seconds


def is_main_process() -> bool:
    """Return whether this is the main process of a launch."""
    return os.environ.get("RANK", "0") == "0"


def _fields_text(fields: Any) -> str:
    return truncate(" ".join(f"{path}={json.dumps(value)}" for path, value in fields.items()))

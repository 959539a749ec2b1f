"""The commands `init`, `choose` and `runs`, and the recipe that `run --data` writes for itself."""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from hf_finetune.cli.terminal import TrustRemoteCode, err, out
from hf_finetune.errors import InputError, Problem, counted, join_words
from hf_finetune.files import is_valid_path

if TYPE_CHECKING:
    from rich.table import Table

    from hf_finetune.search.leaderboard import Leaderboard
    from hf_finetune.search.rank_candidates import RankedCandidates

__all__ = ["TASK_HELP", "check_task", "draft_in_run", "name_of", "print_table", "search_app"]

TASK_HELP = "Task; default: the first one that can use the data."

search_app = typer.Typer()

MIN_TABLE_WIDTH = 140
"""Width of a table of checkpoints, in characters; a narrower terminal wraps its lines."""
_MAX_NAME = 100
"""Maximum length of a file name that is made from that of the data, in characters."""


@search_app.command("init")
def init_command(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Folder, table or Hub id with labeled examples.")
    ],
    fields: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Fields of data to set, such as data.separator=';'."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Recipe to write, a new file; default: NAME.yaml for the name of the data."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint; default: a candidate of `choose` on this machine, else the default candidate."
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help=TASK_HELP)] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=NAME", help="Column of the data, such as text=review or label=stars; repeatable."
        ),
    ] = None,
) -> None:
    """Inspect data and write a commented recipe for it."""
    from hf_finetune.search.draft_recipe import check_output, write_draft

    path = output or Path(f"{name_of(data)}.yaml")
    check_output(path)
    text = _draft(data, model, task, column, fields or ())
    write_draft(text, path)
    out.print(text, markup=False, end="")
    argument = shlex.quote(str(path))
    out.print(
        f"Written: {path}. Edit it, check it with `hf-finetune plan {argument}`, and run it:", markup=False
    )
    out.print(f"hf-finetune run {argument}", markup=False)


@search_app.command("choose")
def choose_command(
    source: Annotated[
        str, typer.Argument(metavar="DATA|RECIPE", help="Labeled data, or a recipe whose data is used.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="Checkpoint to rank; repeatable; default: those of the shipped list of candidates that are on this "
            "machine.",
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Also rank candidates that must be downloaded from the Hub.")
    ] = False,
    max_params: Annotated[
        float | None, typer.Option(min=0, help="Maximum number of parameters of a candidate, in millions.")
    ] = None,
    max_latency: Annotated[
        float | None,
        typer.Option(min=0, help="Maximum time per example of the recommended checkpoint, in milliseconds."),
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="permissive: only candidates with apache-2.0, mit or bsd licenses.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Recipe to write for the recommended checkpoint, a new file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Rank checkpoints for data: a linear classifier on frozen features, cross-validated on training examples."""
    from hf_finetune.cli.display import quiet_libraries

    quiet_libraries(err)
    from hf_finetune.search.draft_recipe import check_output, write_draft
    from hf_finetune.search.rank_candidates import CandidateFilter, rank_candidates

    if output is not None:
        check_output(output)
    allowed = CandidateFilter(download=download, max_parameters=max_params, license=license)
    result = rank_candidates(
        source,
        model or (),
        allowed,
        max_milliseconds=max_latency,
        progress=lambda name, position, count: err.print(
            f"Checkpoint {position} of {count}: {name}", markup=False
        ),
        trust_remote_code=trust_remote_code,
    )
    if output is not None:
        write_draft(result.recipe_text, output)
    if as_json:
        sys.stdout.write(json.dumps(result.as_json(), indent=2) + "\n")
        return
    _print_ranking(result)
    if output is not None:
        argument = shlex.quote(str(output))
        out.print(f"Written: {output}. Run it with `hf-finetune run {argument}`.", markup=False)


def _print_ranking(result: "RankedCandidates") -> None:
    """Print a table of checkpoints, the recommendation, and the checkpoints that were not ranked."""
    from rich.table import Table

    ranking = result.ranking
    table = Table(box=None, pad_edge=False)
    table.add_column("checkpoint", overflow="fold")
    for name in (ranking.metric, "95 % interval", "LogME", "parameters", "ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("input", "license", "verdict"):
        table.add_column(name, no_wrap=True)
    for entry in ranking.ranked:
        table.add_row(
            entry.model,
            f"{entry.value:.3f}",
            f"{entry.interval[0]:.3f}-{entry.interval[1]:.3f}" if entry.interval else "-",
            f"{entry.log_me:.3f}",
            f"{entry.parameters / 1e6:.1f} M",
            f"{entry.milliseconds:.1f}",
            entry.input_size,
            result.licenses.get(entry.model) or "?",
            entry.comparison,
        )
    print_table(table)
    examples = counted(ranking.ranked[0].examples, "training example")
    out.print(f"Cross-validated on {examples}, without validation and test examples.")
    out.print(result.recommendation, markup=False)
    for name, reason in ranking.refused.items():
        out.print(f"Not ranked: {name}: {reason}", markup=False)
    if result.absent:
        out.print(f"Not on this machine (add --download): {join_words(result.absent)}.", markup=False)


@search_app.command("runs")
def runs_command(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder with run directories, at any depth.")
    ] = Path("runs"),
    metric: Annotated[
        str | None, typer.Option(help="Metric; default: the first metric of the recipes.")
    ] = None,
    sort: Annotated[
        str, typer.Option(help="metric, seconds, parameters, bytes, milliseconds or name.")
    ] = "metric",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all fields of all runs.")] = False,
) -> None:
    """Compare all finished runs in a folder by their test metric, size and time."""
    from hf_finetune.search.leaderboard import read_leaderboards

    boards, unfinished = read_leaderboards(folder, metric, sort)
    if as_json:
        content = {"leaderboards": [asdict(board) for board in boards], "unfinished": unfinished}
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    for board in boards:
        _print_leaderboard(board)
    if boards:
        out.print("`hf-finetune compare RUN RUN` tests the difference of two runs on the same examples.")
    if not boards:
        out.print(f"No finished runs in {folder}.", markup=False)
    if unfinished:
        reasons = "unfinished, damaged, or without test metrics"
        out.print(f"Not shown: {counted(unfinished, 'run')}, {reasons}.")


def _print_leaderboard(board: "Leaderboard") -> None:
    """Print a table of runs; the last column has the recipe fields in which they differ, in the form of overrides."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=f"Test examples of {board.data}", title_justify="left")
    table.add_column("run", overflow="fold")
    for name in (board.metric, "95 % interval", "parameters", "MB", "ms", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("fields that differ", overflow="fold")
    for run in board.runs:
        value, ends = run.metrics.get(board.metric), run.intervals.get(board.metric)
        table.add_row(
            run.name,
            "-" if value is None else f"{value:.3f}",
            f"{ends[0]:.3f}-{ends[1]:.3f}" if ends else "-",
            f"{run.parameters / 1e6:.1f} M",
            f"{run.bytes / 1e6:.1f}",
            "-" if run.milliseconds is None else f"{run.milliseconds:.1f}",
            f"{run.seconds:.0f}",
            "\n".join(f"{path}={json.dumps(run.fields.get(path))}" for path in board.differing),
        )
    print_table(table)


def print_table(table: "Table") -> None:
    """Print a table in its full width; a console does not print wider than itself, and would leave out columns.

    Args:
        table: The table.
    """
    width = max(out.width, MIN_TABLE_WIDTH)
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)


@contextmanager
def draft_in_run(
    data: str, model: str | None, output_dir: Path | None, resume: bool, overrides: Sequence[str] = ()
) -> Iterator[Path]:
    """Write a recipe for data into a new run directory, print it, and yield its path.

    If the block fails before the run begins, the recipe is removed.

    Args:
        data: Folder, table or Hub id with labeled examples.
        model: Checkpoint; None chooses a candidate.
        output_dir: Run directory; None is that of ``default_run_folder``.
        resume: Whether the run is resumed, so that its recipe exists.
        overrides: Fields to override; those of ``data`` determine how it is read.

    Yields:
        Path of the recipe.

    Raises:
        InputError: If the run directory cannot be used, if a recipe cannot be written for the data, or if the run that
            is resumed has other data or another checkpoint.
    """
    from hf_finetune.cli.display import default_run_folder, quiet_libraries

    quiet_libraries(err)
    from hf_finetune.runs.folder import DRAFT_FILE, check_folder, make_folder
    from hf_finetune.search.draft_recipe import write_draft

    folder = output_dir or default_run_folder(name_of(data), resume)
    if folder is None and resume:
        raise InputError(
            Problem("--resume", "requires a run of this data in runs/, or --output-dir", repr(data))
        )
    if folder is None or (int(os.environ.get("WORLD_SIZE", "1")) > 1 and not resume):
        repair = f"Write a recipe with `hf-finetune init {data}`, and launch `run` with it."
        raise InputError(Problem("--data", "must not be set on several processes", repair=repair))
    path = folder / DRAFT_FILE
    if resume:
        _check_draft(path, data, model)
        yield path
        return
    check_folder(folder)
    text = _draft(data, model, None, None, [text for text in overrides if text.startswith("data.")])
    new_folders = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    make_folder(folder)
    write_draft(text, path)
    try:
        out.print(text, markup=False, end="")
        yield path
    except BaseException:
        if not (folder / "manifest.json").exists():
            path.unlink(missing_ok=True)
            with suppress(OSError):  # a folder that is not empty stays
                for new in new_folders:
                    new.rmdir()
        raise


def _check_draft(path: Path, data: str, model: str | None) -> None:
    """Check that the recipe in the directory of a run that is resumed has the data and the checkpoint of the command.

    Raises:
        InputError: If there is no such recipe, or it has other data or another checkpoint.
    """
    from hf_finetune.recipe.load import load_recipe

    if not path.is_file():
        repair = "Only a run that `run --data` has begun can be resumed with --data."
        raise InputError(Problem(str(path.parent), f"must contain {path.name}", repair=repair))
    recipe = load_recipe(path)
    for option, given, used in (("--data", data, recipe.data.path), ("--model", model, recipe.model.path)):
        if given is not None and given != used and os.path.realpath(given) != os.path.realpath(used):
            rule = f"must be that of the run in {path.parent}, {used!r}"
            raise InputError(Problem(option, rule, repr(given), "Name another run with --output-dir."))


def check_task(task: str | None) -> None:
    """Check the option ``--task``.

    Args:
        task: Value of the option; None if it is not given.

    Raises:
        InputError: If there is no such task.
    """
    from hf_finetune.tasks import TASKS

    if task is not None and task not in TASKS:
        raise InputError(Problem("--task", f"must be one of {', '.join(TASKS)}", repr(task)))


def _draft(
    data: str, model: str | None, task: str | None, column: list[str] | None, fields: Sequence[str]
) -> str:
    from hf_finetune.cli.display import quiet_libraries

    quiet_libraries(err)
    from hf_finetune.data.input_columns import LABELED_KEYS, parse_columns
    from hf_finetune.search.draft_recipe import draft_recipe
    from hf_finetune.search.inspect_data import inspect_data

    check_task(task)
    named = parse_columns(column or (), LABELED_KEYS)
    given = _data_fields(fields)
    return draft_recipe(inspect_data(data, named, [task] if task else None, given), model)


def _data_fields(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the fields of ``data`` that overrides set.

    Raises:
        InputError: If an override is malformed, or sets a field of another part of a recipe.
    """
    from hf_finetune.recipe.overrides import apply_override, read_override

    recipe: dict[str, Any] = {"data": {}}
    for text in overrides:
        override = read_override(text)
        if override.path[:1] != ("data",) or override.path[1:2] == ("path",):
            repair = "Change other fields in the recipe that is written."
            raise InputError(Problem(text, "must set a field of data other than its path", repair=repair))
        recipe = apply_override(recipe, override)
    return dict(recipe["data"])


def name_of(data: str) -> str:
    """Return a file name for data: that of its folder or file, without the suffix of a file.

    Args:
        data: Folder, file or Hub id.
    """
    path = Path.cwd() / data
    name = path.stem if is_valid_path(data) and path.is_file() else path.name
    return name.strip(" .-")[:_MAX_NAME] or "data"

"""The command `auto`: from data to a model without choices."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from hf_finetune.cli.search import TASK_HELP, check_task, name_of
from hf_finetune.cli.terminal import TrustRemoteCode, err, out
from hf_finetune.cli.tune import SearchLines, is_main_process, print_trials, read_seconds
from hf_finetune.errors import InputError, Problem

__all__ = ["auto_app"]

auto_app = typer.Typer()


@auto_app.command("auto")
def auto_command(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Folder, table or Hub id with labeled examples.")
    ],
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            help="Time of the search and the final run, such as 20m or 1h30m; --time or --trials must be set.",
        ),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Number of trials; without --time, the result can be repeated.")
    ] = None,
    quality: Annotated[
        str, typer.Option(help="How many checkpoints and strategies are tried: fast, good or best.")
    ] = "good",
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="Checkpoint to try; repeatable; default: those of the shipped list of candidates that are on this "
            "machine, else the default candidate.",
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help=TASK_HELP)] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(help="Run directory, empty or new unless --resume; default: runs/NAME-DATE."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the search and the run in --output-dir.")
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Choose a checkpoint and a strategy by trials on held-out examples, and train and evaluate the model."""
    from hf_finetune.cli.display import RunDisplay, default_run_folder, quiet_libraries

    check_task(task)
    seconds = read_seconds(time)
    folder = output_dir or default_run_folder(name_of(data), resume, "auto")
    if folder is None:
        raise InputError(Problem("--output-dir", "must be set on several processes"))
    quiet_libraries(err)
    package_logger = logging.getLogger("hf_finetune")
    package_logger.setLevel(logging.WARNING)
    from hf_finetune.distributed import destroying_process_group
    from hf_finetune.runs.clock import process_start
    from hf_finetune.search.auto import AutoProgress, auto
    from hf_finetune.search.trial_table import write_leaderboard
    from hf_finetune.search.tune import SearchResult

    lines = SearchLines(seconds)

    def show_selection(result: SearchResult) -> None:
        if is_main_process():
            write_leaderboard(result, folder)
            print_trials(result)
            err.print("The selected recipe is trained on all examples outside the test split:")

    progress = AutoProgress(
        checkpoint=lambda name, position, count: lines.note(f"Checkpoint {position} of {count}: {name}"),
        part=lines.begin_part,
        finished=lines.end_trial,
        selected=show_selection,
    )
    with RunDisplay(err, folder) as display:
        package_logger.setLevel(logging.WARNING)
        with destroying_process_group():
            result = auto(
                data,
                folder,
                max_seconds=seconds,
                max_trials=trials,
                quality=quality,
                models=model or (),
                task=task,
                resume=resume,
                progress=progress,
                callbacks=[display.callback],
                trust_remote_code=trust_remote_code,
                started=process_start(),
            )
    if display.is_main:
        display.print_result(out, result.run)

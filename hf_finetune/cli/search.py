"""The command `init`, and the recipe that `run --data` writes for itself."""

from pathlib import Path
from typing import Annotated

import typer

from hf_finetune.cli.terminal import err, out
from hf_finetune.errors import InputError, Problem

__all__ = ["CheckpointOption", "draft_in_run", "search_app"]

search_app = typer.Typer()

CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--model", help="Checkpoint; default: a candidate on this machine, else the default candidate."
    ),
]


@search_app.command("init")
def init_command(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Folder, table or Hub id with labeled examples.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Recipe to write, a new file; default: NAME.yaml for the name of the data."),
    ] = None,
    model: CheckpointOption = None,
    task: Annotated[
        str | None, typer.Option(help="Task; default: the first one that can use the data.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=NAME", help="Column of the data, such as text=review or label=stars; repeatable."
        ),
    ] = None,
) -> None:
    """Inspect data and write a commented recipe for it."""
    from hf_finetune.search.draft_recipe import write_draft

    path = output or Path(f"{_name_of(data)}.yaml")
    text = _draft(data, model, task, column)
    write_draft(text, path)
    out.print(text, markup=False, end="")
    out.print(f"Written: {path}. Edit it, check it with `hf-finetune plan {path}`, and run it:", markup=False)
    out.print(f"hf-finetune run {path}", markup=False)


def draft_in_run(data: str, model: str | None, output_dir: Path | None, resume: bool) -> Path:
    """Write a recipe for data into a new run directory and print it; return its path.

    Args:
        data: Folder, table or Hub id with labeled examples.
        model: Checkpoint; None chooses a candidate.
        output_dir: Run directory; None is that of ``default_run_folder``.
        resume: Whether the run is resumed, so that its recipe exists.

    Raises:
        InputError: If the run directory cannot be used, or if a recipe cannot be written for the data.
    """
    from hf_finetune.cli.display import default_run_folder, quiet_libraries

    quiet_libraries(err)
    from hf_finetune.runs.folder import DRAFT_FILE, check_folder
    from hf_finetune.search.draft_recipe import write_draft

    folder = output_dir or default_run_folder(_name_of(data), resume)
    if folder is None and resume:
        raise InputError(
            Problem("--resume", "requires a run of this data in runs/, or --output-dir", repr(data))
        )
    if folder is None:
        repair = f"Write a recipe with `hf-finetune init {data}`, and launch `run` with it."
        raise InputError(Problem("--data", "must not be set on several processes", repair=repair))
    path = folder / DRAFT_FILE
    if resume:
        return path
    check_folder(folder)
    text = _draft(data, model, None, None)
    folder.mkdir(parents=True, exist_ok=True)
    write_draft(text, path)
    out.print(text, markup=False, end="")
    return path


def _draft(data: str, model: str | None, task: str | None, column: list[str] | None) -> str:
    from hf_finetune.cli.display import quiet_libraries

    quiet_libraries(err)
    from hf_finetune.data.input_columns import parse_columns
    from hf_finetune.evaluation.evaluate_run import LABELED_KEYS
    from hf_finetune.search.draft_recipe import draft_recipe
    from hf_finetune.search.inspect_data import inspect_data
    from hf_finetune.tasks import TASKS

    if task is not None and task not in TASKS:
        raise InputError(Problem("--task", f"must be one of {', '.join(TASKS)}", repr(task)))
    named = parse_columns(column or (), LABELED_KEYS)
    return draft_recipe(inspect_data(data, named, [task] if task else None), model)


def _name_of(data: str) -> str:
    """Return a file name for data: that of its last folder or file, without suffix."""
    return Path(data).resolve().stem if Path(data).exists() else Path(data).name

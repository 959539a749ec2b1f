"""The command line: parse, call, print."""

import errno
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hf_finetune import __version__
from hf_finetune.errors import InputError

__all__ = ["main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fine-tune image and text classifiers in stages: what a stage says is trained is trained, and nothing else.",
)
recipes_app = typer.Typer(no_args_is_help=True, help="The recipes that ship with the package.")
app.add_typer(recipes_app, name="recipes")
cache_app = typer.Typer(
    no_args_is_help=True, help="What is kept of frozen layers, so that it is computed once."
)
app.add_typer(cache_app, name="cache")

# What typer raises for a wrong command line: the ClickException of click, or of the copy that newer typers bring.
USAGE_ERROR = typer.BadParameter.__mro__[2]

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's path, or the name of a shipped one.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Fields to change: stages.0.lr=0.02")
]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL_OR_RUN", help="A run directory, a checkpoint folder or a Hub id.")
]


def main() -> None:
    """Run the command line and exit: 0 done, 2 the input is wrong, 130 interrupted, 1 anything else."""
    # Before any library is imported: no usage counts are sent, and no start-up chatter is printed.
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        code = app(standalone_mode=False, prog_name="hf-finetune")
    except InputError as error:
        code = _tell(error)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        code = _tell_failure(error)
    sys.exit(code if isinstance(code, int) else 0)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit


@app.command("run")
def run_command(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="The run directory; it must be empty or not exist.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output-dir.")] = False,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes", help="Resume although recipe, data or checkpoint have changed; say what has."
        ),
    ] = False,
) -> None:
    """Fine-tune, evaluate and save."""
    from hf_finetune.progress import RunDisplay, default_run_folder
    from hf_finetune.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    folder = output_dir or default_run_folder(recipe, resume)
    with RunDisplay(err, folder) as display:
        from hf_finetune.processes import ending_processes
        from hf_finetune.run import run

        with ending_processes():
            result = run(
                loaded,
                folder,
                resume=resume,
                allow_changes=allow_changes,
                callbacks=[display.callback],
                progress=display.evaluated,
            )
    if display.is_main:
        display.print_result(out, result)


@app.command("plan")
def plan_command(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Print what each stage would train, at which rates. Trains nothing."""
    from hf_finetune.progress import print_plan, quiet_libraries
    from hf_finetune.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    quiet_libraries(err)
    from hf_finetune.ready import plan
    from hf_finetune.run_speed import frozen_work

    report = plan(loaded)
    print_plan(out, loaded, report, frozen_work(report))


@app.command("doctor")
def doctor_command(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]", help="Whose checkpoint and stages to check; without one, tiny models."
        ),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Check by numbers that this machine, these libraries and a recipe's checkpoint train what they should."""
    from hf_finetune.progress import quiet_libraries
    from hf_finetune.recipe import load_recipe

    loaded = None if recipe is None else load_recipe(recipe, overrides or ())
    quiet_libraries(err)
    from hf_finetune.doctor.examine import examinations
    from hf_finetune.doctor.table import print_examinations

    with tempfile.TemporaryDirectory(prefix="hf-finetune-doctor-") as folder:
        healthy = print_examinations(out, examinations(loaded, Path(folder)), Path(folder))
    if not healthy:
        raise typer.Exit(1)


@app.command("evaluate")
def evaluate_command(
    model: ModelArgument,
    data: Annotated[str | None, typer.Option(help="Labelled data; without it, that of the run.")] = None,
    split: Annotated[str | None, typer.Option(help="train, validation or test.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per forward pass.")] = 64,
) -> None:
    """Evaluate a finished model on labelled data, through the pipeline that others use."""
    from hf_finetune.progress import counting_bar, print_metrics, quiet_libraries

    quiet_libraries(err)
    from hf_finetune.evaluation.again import evaluate_again

    with counting_bar(err, "Evaluating") as advance:
        result = evaluate_again(model, data=data, split=split, batch_size=batch_size, progress=advance)
    print_metrics(out, result.metrics, f"{len(result.ids):,} examples")


@app.command("predict")
def predict_command(
    model: ModelArgument,
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, folders, tables, texts, or - for stdin.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="A .csv, .jsonl or .parquet file; without it, JSON lines on stdout.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per forward pass.")] = 64,
) -> None:
    """Predict with a finished model. Inputs that cannot be read are named, and the rest goes on."""
    from hf_finetune.progress import counting_bar, quiet_libraries

    quiet_libraries(err)
    from hf_finetune.evaluation.again import run_columns
    from hf_finetune.evaluation.outputs import json_line, open_output
    from hf_finetune.evaluation.predict import predict

    stream = predict(model, inputs, batch_size=batch_size, columns=run_columns(model))
    with counting_bar(err, "Predicting", stream.total) as advance:
        if output is None:
            for prediction in stream:
                sys.stdout.write(json_line(prediction) + "\n")
                advance(stream.done)
        else:
            with open_output(output, stream.classifier.target, stream.classifier.label_names) as write:
                for prediction in stream:
                    write(prediction)
                    advance(stream.done)
    sys.stdout.flush()
    if output is not None:
        err.print(f"{stream.done - stream.failed:,} predictions are in {output}.")
    if stream.failed:
        unread = "1 input" if stream.failed == 1 else f"{stream.failed:,} inputs"
        err.print(f"{unread} could not be read; the error stands in its place:")
        for name, reason in stream.first_failures:
            err.print(f"  {name}: {reason}", markup=False)
        raise typer.Exit(2)


@recipes_app.command("list")
def recipes_list() -> None:
    """List the shipped recipes."""
    from hf_finetune.recipe import shipped_recipes

    for name, path in shipped_recipes().items():
        title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        out.print(f"{name:28} {title}", markup=False)


@recipes_app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(help="As in `recipes list`.")]) -> None:
    """Print a shipped recipe."""
    from hf_finetune.recipe.load import find_recipe

    sys.stdout.write(find_recipe(name).read_text(encoding="utf-8"))


@recipes_app.command("copy")
def recipes_copy(
    name: Annotated[str, typer.Argument(help="As in `recipes list`.")],
    dest: Annotated[Path, typer.Argument(help="File or folder; nothing is overwritten.")],
) -> None:
    """Copy a shipped recipe, to change it."""
    from hf_finetune.recipe.load import copy_recipe

    out.print(f"Copied to {copy_recipe(name, dest)}.")


@recipes_app.command("schema")
def recipes_schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    import json

    from hf_finetune.recipe import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")


@cache_app.command("list")
def cache_list() -> None:
    """List what is kept, the least recently used first."""
    from hf_finetune.progress import print_kept
    from hf_finetune.speed.kept import cache_folder, list_kept

    print_kept(out, cache_folder(), list_kept(cache_folder()))


@cache_app.command("prune")
def cache_prune(
    max_size: Annotated[str, typer.Option(help="What may stay, such as 500MB or 2GB.")] = "0",
) -> None:
    """Remove what was least recently used; without --max-size, all."""
    from hf_finetune.speed.kept import cache_folder, parse_size, prune_kept

    removed = prune_kept(cache_folder(), parse_size(max_size))
    out.print(f"Removed {len(removed)} from {cache_folder()}: {sum(kept.bytes for kept in removed):,} bytes.")


def _tell(error: InputError) -> int:
    if int(os.environ.get("RANK", "0")) == 0:
        count = len(error.problems)
        err.print(
            f"[bold red]{count} problem{'s' if count != 1 else ''}:[/]"
            if count > 1
            else "[bold red]Problem:[/]"
        )
        for problem in error.problems:
            err.print(f"  {problem}", markup=False)
    return 2


def _tell_failure(error: Exception) -> int:
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
        err.print(
            "[bold red]The disk is full.[/] What was saved before is kept; a run goes on with --resume."
        )
        return 1
    if type(error).__name__ in ("DivergedError", "LostProcessError"):
        err.print("[bold red]Stopped:[/]", end=" ")
        err.print(str(error), markup=False)
        return 1
    err.print(f"[bold red]{type(error).__name__}:[/]", end=" ")
    err.print(str(error), markup=False)
    err.print("Set HF_FINETUNE_TRACEBACK=1 to see where.", style="dim")
    return 1


def _disk_is_full(error: BaseException | None) -> bool:
    """Tell from an error, or what caused it. safetensors gives only a text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if any(words in str(error) for words in ("No space left on device", "File too large")):
            return True
        error = error.__cause__
    return False

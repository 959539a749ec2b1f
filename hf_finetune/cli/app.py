"""Commands of the command-line interface: parse arguments, call the library, print results."""

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hf_finetune import __version__
from hf_finetune.cli.auto import auto_app
from hf_finetune.cli.cache import cache_app
from hf_finetune.cli.errors import print_failure, print_input_error, print_unpublished
from hf_finetune.cli.finished_runs import finished_runs_app
from hf_finetune.cli.publishing import publishing_app
from hf_finetune.cli.recipes import recipes_app
from hf_finetune.cli.search import draft_in_run, search_app
from hf_finetune.cli.terminal import ModelArgument, TrustRemoteCode, err, out
from hf_finetune.cli.tune import tune_app
from hf_finetune.errors import InputError, Problem, counted

if TYPE_CHECKING:
    from hf_finetune.recipe.schema import Recipe

__all__ = ["main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fine-tune image and text classifiers in stages; each stage trains exactly the parameters it declares.",
)
app.add_typer(search_app)
app.add_typer(tune_app)
app.add_typer(auto_app)
app.add_typer(finished_runs_app)
app.add_typer(publishing_app)
app.add_typer(recipes_app, name="recipes")
app.add_typer(cache_app, name="cache")


RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Path of a recipe, or name of a shipped one.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Fields to override, such as stages.0.lr=0.02."),
]


def main() -> None:
    """Run the command line and exit with 0 (success), 2 (invalid input), 130 (interrupted) or 1 (any other failure)."""
    # Set before any library is imported, so that no usage counts are sent and no start-up messages are printed.
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from hf_finetune.cli.display import use_utf8

    use_utf8()
    try:
        code = app(standalone_mode=False, prog_name="hf-finetune")
    except InputError as error:
        code = print_input_error(err, error)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        code = print_failure(err, error)
    sys.exit(code if isinstance(code, int) else 0)


def _load(source: str, overrides: list[str] | None, trust_remote_code: bool = False) -> "Recipe":
    """Load a recipe for use on this machine; if it has problems, print all of them and exit with code 2.

    Invalid fields and paths are printed at once. The valid rest is then checked further, which requires importing
    torch, so that a single run of the command reports as many problems as possible.
    """
    from hf_finetune.recipe.quick_check import check_fields_and_paths

    loaded, problems = check_fields_and_paths(source, overrides or ())
    if loaded is not None and not problems:
        return loaded
    code = print_input_error(err, InputError(problems))
    if loaded is not None:
        from hf_finetune.cli.display import quiet_libraries

        quiet_libraries(err)
        from hf_finetune.runs.planner import plan

        printed = {(problem.place, problem.rule) for problem in problems}
        try:
            plan(loaded, trust_remote_code=trust_remote_code)
        except InputError as error:
            remaining = [
                problem for problem in error.problems if (problem.place, problem.rule) not in printed
            ]
            if remaining:
                print_input_error(err, InputError(remaining), before=len(problems))
    raise typer.Exit(code)


@app.callback(invoke_without_command=True)
def _handle_version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit


@app.command("run")
def run_command(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="Path of a recipe, or name of a shipped one; or use --data."),
    ] = None,
    overrides: Overrides = None,
    data: Annotated[
        str | None,
        typer.Option(help="Labeled data, instead of a recipe: a recipe is written, printed and run."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="With --data: checkpoint of the written recipe; default: a candidate of `choose` on this machine, "
            "else the default candidate."
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            help="Run directory, empty or new unless --resume; default: runs/NAME-DATE, for the name of the recipe "
            "or data; on several processes, TASK-DATE."
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(help="Time of the run, such as 90s, 20m or 1h30m, instead of limit.time in the recipe."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume the run in --output-dir or, without it, the newest run in runs/ of this recipe or data.",
        ),
    ] = False,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes",
            help="Resume even if recipe, data or checkpoint changed; manifest.json records the changes.",
        ),
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Fine-tune, evaluate and save a model."""
    options = {"resume": resume, "allow_changes": allow_changes, "trust_remote_code": trust_remote_code}
    if time is not None:
        overrides = [*(overrides or ()), f"limit.time={time}"]
    if data is not None:
        overrides = [*filter(None, [recipe]), *(overrides or ())]
        with draft_in_run(data, model, output_dir, resume, overrides) as draft:
            _run(str(draft), overrides, draft.parent, **options)
    elif recipe is None:
        raise InputError(Problem("RECIPE", "must be set", repair="Name a recipe, or set --data."))
    elif model is not None:
        repair = f"Override the field of the recipe: model={model}."
        raise InputError(Problem("--model", "must not be set without --data", repr(model), repair))
    else:
        _run(recipe, overrides, output_dir, **options)


def _run(
    recipe: str,
    overrides: list[str] | None,
    output_dir: Path | None,
    *,
    resume: bool,
    allow_changes: bool,
    trust_remote_code: bool,
) -> None:
    """Run a recipe, and print the progress and the result."""
    from hf_finetune.cli.display import RunDisplay, default_run_folder

    loaded = _load(recipe, overrides, trust_remote_code)
    folder = output_dir or default_run_folder(recipe, resume)
    with RunDisplay(err, folder) as display:
        from hf_finetune.distributed import destroying_process_group
        from hf_finetune.runs.clock import process_start
        from hf_finetune.runs.run import run

        with destroying_process_group():
            result = run(
                loaded,
                folder,
                resume=resume,
                allow_changes=allow_changes,
                callbacks=[display.callback],
                progress=display.update_evaluation,
                trust_remote_code=trust_remote_code,
                started=process_start(),
            )
    if display.is_main:
        display.print_result(out, result)
    if result.unpublished:
        if display.is_main:
            print_unpublished(err, result.unpublished, result.publish_later)
        raise typer.Exit(1)


@app.command("plan")
def plan_command(
    recipe: RecipeArgument, overrides: Overrides = None, trust_remote_code: TrustRemoteCode = False
) -> None:
    """Check a recipe, its data and checkpoint; print parameters, learning rates and estimated time of each stage."""
    from hf_finetune.cli.display import quiet_libraries
    from hf_finetune.cli.plan_table import print_plan

    loaded = _load(recipe, overrides, trust_remote_code)
    quiet_libraries(err)
    from hf_finetune.runs.estimates import describe_prefix_caches
    from hf_finetune.runs.planner import plan

    report = plan(loaded, trust_remote_code=trust_remote_code)
    strategy = loaded.strategy.name if loaded.strategy else None
    print_plan(out, loaded, report, describe_prefix_caches(report, strategy))


@app.command("preview")
def preview_command(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Output file; default: preview.png for images, preview.html for texts."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Show views (augmented versions) of some training examples, without training."""
    from hf_finetune.cli.display import quiet_libraries

    loaded = _load(recipe, overrides, trust_remote_code)
    quiet_libraries(err)
    from hf_finetune.runs.preview import preview

    path = preview(loaded, output, trust_remote_code=trust_remote_code)
    out.print(f"Written: {path}", markup=False, soft_wrap=True)


@app.command("doctor")
def doctor_command(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]",
            help="Recipe whose checkpoint and stages are checked; default: tiny random models.",
        ),
    ] = None,
    overrides: Overrides = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Run numerical checks of a recipe, its checkpoint and this machine."""
    from hf_finetune.cli.display import quiet_libraries
    from hf_finetune.recipe.load import load_recipe

    loaded = None if recipe is None else load_recipe(recipe, overrides or ())
    quiet_libraries(err)
    from hf_finetune.doctor.check_suite import check_suites
    from hf_finetune.doctor.table import print_checks

    with tempfile.TemporaryDirectory(prefix="hf-finetune-doctor-") as folder:
        suites = check_suites(loaded, Path(folder), trust_remote_code=trust_remote_code)
        all_passed = print_checks(out, suites, Path(folder))
    if not all_passed:
        raise typer.Exit(1)


@app.command("evaluate")
def evaluate_command(
    model: ModelArgument,
    data: Annotated[str | None, typer.Option(help="Labeled data; default: the data of the run.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split; default: test; with --data, if there is none, validation, else train."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=NAME", help="Column of --data, such as text=review or label=stars; repeatable."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per forward pass.")] = 64,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Evaluate a fine-tuned model on labeled data."""
    from hf_finetune.cli.display import counting_bar, quiet_libraries
    from hf_finetune.cli.tables import group_phrase, print_metrics, print_overlap, print_slices

    quiet_libraries(err)
    from hf_finetune.data.input_columns import LABELED_KEYS, parse_columns
    from hf_finetune.evaluation.evaluate_run import evaluate
    from hf_finetune.evaluation.undefined_metrics import undefined_notes

    with counting_bar(err, "Evaluating") as advance:
        result = evaluate(
            model,
            data=data,
            split=split,
            columns=parse_columns(column or (), LABELED_KEYS),
            batch_size=batch_size,
            progress=advance,
            trust_remote_code=trust_remote_code,
        )
    groups = len(set(result.groups)) if result.groups else None
    grouped = group_phrase(groups, result.group_column)
    caption = f"{len(result.ids):,} examples{grouped}"
    print_metrics(out, result.metrics, result.intervals, caption, undefined_notes(result))
    for note in result.notes:
        out.print(note, markup=False)
    print_overlap(out, result.seen, len(result.ids))
    print_slices(out, result.slices)


@app.command("predict")
def predict_command(
    model: ModelArgument,
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, folders, tables or texts; - for stdin.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Output file: .csv, .jsonl or .parquet; default: JSON lines on stdout."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=NAME", help="Column of tables, such as text=review or id=review_id; repeatable."
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Copy all columns of tables to the output.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per forward pass.")] = 64,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Predict with a fine-tuned model. Inputs that cannot be read are reported; the others get a prediction."""
    from hf_finetune.cli.display import counting_bar, quiet_libraries

    quiet_libraries(err)
    from hf_finetune.data.input_columns import parse_columns
    from hf_finetune.evaluation.finished import run_options
    from hf_finetune.evaluation.predict import predict
    from hf_finetune.evaluation.prediction_writers import json_line, open_output

    stream = predict(
        model,
        inputs,
        batch_size=batch_size,
        columns=parse_columns(column or ()),
        keep=keep,
        trust_remote_code=trust_remote_code,
        options=run_options(model),
    )
    with counting_bar(err, "Predicting", stream.total) as advance:
        if output is None:
            for prediction in stream:
                sys.stdout.write(json_line(prediction) + "\n")
                advance(stream.done)
        else:
            classifier = stream.classifier
            with open_output(output, classifier.target, classifier.label_names, stream.columns) as write:
                for prediction in stream:
                    write(prediction)
                    advance(stream.done)
    sys.stdout.flush()
    for note in stream.remarks.sentences():
        err.print(note, markup=False)
    if output is not None:
        err.print(f"{stream.done - stream.failed:,} predictions are in {output}.")
    if stream.failed:
        err.print(f"{counted(stream.failed, 'input')} could not be read; the output contains the errors:")
        for name, reason in stream.first_failures:
            err.print(f"  {name}: {reason}", markup=False)
        raise typer.Exit(2)

"""Commands of the command-line interface: parse arguments, call the library, print results."""

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from hf_finetune import __version__
from hf_finetune.cli.errors import print_failure, print_input_error, tell_unpublished
from hf_finetune.errors import InputError, Problem

if TYPE_CHECKING:
    from hf_finetune.recipe import Recipe

__all__ = ["main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fine-tune image and text classifiers in stages; each stage trains exactly the parameters it declares.",
)
recipes_app = typer.Typer(no_args_is_help=True, help="List, print and copy the shipped recipes.")
app.add_typer(recipes_app, name="recipes")
cache_app = typer.Typer(
    no_args_is_help=True, help="Manage cached outputs of frozen layers and cached images."
)
app.add_typer(cache_app, name="cache")

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Path of a recipe, or name of a shipped one.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Fields to override, such as stages.0.lr=0.02."),
]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL_OR_RUN", help="Run directory, checkpoint folder or Hub id.")
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run custom code that comes with a checkpoint or a metric; by default none is executed.",
    ),
]


def main() -> None:
    """Run the command line and exit with 0 (done), 2 (invalid input), 130 (interrupted) or 1 (any other failure)."""
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
    """Load a recipe for use on this machine; if it has problems, print all of them and exit.

    Invalid fields and paths are printed at once. The valid rest is then checked further, which requires importing
    torch, so that a single run of the command reports all problems.

    Raises:
        typer.Exit: With code 2, if the recipe has problems.
    """
    from hf_finetune.recipe.first_look import first_look

    loaded, problems = first_look(source, overrides or ())
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
            others = [problem for problem in error.problems if (problem.place, problem.rule) not in printed]
            if others:
                print_input_error(err, InputError(others), before=len(problems))
    raise typer.Exit(code)


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
        Path | None, typer.Option(help="Run directory; must be empty or not exist.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --output-dir.")] = False,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes", help="Resume even if recipe, data or checkpoint changed; log the changes."
        ),
    ] = False,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Fine-tune, evaluate and save a model."""
    from hf_finetune.cli.display import RunDisplay, default_run_folder

    loaded = _load(recipe, overrides, trust_remote_code)
    folder = output_dir or default_run_folder(recipe, resume)
    with RunDisplay(err, folder) as display:
        from hf_finetune.distributed import ending_processes
        from hf_finetune.runs.run import run

        with ending_processes():
            result = run(
                loaded,
                folder,
                resume=resume,
                allow_changes=allow_changes,
                callbacks=[display.callback],
                progress=display.evaluated,
                trust_remote_code=trust_remote_code,
            )
    if display.is_main:
        display.print_result(out, result)
    if result.unpublished:
        if display.is_main:
            tell_unpublished(err, result.unpublished, result.publish_later)
        raise typer.Exit(1)


@app.command("plan")
def plan_command(
    recipe: RecipeArgument, overrides: Overrides = None, trust_remote_code: TrustRemoteCode = False
) -> None:
    """Print the parameters and learning rates of each stage, without training."""
    from hf_finetune.cli.display import quiet_libraries
    from hf_finetune.cli.tables import print_plan

    loaded = _load(recipe, overrides, trust_remote_code)
    quiet_libraries(err)
    from hf_finetune.runs.estimates import frozen_work
    from hf_finetune.runs.planner import plan

    report = plan(loaded, trust_remote_code=trust_remote_code)
    strategy = loaded.strategy.name if loaded.strategy else None
    print_plan(out, loaded, report, frozen_work(report, strategy))


@app.command("preview")
def preview_command(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option(help="Output file: .png for images, .html for texts.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Show augmented versions of some training examples, without training."""
    from hf_finetune.cli.display import quiet_libraries

    loaded = _load(recipe, overrides, trust_remote_code)
    quiet_libraries(err)
    from hf_finetune.runs.preview import preview

    written = preview(loaded, output, trust_remote_code=trust_remote_code)
    out.print(f"Written: {written}", markup=False, soft_wrap=True)


@app.command("doctor")
def doctor_command(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE]", help="Recipe whose checkpoint and stages are checked; default: tiny models."
        ),
    ] = None,
    overrides: Overrides = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Verify numerically that a recipe trains exactly what it declares on this machine."""
    from hf_finetune.cli.display import quiet_libraries
    from hf_finetune.recipe import load_recipe

    loaded = None if recipe is None else load_recipe(recipe, overrides or ())
    quiet_libraries(err)
    from hf_finetune.doctor.check_suite import check_suites
    from hf_finetune.doctor.table import print_examinations

    with tempfile.TemporaryDirectory(prefix="hf-finetune-doctor-") as folder:
        subjects = check_suites(loaded, Path(folder), trust_remote_code=trust_remote_code)
        healthy = print_examinations(out, subjects, Path(folder))
    if not healthy:
        raise typer.Exit(1)


@app.command("evaluate")
def evaluate_command(
    model: ModelArgument,
    data: Annotated[str | None, typer.Option(help="Labeled data; default: the data of the run.")] = None,
    split: Annotated[str | None, typer.Option(help="Split: train, validation or test.")] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=NAME", help="Column of --data, such as text=review or label=stars; repeatable."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per forward pass.")] = 64,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Evaluate a finished model on labeled data, through its transformers pipeline."""
    from hf_finetune.cli.display import counting_bar, quiet_libraries
    from hf_finetune.cli.tables import grouping, print_metrics, print_seen, print_slices

    quiet_libraries(err)
    from hf_finetune.data.input_columns import parse_columns
    from hf_finetune.evaluation.evaluate_run import LABELED_KEYS, evaluate
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
    grouped = grouping(len(set(result.groups or ())) or None, result.group_column)
    caption = f"{len(result.ids):,} examples{grouped}"
    print_metrics(out, result.metrics, result.intervals, caption, undefined_notes(result))
    for note in result.notes:
        out.print(note, markup=False)
    print_seen(out, result.seen, len(result.ids))
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
            metavar="KEY=NAME", help="Column of tables, such as text=review or id=number; repeatable."
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Copy all columns of tables to the output.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per forward pass.")] = 64,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Predict with a finished model. Unreadable inputs are reported, and all others are predicted."""
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
            model_of = stream.classifier
            with open_output(output, model_of.target, model_of.label_names, stream.columns) as write:
                for prediction in stream:
                    write(prediction)
                    advance(stream.done)
    sys.stdout.flush()
    for note in stream.remarks.sentences():
        err.print(note, markup=False)
    if output is not None:
        err.print(f"{stream.done - stream.failed:,} predictions are in {output}.")
    if stream.failed:
        unread = "1 input" if stream.failed == 1 else f"{stream.failed:,} inputs"
        err.print(f"{unread} could not be read; the output holds the error instead:")
        for name, reason in stream.first_failures:
            err.print(f"  {name}: {reason}", markup=False)
        raise typer.Exit(2)


@app.command("compare")
def compare_command(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", help="Run directories or prediction files.")
    ],
    metric: Annotated[list[str] | None, typer.Option(help="Metric to compare; repeatable.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
) -> None:
    """Compare runs with the first one on shared test examples, with confidence intervals and significance tests."""
    from hf_finetune.cli.tables import print_comparisons
    from hf_finetune.evaluation.compare import compare_runs

    print_comparisons(out, runs[0], compare_runs(runs, metric or (), seed=seed))


@app.command("report")
def report_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished run.")],
) -> None:
    """Rewrite the report of a run: RUN/report.html, with figures in RUN/figures."""
    from hf_finetune.report.page import write_report

    out.print(f"{write_report(run)}", markup=False, soft_wrap=True)


@app.command("publish")
def publish_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished run.")],
    to: Annotated[str, typer.Option(help="Hub repository: NAMESPACE/NAME.")],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Visibility of a new repository; default: private."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch; default: the main branch.")] = None,
    tag: Annotated[str | None, typer.Option(help="New tag for the published commit.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Publish without asking for confirmation.")] = False,
) -> None:
    """Show the files of a finished run's model, then publish them on the Hub in one commit."""
    from hf_finetune.cli.display import quiet_hub
    from hf_finetune.cli.tables import print_publication

    if not yes and not sys.stdin.isatty():
        raise InputError(Problem("--yes", "must be given if stdin is not a terminal"))
    quiet_hub(err)
    from hf_finetune.publishing.hub import plan_publication, publish

    planned = plan_publication(run, to, private=private, revision=revision, tag=tag)
    print_publication(out, planned)
    if planned.is_nothing:
        return
    if not yes and not typer.confirm("Publish this?"):
        out.print("Nothing was published.")
        raise typer.Exit(1)
    published = publish(planned)
    out.print(f"Published as {published.url}, commit {published.commit[:12]}.", markup=False)


@app.command("export")
def export_command(
    model: ModelArgument,
    format: Annotated[str, typer.Option(help="onnx, or torch_export (a torch.export program).")] = "onnx",
    quantize: Annotated[str | None, typer.Option(help="int8: 8-bit weights, for onnx.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Output folder; default: a folder of the run, named after the format.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Labeled data for the comparison; default: the run's test split.")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Export a finished model to run without transformers, and verify its predictions."""
    from hf_finetune.cli.display import quiet_libraries
    from hf_finetune.cli.tables import print_export

    quiet_libraries(err)
    from hf_finetune.publishing.export import export

    result = export(
        model,
        format=format,
        quantize=quantize,
        output=output,
        data=data,
        trust_remote_code=trust_remote_code,
    )
    print_export(out, result)


@app.command("demo")
def demo_command(
    model: ModelArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on; 0 picks a free one.")] = 7860,
    space: Annotated[
        Path | None,
        typer.Option(help="Write a folder that runs as a Hub Space, instead of serving here."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Try a finished model on a web page that only this machine can open."""
    from hf_finetune.cli.display import quiet_libraries

    quiet_libraries(err)
    if space is not None:
        from hf_finetune.publishing.space import write_space

        write_space(model, space)
        out.print(f"Wrote {space}: it runs as a Space, or locally with python app.py.", markup=False)
        return
    from hf_finetune.publishing.demo import serve

    serve(
        model,
        port=port,
        opened=lambda address: out.print(f"{address}  Press Ctrl-C to stop.", markup=False),
        trust_remote_code=trust_remote_code,
    )


@recipes_app.command("list")
def recipes_list() -> None:
    """List the shipped recipes."""
    from hf_finetune.recipe import shipped_recipes

    for name, path in shipped_recipes().items():
        title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        out.print(f"{name:28} {title}", markup=False)


@recipes_app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(help="Name from `recipes list`.")]) -> None:
    """Print a shipped recipe."""
    from hf_finetune.recipe.load import find_recipe

    sys.stdout.write(find_recipe(name).read_text(encoding="utf-8"))


@recipes_app.command("copy")
def recipes_copy(
    name: Annotated[str, typer.Argument(help="Name from `recipes list`.")],
    dest: Annotated[
        Path, typer.Argument(help="Destination file or folder; existing files are not overwritten.")
    ],
) -> None:
    """Copy a shipped recipe for editing."""
    from hf_finetune.recipe.load import copy_recipe

    out.print(f"Copied to {copy_recipe(name, dest)}.")


@recipes_app.command("schema")
def recipes_schema() -> None:
    """Print the JSON Schema of recipes, for code editors."""
    import json

    from hf_finetune.recipe import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")


@cache_app.command("list")
def cache_list() -> None:
    """List cache entries, least recently used first."""
    from hf_finetune.cache.cache_dir import cache_folder, list_cache
    from hf_finetune.cli.tables import print_kept

    print_kept(out, cache_folder(), list_cache(cache_folder()))


@cache_app.command("prune")
def cache_prune(
    max_size: Annotated[str, typer.Option(help="Cache size to keep, such as 500MB or 2GB.")] = "0",
) -> None:
    """Remove the least recently used cache entries; without --max-size, all of them."""
    from hf_finetune.cache.cache_dir import cache_folder, parse_size, prune_cache

    removed = prune_cache(cache_folder(), parse_size(max_size))
    entries = "1 cache entry" if len(removed) == 1 else f"{len(removed):,} cache entries"
    size = sum(entry.bytes for entry in removed)
    out.print(f"Removed {entries} ({size:,} bytes) from {cache_folder()}.")

"""The commands `compare` and `report`, on finished runs."""

from pathlib import Path
from typing import Annotated

import typer

from hf_finetune.cli.terminal import out

__all__ = ["finished_runs_app"]

finished_runs_app = typer.Typer()


@finished_runs_app.command("compare")
def compare_command(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Two or more run directories or prediction files.")
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric; repeatable; default: those of the label type, such as accuracy."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
) -> None:
    """Compare runs with the first one on shared test examples, with confidence intervals and significance tests."""
    from hf_finetune.cli.tables import print_comparisons
    from hf_finetune.evaluation.compare import compare_runs

    print_comparisons(out, runs[0], compare_runs(runs, metric or (), seed=seed))


@finished_runs_app.command("report")
def report_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished run.")],
) -> None:
    """Rewrite the report of a run: RUN/report.html, with figures in RUN/figures."""
    from hf_finetune.report.page import write_report

    out.print(str(write_report(run)), markup=False, soft_wrap=True)

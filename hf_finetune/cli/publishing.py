"""Commands for a finished model: publish, export and demo."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hf_finetune.cli.terminal import ModelArgument, TrustRemoteCode, err, out
from hf_finetune.errors import InputError, Problem

__all__ = ["publishing_app"]

publishing_app = typer.Typer()


@publishing_app.command("publish")
def publish_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished run.")],
    to: Annotated[str, typer.Option(help="Hub repository: NAMESPACE/NAME.")],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Visibility; default: private for a new repository."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch; default: the main branch.")] = None,
    tag: Annotated[str | None, typer.Option(help="New tag for the published commit.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Publish without asking for confirmation.")] = False,
) -> None:
    """Show the files of a finished run's model, then publish them on the Hub in one commit."""
    from hf_finetune.cli.display import quiet_hub
    from hf_finetune.cli.tables import print_publication

    if not yes and not sys.stdin.isatty():
        raise InputError(Problem("--yes", "is required when stdin is not a terminal"))
    quiet_hub(err)
    from hf_finetune.publishing.hub import plan_publication, publish

    planned = plan_publication(run, to, private=private, revision=revision, tag=tag)
    print_publication(out, planned)
    if planned.is_up_to_date:
        return
    if not yes and not typer.confirm("Publish this?"):
        out.print("Nothing was published.")
        raise typer.Exit(1)
    published = publish(planned)
    out.print(f"Published as {published.url}, commit {published.commit[:12]}.", markup=False)


@publishing_app.command("export")
def export_command(
    model: ModelArgument,
    format: Annotated[str, typer.Option(help="onnx, or torch_export (a torch.export program).")] = "onnx",
    quantize: Annotated[
        str | None, typer.Option(help="int8: 8-bit weights and activations; only for onnx.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Output folder; default: a folder of the run, named after the format.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Labeled data for the comparison, and to calibrate int8 image models; default: that of the run, "
            "compared on its test split."
        ),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Export a fine-tuned model to ONNX or torch.export, and compare its predictions with the original."""
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


@publishing_app.command("demo")
def demo_command(
    model: ModelArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on; 0 picks a free one.")] = 7860,
    space: Annotated[
        Path | None,
        typer.Option(help="Write a folder that runs as a Hub Space, instead of serving here."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Serve a demo page of a fine-tuned model, reachable only from this machine."""
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
        on_ready=lambda address: out.print(f"{address}  Press Ctrl-C to stop.", markup=False),
        trust_remote_code=trust_remote_code,
    )

"""Commands for shipped recipes: list, show, copy and schema."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from hf_finetune.cli.terminal import out

__all__ = ["recipes_app"]

recipes_app = typer.Typer(no_args_is_help=True, help="List, print and copy the shipped recipes.")


@recipes_app.command("list")
def recipes_list() -> None:
    """List the shipped recipes."""
    from hf_finetune.recipe.shipped import shipped_recipes

    for name, path in shipped_recipes().items():
        title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        out.print(f"{name:28} {title}", markup=False)


@recipes_app.command("show")
def recipes_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name from `recipes list`.")],
) -> None:
    """Print a shipped recipe."""
    from hf_finetune.recipe.load import find_recipe

    sys.stdout.write(find_recipe(name).read_text(encoding="utf-8"))


@recipes_app.command("copy")
def recipes_copy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name from `recipes list`.")],
    dest: Annotated[
        Path,
        typer.Argument(
            metavar="DEST", help="Destination file or folder; existing files are not overwritten."
        ),
    ],
) -> None:
    """Copy a shipped recipe for editing."""
    from hf_finetune.recipe.load import copy_recipe

    out.print(f"Copied to {copy_recipe(name, dest)}.")


@recipes_app.command("schema")
def recipes_schema() -> None:
    """Print the JSON Schema of recipes, for code editors."""
    from hf_finetune.recipe.load import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")

"""Commands for the cache of frozen outputs and images: list and prune."""

from typing import Annotated

import typer

from hf_finetune.cli.terminal import out
from hf_finetune.errors import counted

__all__ = ["cache_app"]

cache_app = typer.Typer(
    no_args_is_help=True, help="Manage cached outputs of frozen layers and cached images."
)


@cache_app.command("list")
def cache_list() -> None:
    """List cache entries, least recently used first."""
    from hf_finetune.cache.cache_dir import cache_folder, list_cache
    from hf_finetune.cli.tables import print_cache_entries

    print_cache_entries(out, cache_folder(), list_cache(cache_folder()))


@cache_app.command("prune")
def cache_prune(
    max_size: Annotated[str, typer.Option(help="Cache size to keep, such as 500MB or 2GB.")] = "0",
) -> None:
    """Remove the least recently used cache entries; without --max-size, all of them."""
    from hf_finetune.cache.cache_dir import cache_folder, parse_size, prune_cache

    removed = prune_cache(cache_folder(), parse_size(max_size))
    entries = counted(len(removed), "cache entry", "cache entries")
    size = sum(entry.bytes for entry in removed)
    out.print(f"Removed {entries} ({size:,} bytes) from {cache_folder()}.")

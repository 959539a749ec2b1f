"""What is kept in the cache folder: listing it, and keeping it small."""

import json
import os
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout
from huggingface_hub.constants import HF_HOME

from hf_finetune.errors import InputError, Problem

__all__ = ["CacheEntry", "cache_folder", "list_cache", "parse_size", "prune_cache"]

PART = re.compile(r"(\.\d+-\d+|-\d\d)$")
"""End of the name of a part: its range of examples; older versions wrote its number."""
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class CacheEntry:
    """What is kept of one version of some examples.

    Attributes:
        name: Of its folders, without the range of a part.
        folders: Where its parts are.
        about: What they are of.
        examples: How many.
        bytes: On the disk.
        used: When they were last written or read.
    """

    name: str
    folders: tuple[Path, ...]
    about: str
    examples: int
    bytes: int
    used: datetime


def cache_folder() -> Path:
    """Name the folder of all caches: ``HF_FINETUNE_CACHE``, or ``hf-finetune`` in the folder of the Hub's caches."""
    named = os.environ.get("HF_FINETUNE_CACHE")
    return Path(named).expanduser() if named else Path(HF_HOME) / "hf-finetune"


def list_cache(folder: Path) -> list[CacheEntry]:
    """List what is kept, the least recently used first. What is half-written, and other files, are passed over."""
    found: dict[str, CacheEntry] = {}
    for meta in sorted(folder.glob("*/meta.json")):
        try:
            content = json.loads(meta.read_text(encoding="utf-8"))
            size = sum(file.stat().st_size for file in meta.parent.iterdir())
            used = datetime.fromtimestamp(meta.parent.stat().st_mtime)
            about, examples = content.get("about", "an older version"), content["examples"]
            name = PART.sub("", meta.parent.name)
            before = found.get(name, CacheEntry(name, (), about, 0, 0, used))
            found[name] = CacheEntry(
                name,
                (*before.folders, meta.parent),
                about,
                before.examples + examples,
                before.bytes + size,
                max(before.used, used),
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found.values(), key=lambda kept: kept.used)


def prune_cache(folder: Path, limit: int, spared: Collection[str] = ()) -> list[CacheEntry]:
    """Remove what was least recently used until the rest takes no more than so many bytes. Give what was removed.

    A run that trains on what is removed here goes on: it holds the files open.

    Args:
        folder: Of all caches.
        limit: Bytes that may stay, besides what is spared.
        spared: Names of what is not removed.
    """
    _remove_half_written(folder)
    kept = [each for each in list_cache(folder) if each.name not in spared]
    total, removed = sum(each.bytes for each in kept), []
    for each in kept:
        if total <= limit:
            break
        for part in each.folders:
            shutil.rmtree(part, ignore_errors=True)
            part.with_name(f"{part.name}.lock").unlink(missing_ok=True)
        total -= each.bytes
        removed.append(each)
    return removed


def _remove_half_written(folder: Path) -> None:
    """Remove what a killed run left; nobody holds its lock any more."""
    for partial in folder.glob(".*.part"):
        name = partial.name.removeprefix(".").removesuffix(".part")
        try:
            with FileLock(folder / f"{name}.lock", timeout=0):
                shutil.rmtree(partial, ignore_errors=True)
        except Timeout:
            continue


def parse_size(text: str) -> int:
    """Read a number of bytes: ``500MB``, ``2.5 GB``, ``0``.

    Raises:
        InputError: If it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise InputError(
            Problem("--max-size", "must be a number of bytes", repr(text), "Write 500MB or 2GB.")
        )
    return int(float(match[1]) * UNITS[(match[2] or "B").upper()])

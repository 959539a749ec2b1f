"""List the entries of the cache folder, and prune it to a size limit."""

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

RANGE_SUFFIX = re.compile(r"(\.\d+-\d+|-\d\d)$")
"""Suffix of a part's folder name: its range of examples; older versions wrote the number of the part."""
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class CacheEntry:
    """Cached rows of one view of a dataset, in one folder per part.

    Attributes:
        name: Name of its folders, without the suffix for the range of a part.
        folders: Folders of the parts.
        about: Description of the contents: model, cut point and view.
        examples: Number of examples.
        bytes: Size on disk.
        used: Time of the last write or read.
    """

    name: str
    folders: tuple[Path, ...]
    about: str
    examples: int
    bytes: int
    used: datetime


def cache_folder() -> Path:
    """Return the root folder of all caches: ``HF_FINETUNE_CACHE``, or ``hf-finetune`` in ``HF_HOME``."""
    named = os.environ.get("HF_FINETUNE_CACHE")
    return Path(named).expanduser() if named else Path(HF_HOME) / "hf-finetune"


def list_cache(folder: Path) -> list[CacheEntry]:
    """Return the cache entries, least recently used first; skip half-written folders and other files."""
    entries: dict[str, CacheEntry] = {}
    for meta in sorted(folder.glob("*/meta.json")):
        try:
            content = json.loads(meta.read_text(encoding="utf-8"))
            size = sum(file.stat().st_size for file in meta.parent.iterdir())
            used = datetime.fromtimestamp(meta.parent.stat().st_mtime)
            about, examples = content.get("about", "an older version"), content["examples"]
            name = RANGE_SUFFIX.sub("", meta.parent.name)
            previous = entries.get(name, CacheEntry(name, (), about, 0, 0, used))
            entries[name] = CacheEntry(
                name,
                (*previous.folders, meta.parent),
                about,
                previous.examples + examples,
                previous.bytes + size,
                max(previous.used, used),
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(entries.values(), key=lambda entry: entry.used)


def prune_cache(folder: Path, limit: int, protected: Collection[str] = ()) -> list[CacheEntry]:
    """Remove the least recently used cache entries until the remaining entries take at most ``limit`` bytes.

    A run that is training on a removed entry continues: it holds the files open. Folders that a killed run left
    half-written are removed too.

    Args:
        folder: Root folder of all caches.
        limit: Bytes that may remain, not counting the protected entries.
        protected: Names of entries that are never removed.

    Returns:
        The removed entries.
    """
    _remove_half_written(folder)
    removable = [entry for entry in list_cache(folder) if entry.name not in protected]
    total, removed = sum(entry.bytes for entry in removable), []
    for entry in removable:
        if total <= limit:
            break
        for part in entry.folders:
            shutil.rmtree(part, ignore_errors=True)
            part.with_name(f"{part.name}.lock").unlink(missing_ok=True)
        total -= entry.bytes
        removed.append(entry)
    return removed


def _remove_half_written(folder: Path) -> None:
    """Remove the half-written folders of killed runs, whose locks no process holds."""
    for partial in folder.glob(".*.part"):
        name = partial.name.removeprefix(".").removesuffix(".part")
        try:
            with FileLock(folder / f"{name}.lock", timeout=0):
                shutil.rmtree(partial, ignore_errors=True)
        except Timeout:
            continue


def parse_size(text: str) -> int:
    """Return the number of bytes that a text states: ``500MB``, ``2.5 GB``, ``0``.

    Raises:
        InputError: If the text is not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B)?\s*", text, re.IGNORECASE)
    if match is None:
        rule, repair = "must be a number of bytes", "Write 500MB or 2GB."
        raise InputError(Problem("--max-size", rule, repr(text), repair))
    return int(float(match[1]) * UNITS[(match[2] or "B").upper()])

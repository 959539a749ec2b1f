"""Lock of a run directory: only one run writes to it at a time."""

import json
import logging
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from hf_finetune.errors import InputError, Problem
from hf_finetune.files import read_json_object

__all__ = ["LOCK", "RunLock", "is_free"]

logger = logging.getLogger(__name__)

LOCK = "lock.json"
"""Lock file in a run directory."""
SAME_START_SECONDS = 2.0
"""Tolerance (seconds) for comparing start times of a process: psutil derives them from the boot time."""

WRITING_SECONDS = 0.5
"""Time (seconds) after which a lock file without content counts as truncated."""


class RunLock:
    """Lock of a run directory: ``lock.json`` with host, process id and start time of the writing process.

    A lock of a process that no longer runs on this host is stale and is taken over. Whether a process on another host
    still runs is unknown, so its lock is respected.

    Args:
        folder: Run directory.
    """

    def __init__(self, folder: Path):
        self.path = folder / LOCK
        self.held = False

    def acquire(self) -> None:
        """Write the lock; the directory must exist.

        Raises:
            InputError: If another process holds the lock or may hold it, or the directory is not writable.
        """
        if self._create():
            return
        owner = read_json_object(self.path)
        if not owner:  # being written at this moment, or truncated
            time.sleep(WRITING_SECONDS)
            owner = read_json_object(self.path)
        if not _is_stale(owner):
            raise InputError(_in_use(self.path, owner))
        logger.info(
            "Removing a stale lock of the run directory: process %s is no longer running.",
            owner.get("process"),
        )
        if not self._remove(owner) or not self._create():
            raise InputError(_in_use(self.path, read_json_object(self.path)))

    def release(self) -> None:
        """Remove the lock if this object wrote it."""
        if self.held:
            self.path.unlink(missing_ok=True)
            self.held = False

    def _create(self) -> bool:
        """Write the lock unless one exists; return whether it was written."""
        owner = {"host": platform.node(), "process": os.getpid(), "started": _start_of(os.getpid())}
        try:
            with self.path.open("x", encoding="utf-8") as file:
                json.dump(owner, file)
        except FileExistsError:
            return False
        except OSError as error:
            rule = "must be a writable folder"
            problem = Problem("--output-dir", rule, str(self.path.parent), f"{error.strerror}.")
            raise InputError(problem) from error
        self.held = True
        return True

    def _remove(self, owner: dict[str, Any]) -> bool:
        """Remove a stale lock; return False, and keep the file, if another process has replaced it.

        The file is renamed before it is compared, because only one of several processes can rename it.
        """
        renamed = self.path.with_name(f".{LOCK}.{os.getpid()}.part")
        try:
            self.path.rename(renamed)
        except FileNotFoundError:
            return True
        if read_json_object(renamed) != owner:
            renamed.rename(self.path)
            return False
        renamed.unlink()
        return True


def is_free(folder: Path) -> bool:
    """Return whether no running process holds the lock of a folder.

    Args:
        folder: Folder, which may not exist.
    """
    return _is_stale(read_json_object(folder / LOCK))


def _is_stale(owner: dict[str, Any]) -> bool:
    if not owner:
        return True
    if owner.get("host") != platform.node():
        return False
    started = _start_of(owner.get("process"))
    return started is None or abs(started - owner.get("started", 0.0)) > SAME_START_SECONDS


def _start_of(process: Any) -> float | None:
    """Return the start time of a process on this host (seconds since 1970), or None if it does not run."""
    try:
        running = psutil.Process(process)
        return None if running.status() == psutil.STATUS_ZOMBIE else float(running.create_time())
    except (psutil.NoSuchProcess, TypeError, ValueError):
        return None


def _in_use(path: Path, owner: dict[str, Any]) -> Problem:
    rule = "must not be in use by another run"
    host, process = owner.get("host"), owner.get("process")
    started = datetime.fromtimestamp(owner.get("started") or 0.0, UTC).strftime("%Y-%m-%d %H:%M UTC")
    value = f"{path.parent}, which process {process} on {host} has been writing to since {started}"
    repair = "Wait for that run or stop it, or choose another folder."
    if host != platform.node():
        repair += f" If that process has ended, remove {path}."
    return Problem("--output-dir", rule, value, repair)

"""One writer at a time in a run directory."""

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

__all__ = ["LOCK", "RunLock"]

logger = logging.getLogger(__name__)

LOCK = "lock.json"
"""Name of the file that marks a run directory as being written to."""
SAME_START_SECONDS = 2.0
"""Tolerance (seconds) when start times of a process are compared: psutil derives them from the clock at boot."""

WRITING_SECONDS = 0.5
"""Time (seconds) after which a lock without content counts as cut off."""


class RunLock:
    """The mark of the process that writes to a run directory: host, process id and start time, in ``lock.json``.

    A lock whose process no longer runs on this host is stale and taken over. Whether a process of another host still
    runs cannot be seen from here, so its lock is respected.

    Args:
        folder: The run directory.
    """

    def __init__(self, folder: Path):
        self.path = folder / LOCK
        self.held = False

    def acquire(self) -> None:
        """Write the lock; the directory must exist.

        Raises:
            InputError: If another process holds it, or may hold it.
        """
        if self._create():
            return
        owner = _read(self.path)
        if not owner:  # being written at this moment, or cut off
            time.sleep(WRITING_SECONDS)
            owner = _read(self.path)
        if not _is_stale(owner):
            raise InputError(_in_use(self.path, owner))
        logger.info(
            "The run was left by process %s, which has ended; this one goes on.", owner.get("process")
        )
        if not self._remove(owner) or not self._create():
            raise InputError(_in_use(self.path, _read(self.path)))

    def release(self) -> None:
        """Remove the lock if this object wrote it."""
        if self.held:
            self.path.unlink(missing_ok=True)
            self.held = False

    def _create(self) -> bool:
        """Write the lock unless there is one; return whether it was written."""
        own = {"host": platform.node(), "process": os.getpid(), "started": _start_of(os.getpid())}
        try:
            with self.path.open("x", encoding="utf-8") as file:
                json.dump(own, file)
        except FileExistsError:
            return False
        except OSError as error:
            rule = "must be a folder that can be written to"
            problem = Problem("--output-dir", rule, str(self.path.parent), f"{error.strerror}.")
            raise InputError(problem) from error
        self.held = True
        return True

    def _remove(self, owner: dict[str, Any]) -> bool:
        """Remove a stale lock; return False if it is another one by now, which then stays.

        The file is moved aside before it is compared, because only one of several processes can move it.
        """
        aside = self.path.with_name(f".{LOCK}.{os.getpid()}.part")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return True
        if _read(aside) != owner:
            aside.rename(self.path)
            return False
        aside.unlink()
        return True


def _read(path: Path) -> dict[str, Any]:
    """Read a lock; one that was cut off while it was written, or has just gone, names no process."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_stale(owner: dict[str, Any]) -> bool:
    if not owner:
        return True
    if owner.get("host") != platform.node():
        return False
    started = _start_of(owner.get("process"))
    return started is None or abs(started - owner.get("started", 0.0)) > SAME_START_SECONDS


def _start_of(process: Any) -> float | None:
    """Return when a process of this host started (seconds since 1970), or None if it does not run."""
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
    repair = "Wait for that run or stop it, or name another folder."
    if host != platform.node():
        repair += f" If that process has ended, remove {path}."
    return Problem("--output-dir", rule, value, repair)

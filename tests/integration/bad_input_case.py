"""A bad input, its command, the expected message, and the folder in which the command runs."""

import contextlib
import io
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from evaluation_helpers import save_bert, save_vit
from PIL import Image
from rich.console import Console

from hf_finetune.cli import app as cli

__all__ = ["Case", "Outcome", "Workspace", "nothing"]

RECIPE = """\
task: image-classification
model: ./vit
data: ./photos
stages:
  - {name: head, train: head, epochs: 1, lr: 1e-2}
"""
TEXT_RECIPE = """\
task: text-classification
model: ./bert
data: ./reviews.csv
stages:
  - {name: head, train: head, epochs: 1, lr: 1e-2}
"""
COLORS = {"cake": (200, 150, 90), "soup": (60, 160, 40), "tea": (120, 60, 20)}


def nothing(folder: Path) -> None:
    """Leave the folder as it is."""


@dataclass(frozen=True)
class Case:
    """A bad input and the expected outcome.

    Attributes:
        title: Unique title of the case, for the table.
        command: Arguments of ``hf-finetune``, as typed in the workspace's folder.
        message: Complete standard error; the workspace's folder is written as ``.``.
        prepare: Function that changes the workspace; its argument is the workspace's folder, the working directory.
        code: Exit code.
        partial: Folder in which an interrupted run may be left; empty if nothing may be written.
        during: Context manager that is active while the command runs.
    """

    title: str
    command: str
    message: str
    prepare: Callable[[Path], None] = nothing
    code: int = 2
    partial: str = ""
    during: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Outcome:
    """Result of a command.

    Attributes:
        code: The exit code.
        message: Standard error, without the spaces that pad its lines.
        written: Files and folders that are new, deleted or changed, by their path below the folder.
    """

    code: int
    message: str
    written: tuple[str, ...]


class Workspace:
    """A folder with a recipe for images and one for texts, their data, two checkpoints and a finished run.

    Every case gets a fresh copy at the same path, because the run's recipe has absolute paths of its data.

    Args:
        parent: Folder in which it is created.
    """

    def __init__(self, parent: Path):
        self.folder, self.original = parent / "workspace", parent / "original"
        self.folder.mkdir()
        (self.folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        (self.folder / "text.yaml").write_text(TEXT_RECIPE, encoding="utf-8")
        for name, color in COLORS.items():
            (self.folder / "photos" / name).mkdir(parents=True)
            for index in range(6):
                shade = tuple(channel + 8 * index for channel in color)
                Image.new("RGB", (32, 32), shade).save(self.folder / "photos" / name / f"{index}.png")
        rows = [
            f"the film {'very ' * index}{label},{label}" for label in ("bad", "good") for index in range(6)
        ]
        (self.folder / "reviews.csv").write_text("\n".join(["text,label", *rows, ""]), encoding="utf-8")
        save_vit(self.folder / "vit", names=("a", "b"))
        save_bert(self.folder / "bert")
        done = self.run("run recipe.yaml --output-dir run")
        if done.code != 0:
            raise RuntimeError(done.message)
        shutil.copytree(self.folder, self.original)

    def reset(self) -> None:
        """Restore the original content."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.original, self.folder)

    def outcome(self, case: Case) -> Outcome:
        """Run a case in a fresh folder."""
        self.reset()
        with contextlib.chdir(self.folder):
            case.prepare(self.folder)
        with case.during():
            return self.run(case.command)

    def run(self, command: str) -> Outcome:
        """Run the command line in this process."""
        before = _contents(self.folder)
        errors = io.StringIO()
        consoles = {
            "out": Console(soft_wrap=True, highlight=False, width=1000),
            "err": Console(stderr=True, soft_wrap=True, highlight=False, width=1000),
        }
        with (
            contextlib.chdir(self.folder),
            patch.multiple(cli, **consoles),
            patch.object(sys, "argv", ["hf-finetune", *shlex.split(command)]),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(errors),
            _library_logs_to(errors),
        ):
            threads = torch.get_num_threads()
            try:
                cli.main()
            except SystemExit as exit_:
                code = exit_.code if isinstance(exit_.code, int) else 1
            finally:
                torch.set_num_threads(threads)
        text = errors.getvalue().replace(str(self.folder), ".")
        message = "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")
        after = _contents(self.folder)
        changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
        return Outcome(code, message, tuple(sorted(changed)))


def _contents(folder: Path) -> dict[str, bytes | None]:
    """Read every file below a folder; folders are None."""
    return {
        os.path.relpath(path, folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@contextlib.contextmanager
def _library_logs_to(stream: io.StringIO):
    """Redirect logs of libraries from the standard error of their import to a stream."""
    loggers = [logging.getLogger(name) for name in (None, *logging.root.manager.loggerDict)]
    handlers = [one for logger in loggers for one in logger.handlers if type(one) is logging.StreamHandler]
    streams = [handler.setStream(stream) for handler in handlers]
    try:
        yield
    finally:
        for handler, old in zip(handlers, streams, strict=True):
            handler.setStream(old or sys.__stderr__)

"""The command line in a process that is forked from the tests' own, which saves the seconds of its imports."""

import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from time import monotonic, sleep

from accelerate.state import AcceleratorState, PartialState

from hf_finetune.cli import app as command_line

SECONDS = 300


def forked_cli(*arguments, cwd=None, stdin=None):
    """Run ``hf-finetune`` with some arguments, see ``ForkedCli``.

    Returns:
        A ``subprocess.CompletedProcess`` with exit code, ``stdout`` and ``stderr``.
    """
    return ForkedCli(*arguments, cwd=cwd, stdin=stdin).wait()


class ForkedCli:
    """A running command of ``hf-finetune``.

    It has the environment variables of the tests, as libraries read them when they were imported.

    Args:
        arguments: Arguments of the command.
        cwd: The working directory.
        stdin: The file descriptor that is its standard input; None lets it read nothing.
    """

    def __init__(self, *arguments, cwd=None, stdin=None):
        self.words = ["hf-finetune", *map(str, arguments)]
        self.place = tempfile.TemporaryDirectory()
        self.written = [Path(self.place.name) / name for name in ("out", "err")]
        out, err = (path.open("w", encoding="utf-8") for path in self.written)
        with out, err:
            self.child = fork_command(self.words, (stdin, out.fileno(), err.fileno()), cwd)

    def wait(self):
        """Wait for the end of the command.

        Returns:
            A ``subprocess.CompletedProcess`` with exit code, ``stdout`` and ``stderr``.
        """
        with self.place:
            code = wait_for_command(self.child)
            out, err = (path.read_text(encoding="utf-8") for path in self.written)
        return subprocess.CompletedProcess(self.words, code, out, err)


def fork_command(words, streams, cwd=None, environment=()):
    """Fork a process that runs the command line, and exits without the cleanup of the tests.

    Args:
        words: The command and its arguments.
        streams: File descriptors of its standard input (None lets it read nothing), output and error.
        cwd: The working directory; None is that of the tests.
        environment: Further environment variables.

    Returns:
        Id of the process.
    """
    child = os.fork()
    if child == 0:
        _be_command(words, streams, cwd, environment)
    return child


def _be_command(words, streams, cwd, environment):
    code = 1
    try:
        stdin, *written = streams
        os.dup2(os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin, 0)
        for number, stream in enumerate(written, start=1):
            os.dup2(stream, number)
        sys.stdin = os.fdopen(0, "r", encoding="utf-8", closefd=False)
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
        os.environ.update(environment)
        if cwd is not None:
            os.chdir(cwd)
        AcceleratorState._reset_state(True)
        PartialState._reset_state()
        sys.argv = words
        command_line.main()
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait_for_command(child):
    """Wait for a forked command, which is killed after ``SECONDS``, and return its exit code."""
    deadline = monotonic() + SECONDS
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        sleep(0.02)

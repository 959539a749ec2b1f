"""Programs that serve a page on this machine, started for a test and stopped after it."""

import os
import re
import signal
import subprocess
import threading
from contextlib import contextmanager

from forked_cli import fork_command, wait_for_command

ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}


@contextmanager
def served(words, folder, log):
    """Start a program, yield the address that it prints, and stop it with Ctrl-C.

    Args:
        words: The program and its arguments.
        folder: Where it runs.
        log: File for its standard error.
    """
    environment = os.environ | ENVIRONMENT
    with log.open("w") as errors:
        program = subprocess.Popen(
            words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        yield _address(program.stdout, log)
    finally:
        program.send_signal(signal.SIGINT)
        try:
            program.wait(60)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
        program.stdout.close()


@contextmanager
def served_by_command(arguments, log):
    """Run ``hf-finetune`` in a fork, which saves its imports, yield the address that it prints, and stop it by Ctrl-C.

    Args:
        arguments: Arguments of the command.
        log: File for its standard error.
    """
    reading, writing = os.pipe()
    words = ["hf-finetune", *map(str, arguments)]
    with log.open("w") as errors:
        child = fork_command(words, (None, writing, errors.fileno()), environment=ENVIRONMENT)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as output:
        try:
            yield _address(output, log)
        finally:
            os.kill(child, signal.SIGINT)
            code = wait_for_command(child)
    assert code == 0, log.read_text()


def _address(output, log):
    for line in output:
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found:
            # What it prints later must not fill the pipe.
            threading.Thread(target=output.read, daemon=True).start()
            return found[0]
    raise AssertionError(f"It ended before it served: {log.read_text()}")

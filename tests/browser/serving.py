"""Programs that serve a page on this machine, started for a test and stopped after it."""

import os
import re
import signal
import subprocess
import threading
from contextlib import contextmanager


@contextmanager
def served(words, folder, log):
    """Start a program, yield the address that it prints, and stop it with Ctrl-C.

    Args:
        words: The program and its arguments.
        folder: Where it runs.
        log: File for its standard error.
    """
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    with log.open("w") as errors:
        program = subprocess.Popen(
            words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        yield _address(program, log)
    finally:
        program.send_signal(signal.SIGINT)
        try:
            program.wait(60)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
        program.stdout.close()


def _address(program, log):
    for line in program.stdout:
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found:
            # What it prints later must not fill the pipe.
            threading.Thread(target=program.stdout.read, daemon=True).start()
            return found[0]
    raise AssertionError(f"It ended before it served: {log.read_text()}")

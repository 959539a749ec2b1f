"""Programs that must do without hf_finetune, forked from one process that has imported torch and transformers.

``python tests/plain_process.py`` is that process. It never imports hf_finetune, and saves each program
the seconds of the imports. It reads a request in JSON per line of its input, and answers with the exit code.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path

__all__ = ["run_plain"]


def run_plain(code, *arguments, cwd=None, stdin=""):
    """Run a program as ``python -c CODE ARGUMENTS`` does, where hf_finetune and peft are not imported.

    Args:
        code: The program.
        arguments: Arguments after ``sys.argv[0]``.
        cwd: The working directory; None is that of the tests.
        stdin: What it reads from its standard input.

    Returns:
        A ``subprocess.CompletedProcess`` with exit code, ``stdout`` and ``stderr``.
    """
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "in").write_text(stdin, encoding="utf-8")
        request = {"code": code, "arguments": words, "cwd": str(cwd or Path.cwd()), "folder": place}
        parent = _parent()
        parent.stdin.write(json.dumps(request | {"environment": dict(os.environ)}) + "\n")
        parent.stdin.flush()
        answer = parent.stdout.readline()
        if not answer:
            raise RuntimeError("The process that forks plain programs has ended.")
        out, err = ((folder / name).read_text(encoding="utf-8") for name in ("out", "err"))
    return subprocess.CompletedProcess(["python", "-c", code, *words], int(answer), out, err)


@cache
def _parent():
    """Start the process that forks the programs; it ends with this one."""
    started = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    )
    atexit.register(started.kill)
    return started


def _fork_programs():
    """Import the libraries of most programs, and fork a process for each request."""
    import timm  # noqa: F401
    import torch  # noqa: F401
    from transformers import (  # noqa: F401
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
        BertForSequenceClassification,
        BertTokenizerFast,
        TimmWrapperForImageClassification,
        pipeline,
    )

    for line in sys.stdin:
        unwanted = {"hf_finetune", "peft"} & sys.modules.keys()
        if unwanted:
            sys.exit(f"A plain process has imported {unwanted}.")
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _be_program(**request)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _be_program(code, arguments, cwd, folder, environment):
    """Run one program, and exit."""
    status = 1
    try:
        for number, name in enumerate(("in", "out", "err")):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT
            os.dup2(os.open(Path(folder) / name, flags), number)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, encoding="utf-8", closefd=False) for number, mode in enumerate("rww")
        )
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["-c", *arguments]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _fork_programs()

"""Runs on several processes of the CPU, and the notes that each process writes.

``launch`` goes through ``accelerate launch``, as users do; ``spread`` forks the processes from this one, which
spares them most of the time: the imports.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from types import SimpleNamespace

from accelerate.commands.launch import launch_command_parser
from accelerate.state import AcceleratorState
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file

from hf_finetune.doctor import two_processes, worker
from hf_finetune.recipe.load import dump_recipe

SECONDS = 300
WORKER = Path(__file__).with_name("worker.py")
COMMON = ("--num_machines", "1", "--num_cpu_threads_per_process", "1", "--mixed_precision", "no")
MODES = {
    "ddp": ("--multi_gpu", "--dynamo_backend", "no"),
    "fsdp": (
        *("--use_fsdp", "--fsdp_version", "2", "--dynamo_backend", "no"),
        *("--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"),
    ),
    "deepspeed": ("--use_deepspeed", "--deepspeed_config_file", "deepspeed.json"),
}
ALWAYS = {"MASTER_ADDR": "127.0.0.1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Launched:
    """A launch that has ended.

    Attributes:
        folder: Its folder, with the run in ``run``, and the notes of the processes in ``ranks``.
        code: Its exit code.
        err: Its standard error.
        seconds: Its duration.
    """

    folder: Path
    code: int
    err: str
    seconds: float

    def weights(self, stage, rank, moment="after"):
        """Read what a process had in its memory before or after a stage."""
        return load_file(self.folder / "ranks" / f"{stage}-{moment}-{rank}.safetensors")

    def notes(self, stage, rank):
        """Read the notes of a process: examples of each step, modes of modules, buffers during evaluation."""
        return json.loads((self.folder / "ranks" / f"{stage}-{rank}.json").read_text(encoding="utf-8"))

    def manifest(self):
        return json.loads((self.folder / "run" / "manifest.json").read_text(encoding="utf-8"))

    def metrics(self):
        return json.loads((self.folder / "run" / "metrics.json").read_text(encoding="utf-8"))


def spread(folder, recipe, processes, *, mode="ddp", resume=False, event=None, ends_others=False):
    """Run a recipe on several processes that are forked from this one.

    Args:
        folder: Empty folder, or one with a run to resume.
        recipe: The recipe.
        processes: Number of processes.
        mode: ``ddp`` or ``fsdp``.
        resume: Whether to resume.
        event: What happens to one of them: ``{"rank": 1, "stage": "all", "step": 3, "how": "exit"}``.
        ends_others: Whether the first process that fails ends the others, as the launcher does.
    """
    (folder / "ranks").mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")

    def run_recipe():
        from worker import work

        work(resume=resume, event=event)

    begun = monotonic()
    code, err = fork(folder, processes, run_recipe, mode=mode, ends_others=ends_others)
    return Launched(folder, code, err, monotonic() - begun)


def fork(folder, processes, work, *, mode="ddp", ends_others=False):
    """Run a function in forked processes, with the environment variables that the launcher would set.

    Args:
        folder: Working directory.
        processes: Number of processes; a single one is not distributed.
        work: Function that each runs.
        mode: ``ddp`` or ``fsdp``.
        ends_others: Whether the first process that fails ends the others, as the launcher does.

    Returns:
        The first exit code that is not 0, and what they all wrote to standard error.
    """
    options = [*MODES[mode], *COMMON, "--num_processes", str(processes), "--main_process_port", "0", "script"]
    launcher = launch_command_parser().parse_args(options)
    environment = {
        **prepare_multi_gpu_env(launcher),
        **ALWAYS,
        "MASTER_PORT": str(launcher.main_process_port),
    }
    children = []
    for rank in range(processes):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        child = os.fork()
        if child == 0:
            os.environ.update(environment)
            if processes > 1:
                os.environ.update({name: str(value) for name, value in place.items()})
            _be_process(folder, rank, work)
        children.append(child)
    code = _wait(children, ends_others)
    return code, "".join((folder / f"err-{rank}").read_text(encoding="utf-8") for rank in range(processes))


def fork_script(folder, script, *arguments, make_model, processes=2):
    """Run a script in forked processes with DDP, as ``fork`` does.

    Args:
        folder: Working directory.
        script: Its path.
        arguments: Its arguments.
        make_model: Replacement of the function of the tests' conftest, for the script.
        processes: Number of processes.
    """

    def work():
        sys.modules["conftest"] = SimpleNamespace(make_model=make_model)
        sys.argv = [str(script), *map(str, arguments)]
        runpy.run_path(str(script), run_name="__main__")

    return fork(folder, processes, work)


class ForkedProcess:
    """Replacement of ``subprocess.Popen`` that runs a function in a fork of this process, which saves the imports.

    Attributes:
        returncode: Its exit code, negative where a signal ended it; None as long as it runs.
    """

    def __init__(self, work, environment, stdout):
        """Start the process.

        Args:
            work: Function that it runs.
            environment: Its environment variables.
            stdout: The file that takes its standard output and standard error.
        """
        self.returncode = None
        self.pid = os.fork()
        if self.pid == 0:
            _be_work(work, environment, stdout)

    def poll(self):
        """Return the exit code, or None as long as it runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def kill(self):
        """Kill the process, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        """Wait for its end and return the exit code."""
        while self.poll() is None:
            sleep(0.02)
        return self.returncode


def fork_doctor_workers(monkeypatch):
    """Make the doctor fork the two processes of its check, which saves their imports."""

    def start(command, *, env, stdin, stdout, stderr):
        assert command[1:-1] == ["-P", "-m", "hf_finetune.doctor.worker"]
        return ForkedProcess(partial(worker.run_job, Path(command[-1])), env, stdout)

    stand_in = SimpleNamespace(Popen=start, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr(two_processes, "subprocess", stand_in)


def _be_work(work, environment, stdout):
    """Run the function of a ``ForkedProcess``, and exit without the cleanup of the tests."""
    code = 1
    try:
        for number in (1, 2):
            os.dup2(stdout.fileno(), number)
        sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
        os.environ.clear()
        os.environ.update(environment)
        AcceleratorState._reset_state(True)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _be_process(folder, rank, work):
    """Run the function of one process, and exit without the cleanup of the tests."""
    code = 1
    try:
        os.chdir(folder)
        with (folder / f"err-{rank}").open("w", encoding="utf-8") as err:
            for number in (1, 2):
                os.dup2(err.fileno(), number)
        sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
        AcceleratorState._reset_state(True)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _wait(children, ends_others):
    """Wait for all processes, kill those that exceed the time limit, and return the first exit code that is not 0."""
    code, deadline, left = 0, monotonic() + SECONDS, list(children)
    while left:
        for child in left[:]:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                left.remove(child)
                failed = os.waitstatus_to_exitcode(status)
                if failed and not code and ends_others:
                    for other in left:
                        os.kill(other, signal.SIGTERM)
                code = code or failed
            elif monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
        sleep(0.02)
    return code


def launch(folder, recipe, processes, *, mode="ddp", resume=False, event=None, environment=None):
    """Run a recipe on several processes, in a folder that holds a run to be resumed or nothing.

    Args:
        folder: Output folder.
        recipe: The recipe.
        processes: Number of processes.
        mode: ``ddp``, ``fsdp``, or ``deepspeed`` with a ``deepspeed.json`` in the folder.
        resume: Whether to resume.
        event: What happens to one of them: ``{"rank": 1, "stage": "all", "step": 3, "how": "exit"}``.
        environment: Further environment variables.
    """
    (folder / "ranks").mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    options = json.dumps({"resume": resume, "event": event})
    command = [sys.executable, "-m", "accelerate.commands.launch", *MODES[mode], *COMMON]
    command += ["--num_processes", str(processes), "--main_process_port", "0", str(WORKER), options]
    begun = monotonic()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **ALWAYS, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Launched(folder, done.returncode, done.stderr, monotonic() - begun)

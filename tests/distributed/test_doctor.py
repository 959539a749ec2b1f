"""The doctor's check on two processes, and the whole command on tiny models."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from doctor_helpers import drift_apart, fail, make_subject
from forked_cli import forked_cli
from launching import fork_doctor_workers

import hf_finetune
from hf_finetune.doctor import two_processes
from hf_finetune.doctor.two_processes import check_two_processes
from hf_finetune.tasks import TASKS

HELPERS = Path(__file__).parents[1] / "unit"
PACKAGE = Path(hf_finetune.__file__).parents[1]
NAMES = [
    "weights",
    "save and load",
    "stage head",
    "stage all",
    "loss scaling",
    "determinism",
    "two processes",
]


def command(folder):
    return {
        "args": [sys.executable, "-m", "hf_finetune", "doctor"],
        "cwd": folder,
        "env": {**os.environ, "PYTHONPATH": str(PACKAGE), "TMPDIR": str(folder), "CUDA_VISIBLE_DEVICES": ""},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


@pytest.fixture
def forked_workers(monkeypatch):
    fork_doctor_workers(monkeypatch)


def test_the_whole_command_passes_on_the_tiny_models_and_leaves_nothing(
    tmp_path, forked_workers, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = forked_cli("doctor", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    rows = [line for line in lines if line.startswith(("pass ", "fail ", "skipped "))]
    assert [row[9:22].rstrip() for row in rows] == [*NAMES, "precision"] * len(TASKS)
    assert [row.split()[0] for row in rows] == [*["pass"] * len(NAMES), "skipped"] * len(TASKS)
    assert [line for line in lines if line.startswith("A tiny")] == [
        "A tiny image model with random weights: image-classification, 372,882 parameters",
        "A tiny text model with random weights: text-classification, 6,082 parameters",
        "A tiny audio model with random weights: audio-classification, 6,170 parameters",
        "A tiny events model with random weights: event-classification, 8,306 parameters",
        "A tiny speech model with random weights: automatic-speech-recognition, 18,656 parameters",
        "A tiny items model with random weights: next-item, 7,847 parameters",
        "A tiny series model with random weights: time-series-forecasting, 4,660 parameters",
        "A tiny ranking model with random weights: text-ranking, 6,065 parameters",
    ]
    assert lines[-1].endswith(f" s: {7 * len(TASKS)} passed, {len(TASKS)} skipped.")
    assert list(tmp_path.glob("hf-finetune-*")) == []  # torch writes its own cache there


def test_ctrl_c_exits_with_130_and_leaves_nothing(tmp_path):
    with subprocess.Popen(**command(tmp_path)) as running:
        line = running.stdout.readline()
        while line and not line.startswith("pass"):
            line = running.stdout.readline()
        running.send_signal(signal.SIGINT)
        rest, errors = running.communicate(timeout=120)
    assert line.startswith("pass     weights")
    assert (running.returncode, errors) == (130, ""), rest
    assert list(tmp_path.glob("hf-finetune-*")) == []  # torch writes its own cache there


@pytest.fixture
def helpers_on_the_path(monkeypatch):
    """Add the helpers of these tests to the search path of the processes."""
    monkeypatch.syspath_prepend(str(HELPERS))


def test_processes_that_drift_apart_fail(tmp_path, bert_checkpoint, helpers_on_the_path):
    """These two processes are not forked, but started as by the command."""
    subject = make_subject("text", bert_checkpoint)
    subject.model.register_forward_pre_hook(drift_apart)
    found = check_two_processes(subject, tmp_path)
    assert (found.state, found.repair) == ("fail", two_processes.DIFFERENCE_REPAIR)
    assert "fter stage head the two processes differ in " in found.measured
    assert "; after stage all the two processes differ in " in found.measured


def test_a_gradient_that_is_not_that_of_one_process_fails(
    tmp_path, bert_checkpoint, forked_workers, monkeypatch
):
    plain = two_processes.plain_gradient

    def halved(*arguments, **options):
        return {name: value / 2 for name, value in plain(*arguments, **options).items()}

    monkeypatch.setattr(two_processes, "plain_gradient", halved)
    found = check_two_processes(make_subject("text", bert_checkpoint), tmp_path)
    assert found.state == "fail"
    each = (
        "stage {} the gradient norm is 2 times that of one process, and the gradients differ by 100.0% of it"
    )
    assert found.measured == f"In {each.format('head')}; in {each.format('all')}."


def test_a_failed_process_is_reported_with_its_message(tmp_path, bert_checkpoint, forked_workers):
    subject = make_subject("text", bert_checkpoint)
    subject.model.register_forward_pre_hook(fail)
    began = time.monotonic()
    found = check_two_processes(subject, tmp_path)
    assert (found.state, found.measured, found.repair) == (
        "fail",
        "A process failed: RuntimeError: no such luck",
        two_processes.START_REPAIR,
    )
    assert time.monotonic() - began < two_processes.TIMEOUT_SECONDS


def test_without_gloo_the_check_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_gloo_available", lambda: False)
    found = check_two_processes(None, tmp_path)
    assert (found.state, found.measured) == ("skipped", "This build of torch has no gloo.")

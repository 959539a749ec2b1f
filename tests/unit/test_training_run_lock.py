"""One writer at a time in a run directory."""

import json
import os
import platform
import subprocess
import sys
import time

import psutil
import pytest

from hf_finetune.errors import InputError
from hf_finetune.training import run_lock
from hf_finetune.training.run_lock import LOCK, RunLock


def write_owner(folder, **changes):
    own = {"host": platform.node(), "process": os.getpid(), "started": psutil.Process().create_time()}
    (folder / LOCK).write_text(json.dumps(own | changes), encoding="utf-8")


def ended_process():
    """Return the id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path):
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    first.acquire()
    started = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(psutil.Process().create_time()))
    with pytest.raises(InputError) as refused:
        second.acquire()
    assert str(refused.value) == (
        f"--output-dir must not be in use by another run. Got {tmp_path}, which process {os.getpid()} on "
        f"{platform.node()} has been writing to since {started}. Wait for that run or stop it, or choose "
        "another folder."
    )
    second.release()
    assert (tmp_path / LOCK).is_file(), "what another writer holds is not released"
    first.release()
    second.acquire()
    second.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"process": ended_process}, id="ended"),
        pytest.param({"started": 1.0}, id="process id used again"),
        pytest.param({"process": "none"}, id="no process id"),
    ],
)
def test_a_stale_lock_is_taken_over(tmp_path, changes):
    write_owner(tmp_path, **{key: value() if callable(value) else value for key, value in changes.items()})
    lock = RunLock(tmp_path)
    lock.acquire()
    assert json.loads((tmp_path / LOCK).read_text(encoding="utf-8"))["process"] == os.getpid()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_cut_off_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "WRITING_SECONDS", 0.0)
    (tmp_path / LOCK).write_text('{"host": "a', encoding="utf-8")
    RunLock(tmp_path).acquire()


def test_a_lock_of_another_host_is_respected_and_a_fix_is_shown(tmp_path):
    write_owner(tmp_path, host="elsewhere", process=7, started=0.0)
    with pytest.raises(InputError) as refused:
        RunLock(tmp_path).acquire()
    assert str(refused.value) == (
        f"--output-dir must not be in use by another run. Got {tmp_path}, which process 7 on elsewhere has been "
        "writing to since 1970-01-01 00:00 UTC. Wait for that run or stop it, or choose another folder. "
        "If that process "
        f"has ended, remove {tmp_path / LOCK}."
    )


def test_of_two_processes_that_see_a_stale_lock_only_one_continues(tmp_path):
    write_owner(tmp_path, process=ended_process())
    stale = json.loads((tmp_path / LOCK).read_text(encoding="utf-8"))
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    first.acquire()
    assert not second._remove(stale), "the lock is by now the first one's"
    with pytest.raises(InputError):
        second.acquire()

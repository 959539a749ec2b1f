"""Output of a stage without a progress bar, and how `plan` shortens long tables."""

import io
import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from hf_finetune.cli.display import LINE_SECONDS, RunDisplay, StageClock
from hf_finetune.cli.plan_table import _group_rows
from hf_finetune.errors import format_seconds
from hf_finetune.planning.groups import ParameterGroup


class Time:
    """A clock that a test advances."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self):
        return self.seconds


def test_a_line_has_mean_loss_rate_and_time_left():
    time = Time()
    clock = StageClock("head", steps=40, now=time)
    clock.losses += [3.0, 1.0]
    time.seconds += 50
    assert clock.line(1.0, 4.0, 10, 0.01) == (
        "Stage head: epoch 1 of 4, loss 2.0000, learning rate 0.01, about 2 min left."
    )
    clock.losses.append(0.5)
    time.seconds += 150
    assert clock.line(4.0, 4.0, 40, 0.0) == "Stage head: epoch 4 of 4, loss 0.5000, learning rate 0."


def test_the_loss_is_the_mean_over_the_epoch_whose_last_batch_may_be_small():
    clock = StageClock("all", steps=176, now=Time())
    clock.losses += [0.9, 0.7]
    assert clock.line(7.9587, 8.0, 175, None).startswith("Stage all: epoch 7.95 of 8, loss 0.8000")
    clock.losses.append(1.4)
    assert clock.line(8.0, 8.0, 176, None) == "Stage all: epoch 8 of 8, loss 1.0000."


def test_time_left_after_a_resume_counts_only_the_steps_since_then():
    time = Time()
    clock = StageClock("head", steps=40, done=30, now=time)
    time.seconds += 10
    assert clock.line(3.5, 4.0, 35, None) == "Stage head: epoch 3.5 of 4, about 10 s left."


def test_a_line_is_due_after_half_a_minute():
    time = Time()
    clock = StageClock("head", steps=40, now=time)
    time.seconds += LINE_SECONDS - 1
    assert not clock.is_due()
    time.seconds += 1
    assert clock.is_due()
    clock.line(0.5, 1.0, 20, None)
    assert not clock.is_due()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_durations(seconds, text):
    assert format_seconds(seconds) == text


def test_a_hub_that_does_not_answer_is_reported_once():
    code = """if True:
        from rich.console import Console
        from hf_finetune.cli.display import quiet_hub
        quiet_hub(Console(stderr=True))
        from huggingface_hub.utils import logging
        log = logging.get_logger("huggingface_hub.utils._http")
        for attempt in range(3):
            log.warning("'no route' thrown while requesting HEAD https://hub/config.json")
            log.warning(f"Retrying in {attempt}s [Retry {attempt}/5].")
        log.error("a failure")
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.splitlines() == [
        "The Hugging Face Hub does not respond; retrying for half a minute.",
        "a failure",
    ]


@pytest.fixture
def display(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_finetune.cli.display.quiet_libraries", lambda console: None)
    with RunDisplay(Console(file=io.StringIO()), tmp_path) as shown:
        yield shown


def steps(callback, evaluates, count=4, epochs=2):
    """Call a callback for some steps of a stage."""
    args = SimpleNamespace(output_dir="run/stages/01-head", eval_strategy="epoch" if evaluates else "no")
    state = SimpleNamespace(max_steps=count, global_step=0, epoch=0.0, num_train_epochs=epochs)
    callback.on_train_begin(args, state, None)
    for step in range(1, count + 1):
        state.global_step, state.epoch = step, step * epochs / count
        callback.on_step_end(args, state, None)
        callback.on_log(args, state, None, logs={"loss": float(step), "learning_rate": 0.1})
        if evaluates and state.epoch.is_integer():
            callback.on_evaluate(args, state, None, metrics={"eval_loss": 0.5, "eval_runtime": 1.0})
    callback.on_train_end(args, state, None)


def test_without_a_validation_split_there_is_a_line_for_each_epoch(display, caplog):
    with caplog.at_level(logging.INFO, "hf_finetune"):
        steps(display.callback, evaluates=False)
    first, last = [record.getMessage() for record in caplog.records]
    assert first.startswith("Stage head: epoch 1 of 2, loss 1.5000, learning rate 0.1")
    assert last == "Stage head: epoch 2 of 2, loss 3.5000, learning rate 0.1."


def test_with_a_validation_split_its_line_is_the_only_one_of_an_epoch(display, caplog):
    with caplog.at_level(logging.INFO, "hf_finetune"):
        steps(display.callback, evaluates=True)
    assert [record.getMessage() for record in caplog.records] == [
        "Epoch 1: validation loss 0.5000",
        "Epoch 2: validation loss 0.5000",
    ]


def test_a_long_epoch_has_a_line_every_half_minute(display, caplog, monkeypatch):
    monkeypatch.setattr("hf_finetune.cli.display.LINE_SECONDS", 0.0)
    with caplog.at_level(logging.INFO, "hf_finetune"):
        steps(display.callback, evaluates=True)
    lines = [record.getMessage().partition(",")[0] for record in caplog.records]
    assert lines == [
        "Stage head: epoch 0.5 of 2",
        "Epoch 1: validation loss 0.5000",
        "Stage head: epoch 1.5 of 2",
        "Epoch 2: validation loss 0.5000",
    ]


def group(number, decay):
    return ParameterGroup(
        layers=f"layer {number}", parameters=(), size=10, lr=10.0**-number, weight_decay=decay, schedule=None
    )


def test_a_long_table_of_rates_shows_its_ends():
    plan = SimpleNamespace(groups=[group(number, decay) for number in range(12) for decay in (0.01, 0.0)])
    rows = _group_rows(plan)
    assert [row[0] for row in rows] == [
        *("layer 0", "layer 1", "layer 2", "layer 3"),
        "... 4 more",
        *("layer 8", "layer 9", "layer 10", "layer 11"),
    ]
    assert rows[0] == ("layer 0", "20", "1", "0.01 / 0")
    assert rows[4] == ("... 4 more", "80", "0.0001 to 1e-07", "0.01 / 0")


def test_a_short_table_of_rates_is_complete():
    plan = SimpleNamespace(groups=[group(number, 0.0) for number in range(9)])
    assert len(_group_rows(plan)) == 9

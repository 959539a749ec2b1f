"""Output of a stage without a progress bar, and how `plan` shortens long tables."""

import io
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from hf_finetune.cli.display import LINE_SECONDS, RunDisplay, StageClock, default_run_folder
from hf_finetune.cli.plan_table import _group_rows, _layer_range
from hf_finetune.errors import InputError, format_seconds
from hf_finetune.planning.groups import ParameterGroup
from hf_finetune.runs.stages import _learning_rates


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
        "Stage head, epoch 1 of 4: mean loss of this epoch 2.0000, learning rate 0.01, about 2 min left."
    )
    clock.losses.append(0.5)
    time.seconds += 150
    assert clock.line(4.0, 4.0, 40, 0.0) == (
        "Stage head, epoch 4 of 4: mean loss of this epoch 0.5000, learning rate 0."
    )


def test_the_loss_is_the_mean_over_the_epoch_whose_last_batch_may_be_small():
    clock = StageClock("all", steps=176, now=Time())
    clock.losses += [0.9, 0.7]
    line = clock.line(7.9587, 8.0, 175, None)
    assert line.startswith("Stage all, epoch 7.95 of 8: mean loss of this epoch 0.8000")
    clock.losses.append(1.4)
    assert clock.line(8.0, 8.0, 176, None) == "Stage all, epoch 8 of 8: mean loss of this epoch 1.0000."


def test_time_left_after_a_resume_counts_only_the_steps_since_then():
    time = Time()
    clock = StageClock("head", steps=40, done=30, now=time)
    time.seconds += 10
    assert clock.line(3.5, 4.0, 35, None) == "Stage head, epoch 3.5 of 4: about 10 s left."


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
    if evaluates:
        callback.on_evaluate(args, state, None, metrics={"eval_loss": 0.75})
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
    assert first.startswith("Stage head, epoch 1 of 2: mean loss of this epoch 1.5000, learning rate 0.1")
    assert last == "Stage head, epoch 2 of 2: mean loss of this epoch 3.5000, learning rate 0.1."


def test_with_a_validation_split_there_is_a_line_before_training_and_one_for_each_epoch(display, caplog):
    with caplog.at_level(logging.INFO, "hf_finetune"):
        steps(display.callback, evaluates=True)
    assert [record.getMessage() for record in caplog.records] == [
        "Stage head, before training: validation loss 0.7500",
        "Stage head, epoch 1 of 2: validation loss 0.5000",
        "Stage head, epoch 2 of 2: validation loss 0.5000",
    ]


def test_a_long_epoch_has_a_line_every_half_minute(display, caplog, monkeypatch):
    monkeypatch.setattr("hf_finetune.cli.display.LINE_SECONDS", 0.0)
    with caplog.at_level(logging.INFO, "hf_finetune"):
        steps(display.callback, evaluates=True)
    lines = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert lines == [
        "Stage head, before training",
        "Stage head, epoch 0.5 of 2",
        "Stage head, epoch 1 of 2",
        "Stage head, epoch 1.5 of 2",
        "Stage head, epoch 2 of 2",
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


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["head"], "head"),
        (["head", "blocks.1", "blocks.0", "stem"], "stem..head"),
        (["blocks.0..head", "stem..head"], "stem..head"),
        (["head", "lora in blocks.0..blocks.1"], "blocks.0..head"),
    ],
)
def test_a_range_of_layers_begins_at_the_input_as_in_the_table(names, text):
    layout = SimpleNamespace(groups=("stem", "blocks.0", "blocks.1", "head"), adapter="lora")
    assert _layer_range(names, layout) == text


def test_a_run_is_resumed_in_the_newest_folder_of_its_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        default_run_folder("recipes/photos.yaml", resume=True)
    assert str(caught.value) == "--resume found no run of photos in runs/. Add --output-dir RUN."
    for name in ("photos-20260101-000000", "photos-20260102-000000", "others-20260103-000000"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert default_run_folder("recipes/photos.yaml", resume=True) == Path("runs/photos-20260102-000000")


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ({"head": 3e-3}, "learning rate 0.003 (head)"),
        ({"head": 1e-2, "stem..blocks.1": 1e-4}, "learning rates 0.01 (head), 0.0001 (stem..blocks.1)"),
        (
            {"head": 2e-3, "blocks.1": 1.6e-3, "blocks.0": 1.28e-3, "stem": 1.024e-3},
            "learning rates from 0.002 (head) to 0.001 (stem)",
        ),
    ],
)
def test_the_first_line_of_a_stage_has_its_learning_rates(rates, text):
    groups = [
        ParameterGroup(layers, lr, decay, ("a",), 1) for layers, lr in rates.items() for decay in (0.01, 0)
    ]
    assert _learning_rates(SimpleNamespace(groups=groups)) == text

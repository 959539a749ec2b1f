"""The execution mode is chosen by benchmarks, here with given durations that do not depend on the machine."""

import json
from contextlib import contextmanager
from dataclasses import replace
from datetime import date

import pytest
import torch
from speed_helpers import BF16, BF16_LAST, COMPILED, CPU, FP32, LAST, LOSS, MODES, text_batch
from torch import nn

from hf_finetune.performance.autotune import Choice, choose_mode, decide, measure
from hf_finetune.performance.autotune_history import Measurement
from hf_finetune.performance.execution_modes import ExecutionMode, StepOutputs, time_interleaved

pytestmark = pytest.mark.slow

TODAY = date.today().isoformat()


class MadeUpBench:
    """Benchmark with given durations and outputs. Times of compiled modes are those of later steps."""

    device = CPU

    def __init__(self, seconds, logits=None, compile_seconds=50.0, fails=()):
        self.seconds, self.logits, self.compile_seconds = seconds, logits or {}, compile_seconds
        self.fails, self.time, self.steps, self.compiled = fails, 0.0, [], 0

    def now(self):
        return self.time

    def clear(self):
        pass

    @contextmanager
    def compiling(self):
        self.compiled += 1
        yield

    def step(self, mode):
        self.time += self.seconds[mode.title]
        self.steps.append(mode.title)
        return self.seconds[mode.title]

    def compute_outputs(self, mode, *, training=True):
        if mode.title in self.fails:
            raise RuntimeError("no C++ compiler\nand more")
        spent = 2 * self.seconds[mode.title] + (self.compile_seconds if mode.compile else 0)
        self.time += spent
        value = torch.tensor([self.logits.get(mode.title, 1.0)])
        return StepOutputs(1.0, value, (value,), spent)


def chosen(bench, candidates=MODES, allowed=1000.0, compiles=False):
    found = measure(bench, candidates, allowed, 8)
    return decide(candidates, found, size=8, compiles=compiles)


def test_the_fastest_mode_is_chosen():
    bench = MadeUpBench({"fp32": 0.25, "fp32 channels_last": 0.14, "bf16": 0.11, "bf16 channels_last": 0.076})
    found = chosen(bench)
    assert (found.mode, found.seconds) == (BF16_LAST, bench.seconds)
    assert found.reason == f"bf16 channels_last: 76 ms per step, fp32 250 ms (measured in {bench.time:.1f} s)"


def test_modes_are_timed_in_turn_and_a_much_slower_one_once():
    bench = MadeUpBench({"fp32": 1.0, "fp32 channels_last": 0.4, "bf16": 0.7})
    found = time_interleaved(bench, [FP32, LAST, BF16], 3)
    assert bench.steps == ["fp32", "fp32 channels_last", "bf16"] + 2 * ["fp32 channels_last", "bf16"]
    assert found == {FP32: [1.0], LAST: 3 * [0.4], BF16: 3 * [0.7]}


def test_the_fastest_step_of_each_mode_counts_and_unsteady_times_are_reported():
    bench = MadeUpBench({"fp32": 1.0, "bf16": 0.8})
    times = iter([1.0, 1.0, 0.9, 0.7, 1.4, 0.7, 0.6, 0.8, 0.7, 0.9, 0.7])
    bench.step = lambda mode: next(times)
    found = measure(bench, [FP32, BF16], 1000, 8)
    assert found.seconds == {"fp32": 0.7, "bf16": 0.6}
    assert not found.steady
    reason = decide([FP32, BF16], found, size=8, compiles=False).reason
    assert reason.endswith("s; timings varied, so they are not saved)")


def test_rounds_end_with_the_time_but_there_are_two():
    bench = MadeUpBench({"fp32": 1.0, "bf16": 0.8})
    time_interleaved(bench, [FP32, BF16], 5, until=0.0)
    assert len(bench.steps) == 4
    time_interleaved(bench, [FP32, BF16], 5, until=bench.time + 6.0)
    assert len(bench.steps) == 4 + 6


def test_a_mode_with_a_much_slower_first_step_is_not_timed():
    bench = MadeUpBench({"fp32": 1.0, "fp32 channels_last": 0.5, "bf16": 1.1, "bf16 channels_last": 0.9})
    found = chosen(bench)
    assert found.mode == LAST
    assert (bench.steps.count("bf16"), bench.steps.count("bf16 channels_last")) == (0, 5)
    assert found.reason.endswith("; bf16: far slower)")


def test_noise_changes_nothing():
    bench = MadeUpBench({"fp32": 1.0, "bf16": 0.95})
    found = chosen(bench, [FP32, BF16])
    assert found.mode == FP32
    assert found.reason.startswith("fp32: 1.00 s per step, and no other mode is much faster (measured in")


@pytest.mark.parametrize("logits", [1.2, 0.0, -1.0, float("nan"), float("inf")])
def test_a_faster_mode_with_other_outputs_is_rejected(logits):
    bench = MadeUpBench({"fp32": 1.0, "bf16": 0.5}, {"bf16": logits})
    found = chosen(bench, [FP32, BF16])
    assert (found.mode, list(found.seconds)) == (FP32, ["fp32"])
    assert "; bf16: its logits differ by " in found.reason


def test_a_failing_mode_is_rejected():
    found = chosen(MadeUpBench({"fp32": 1.0, "bf16": 0.5}, fails=["bf16"]), [FP32, BF16])
    assert found.mode == FP32
    assert found.reason.endswith("; bf16: it cannot run here: no C++ compiler)")


@pytest.mark.parametrize("allowed", [10, 14, 20, 40, 200])
def test_measuring_keeps_to_its_time(allowed):
    bench = MadeUpBench(dict.fromkeys((mode.title for mode in MODES), 1.0))
    found = measure(bench, MODES, allowed, 8)
    assert bench.time <= allowed
    assert set(found.left_out.values()) <= {"no time was left for it"}
    assert len(found.seconds) + len(found.left_out) == len(MODES)


def test_compilation_is_tried_on_the_fastest_mode_if_the_run_is_long():
    times = {"fp32": 1.0, "fp32 channels_last": 0.5, "bf16": 0.9, "bf16 channels_last": 0.6}
    bench = MadeUpBench({**times, "fp32 channels_last compiled": 0.3})
    found = chosen(bench, MODES + COMPILED, allowed=200, compiles=True)
    assert (found.mode, bench.compiled) == (ExecutionMode("fp32", "channels_last", compile=True), 1)
    assert found.reason.startswith("fp32 channels_last compiled: 300 ms per step, fp32 1.00 s (measured in")


def test_compilation_is_not_tried_in_a_short_run():
    times = {"fp32": 1.0, "fp32 channels_last": 0.5, "bf16": 0.9, "bf16 channels_last": 0.6}
    bench = MadeUpBench(times)
    found = chosen(bench, MODES + COMPILED, allowed=70)
    assert (found.mode, bench.compiled) == (LAST, 0)
    assert "compiled" not in found.reason


def test_compilation_that_fails_is_left_out():
    times = {"fp32": 1.0, "fp32 compiled": 0.5}
    bench = MadeUpBench(times, fails=["fp32 compiled"])
    found = chosen(bench, [FP32, ExecutionMode(compile=True)], allowed=200, compiles=True)
    assert found.mode == FP32
    assert found.reason.endswith("; fp32 compiled: it cannot run here: no C++ compiler)")


def test_an_explicit_compilation_is_kept_and_modes_are_compared_without_it():
    times = {"fp32": 1.0, "fp32 channels_last": 0.5, "bf16": 0.9, "bf16 channels_last": 0.6}
    bench = MadeUpBench(times)
    found = chosen(bench, COMPILED)
    assert (found.mode, bench.compiled) == (ExecutionMode("fp32", "channels_last", compile=True), 0)


def test_a_reference_set_by_hand_is_compared_with_fp32():
    bench = MadeUpBench({"fp32": 1.0, "bf16": 0.6, "bf16 channels_last": 0.4}, {"bf16 channels_last": 2.0})
    found = chosen(bench, [BF16, BF16_LAST])
    assert found.mode == BF16


class Cancelling(nn.Module):
    """Subtracts nearly equal large numbers, which bf16 cannot represent; or does so in the gradient only."""

    def __init__(self, big=1e4):
        super().__init__()
        self.first, self.last, self.big = nn.Linear(12, 16), nn.Linear(16, 3), big

    def forward(self, pixel_values):
        hidden = self.first(pixel_values) + self.big - self.big
        return {"logits": self.last(hidden)}


def no_objection(original, *arguments):
    """No objection."""
    return ""


@pytest.mark.defends(
    "hf_finetune.performance.autotune:_objection",
    why="An execution mode with different results is rejected",
    by=no_objection,
    ids=["10000.0-True"],
)
@pytest.mark.parametrize(("big", "left_out"), [(0.0, False), (1e4, True)])
def test_a_model_that_bf16_breaks_does_not_run_in_bf16(big, left_out):
    torch.manual_seed(0)
    model = Cancelling(big)
    batch = {"pixel_values": torch.randn(8, 12), "labels": torch.arange(8) % 3}
    found = choose_mode(
        model, batch, LOSS, ["first.weight"], [FP32, BF16], steps=10_000, clock=MadeUpClock(model)
    )
    assert ("bf16: its logits differ by " in found.reason) == left_out
    assert ("bf16" in found.seconds) != left_out
    assert not left_out or found.mode == FP32


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        ctx.half = value.dtype != torch.float32
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 0 if ctx.half else gradient


class WrongGradient(Cancelling):
    def forward(self, pixel_values):
        return {"logits": self.last(WrongBackward.apply(self.first(pixel_values)))}


def test_a_gradient_that_bf16_breaks_is_detected():
    model = WrongGradient()
    batch = {"pixel_values": torch.randn(8, 12), "labels": torch.arange(8) % 3}
    found = choose_mode(
        model, batch, LOSS, ["first.weight"], [FP32, BF16], steps=10_000, clock=MadeUpClock(model)
    )
    assert found.mode == FP32
    assert "; bf16: its gradient differs by 100%" in found.reason


class MadeUpClock:
    """A clock that only forward passes advance: much in fp32, little under autocast."""

    def __init__(self, model, fp32=1.0, bf16=0.5):
        self.time, self.passes = 0.0, []
        self.fp32, self.bf16 = fp32, bf16
        model.register_forward_pre_hook(self.move, with_kwargs=True)

    def move(self, model, args, kwargs):
        self.time += self.bf16 if torch.is_autocast_enabled("cpu") else self.fp32
        self.passes.append(next(len(value) for value in kwargs.values()))

    def __call__(self):
        return self.time


@pytest.fixture
def subject(tiny_model):
    """Return the inputs of a choice: a model that is twice as fast in bf16, by its own clock."""
    model = tiny_model("bert")
    return {
        "model": model,
        "batch": text_batch(32),
        "loss": LOSS,
        "trainable": ["classifier.weight"],
        "candidates": [FP32, BF16],
        "clock": MadeUpClock(model),
    }


def test_the_choice_is_by_the_clock(subject):
    found = choose_mode(**subject, steps=1000)
    assert (found.mode, found.seconds) == (BF16, {"fp32": 1.0, "bf16": 0.5})
    assert set(subject["clock"].passes) == {32}
    slow = {**subject, "clock": MadeUpClock(subject["model"], 0.5, 10.0)}
    assert choose_mode(**slow, steps=1000, forward_only=True).mode == FP32


@pytest.mark.parametrize(("steps", "examples"), [(200, 32), (199, 16), (100, 16), (99, 8), (50, 8), (49, 0)])
def test_a_short_run_is_measured_with_fewer_examples_or_not_at_all(subject, steps, examples):
    found = choose_mode(**subject, steps=steps)
    assert set(subject["clock"].passes) == ({examples} if examples else set())
    if not examples:
        assert found == Choice(FP32, "fp32: the stage is too short to benchmark other modes")
    elif examples < 32:
        assert found.reason.startswith(
            f"bf16: 500 ms per step of {examples} examples, fp32 1.00 s (measured in"
        )


def test_explicit_settings_are_not_benchmarked(subject):
    found = choose_mode(**{**subject, "candidates": [BF16]}, steps=1000)
    assert found == Choice(BF16, "bf16: the only candidate")
    assert subject["clock"].passes == []


def test_benchmark_results_are_saved(subject, tmp_path):
    notes = tmp_path / "cache" / "speed.json"
    first = choose_mode(**subject, steps=1000, notes_file=notes)
    subject["clock"].passes.clear()
    second = choose_mode(**subject, steps=10, notes_file=notes)
    assert subject["clock"].passes == []
    assert second == replace(
        first,
        reason=f"bf16: 500 ms per step, fp32 1.00 s (measured on {TODAY})",
        remembered=True,
    )
    assert [path.name for path in sorted(notes.parent.iterdir())] in (
        ["speed.json"],
        ["speed.json", "speed.json.lock"],
    )


def test_benchmark_results_of_a_busy_machine_are_not_saved(subject, tmp_path):
    clock = subject["clock"]
    busy = {**subject, "clock": lambda: clock() ** 2}  # slower and slower
    found = choose_mode(**busy, steps=1000, notes_file=tmp_path / "speed.json")
    assert "timings varied, so they are not saved" in found.reason
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"trainable": ["classifier.weight", "classifier.bias"]},
        {"forward_only": True},
        {"candidates": [FP32, BF16, LAST]},
        {"batch": text_batch(16)},
    ],
)
def test_a_change_that_affects_the_speed_repeats_the_benchmark(subject, tmp_path, change):
    notes = tmp_path / "speed.json"
    choose_mode(**subject, steps=1000, notes_file=notes)
    assert not choose_mode(**{**subject, **change}, steps=1000, notes_file=notes).remembered
    assert len(json.loads(notes.read_text())) == 2
    assert choose_mode(**subject, steps=1000, notes_file=notes).remembered


def test_names_of_labels_do_not_matter(subject, tmp_path):
    notes = tmp_path / "speed.json"
    choose_mode(**subject, steps=1000, notes_file=notes)
    subject["model"].config.id2label = {0: "x", 1: "y", 2: "z"}
    assert choose_mode(**subject, steps=1000, notes_file=notes).remembered


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"KEY": 1}', '{"KEY": {"seconds": {}}}', "\0\xff"])
def test_a_damaged_file_is_written_again(subject, tmp_path, damage):
    notes = tmp_path / "speed.json"
    choose_mode(**subject, steps=1000, notes_file=notes)
    key = next(iter(json.loads(notes.read_text())))
    notes.write_bytes(damage.replace("KEY", key).encode("latin-1"))
    assert not choose_mode(**subject, steps=1000, notes_file=notes).remembered
    assert choose_mode(**subject, steps=1000, notes_file=notes).remembered


def test_a_folder_that_cannot_be_written_to_does_not_stop_the_run(subject, tmp_path):
    (tmp_path / "file").write_text("")
    found = choose_mode(**subject, steps=1000, notes_file=tmp_path / "file" / "speed.json")
    assert found.mode == BF16


def test_a_longer_run_benchmarks_modes_that_a_shorter_one_skipped(subject, tmp_path):
    notes = tmp_path / "speed.json"
    three = {**subject, "candidates": [FP32, ExecutionMode("fp32", "channels_last"), BF16]}
    short = choose_mode(**three, steps=55, notes_file=notes)
    assert short.mode == FP32 and "bf16: no time was left for it" in short.reason
    assert choose_mode(**three, steps=56, notes_file=notes).remembered
    long = choose_mode(**three, steps=1000, notes_file=notes)
    assert (long.mode, long.remembered) == (BF16, False)


def test_a_compiled_mode_is_saved_for_long_runs_only():
    seconds = {"fp32": 1.0, "fp32 channels_last": 0.6, "fp32 channels_last compiled": 0.4}
    found = Measurement(seconds, {}, 8, 70.0, True, TODAY)
    assert decide(MODES + COMPILED, found, size=8, compiles=True).mode == COMPILED[1]
    assert decide(MODES + COMPILED, found, size=8, compiles=False).mode == LAST

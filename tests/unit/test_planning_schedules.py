"""Factors of the schedules against transformers and torch, or by hand, step by step; and their plots."""

import pytest
import torch
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR, StepLR
from transformers import get_scheduler

from hf_finetune.planning.schedules import draw_schedule
from hf_finetune.recipe.schedule import ScheduleSpec


def shape(name, **fields):
    return ScheduleSpec(name=name, **fields)


def rates_of(make, steps):
    """Return the rates of a library's scheduler with peak rate 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


def factors(schedule, steps, warmup=0):
    return [schedule.rate_factor(step, steps, warmup) for step in range(steps)]


@pytest.mark.parametrize("warmup", [0, 1, 4, 8])
@pytest.mark.parametrize(
    ("schedule", "name", "options"),
    [
        (shape("linear"), "linear", {}),
        (shape("cosine"), "cosine", {}),
        (shape("constant"), "constant_with_warmup", {}),
        (shape("polynomial", power=3.0), "polynomial", {"lr_end": 0.0, "power": 3.0}),
        (shape("cosine_with_restarts", cycles=3), "cosine_with_restarts", {"num_cycles": 3}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_factors_are_those_of_transformers(schedule, name, options, warmup):
    def make(optimizer):
        return get_scheduler(name, optimizer, warmup, 9, scheduler_specific_kwargs=options)

    assert factors(schedule, 9, warmup) == rates_of(make, 9)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("kind", ["cosine", "linear", "1-sqrt"])
@pytest.mark.parametrize(("decay", "decay_steps"), [(4, 4), (0.25, 5)])
def test_warmup_stable_decay_is_that_of_transformers(kind, decay, decay_steps, warmup):
    options = {"num_decay_steps": decay_steps, "decay_type": kind}

    def make(optimizer):
        return get_scheduler("warmup_stable_decay", optimizer, warmup, 20, scheduler_specific_kwargs=options)

    schedule = shape("warmup_stable_decay", decay=decay, decay_type=kind)
    found = factors(schedule, 20, warmup)
    assert found == rates_of(make, 20)
    assert found[warmup : 20 - decay_steps + 1] == [1.0] * (20 - decay_steps + 1 - warmup)


def test_a_decay_longer_than_the_steps_after_the_warmup_begins_after_it():
    found = factors(shape("warmup_stable_decay", decay=50, decay_type="linear"), 10, 2)
    assert found == [0.0, 0.5, *((8 - step) / 8 for step in range(8))]


@pytest.mark.parametrize("end", [0.5, 0.01])
def test_exponential_is_that_of_torch(end):
    found = factors(shape("exponential", end=end), 20)
    assert found == pytest.approx(rates_of(lambda each: ExponentialLR(each, end ** (1 / 20)), 20), rel=1e-12)
    assert factors(shape("exponential", end=end), 25, 5)[:6] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert factors(shape("exponential", end=end), 25, 5)[5:] == found
    assert shape("exponential", end=end).rate_factor(20, 20) == end


@pytest.mark.parametrize(("every", "size"), [(6, 6), (0.34, 7)])
def test_step_is_that_of_torch(every, size):
    found = factors(shape("step", every=every, factor=0.5), 20)
    assert found == pytest.approx(rates_of(lambda each: StepLR(each, size, 0.5), 20), rel=1e-12)


def test_step_by_hand():
    assert factors(shape("step"), 9) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01])
    assert factors(shape("step", every=2, factor=0.5), 8, 2) == [0.0, 0.5, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("steps", [2, 3, 7, 20, 101])
@pytest.mark.parametrize("start", [0.25, 0.3, 0.6])
def test_one_cycle_is_that_of_torch(start, steps):
    """torch 2.15 would divide by 0 for 0.25 x 4 steps, which is no case here."""

    def make(optimizer):
        return OneCycleLR(
            optimizer, 1.0, total_steps=steps, pct_start=start, div_factor=10.0, final_div_factor=100.0
        )

    schedule = shape("one_cycle", pct_start=start, div_factor=10.0, final_div_factor=100.0)
    # torch raises an error after the last step
    assert factors(schedule, steps)[:-1] == pytest.approx(rates_of(make, steps - 1), rel=1e-12)
    assert schedule.rate_factor(steps - 1, steps) == pytest.approx(1e-3)
    assert schedule.rate_factor(steps + 5, steps) == pytest.approx(1e-3)


def test_one_cycle_whose_first_step_is_the_peak():
    found = factors(shape("one_cycle", pct_start=0.25), 4)
    assert found == pytest.approx([1.0, 0.750001, 0.250003, 4e-6], rel=1e-4)


def test_slanted_triangular_by_hand():
    """20 steps, cut at 20 x 0.1 = 2: (1 + p x 31) / 32, with p = 0, 1/2, then 1, 17/18, ... 1/18."""
    found = factors(shape("slanted_triangular"), 20)
    shares = [0, 1 / 2, *((18 - step) / 18 for step in range(18))]
    assert found == pytest.approx([(1 + share * 31) / 32 for share in shares], rel=1e-12)
    assert (found[0], found[2]) == (1 / 32, 1.0)


@pytest.mark.parametrize("steps", [10, 20, 100])
def test_slanted_triangular_is_the_papers_formula_if_the_cut_is_an_integer(steps):
    def paper(t, cut_frac=0.1, ratio=32):
        cut = int(steps * cut_frac)
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        return (1 + p * (ratio - 1)) / ratio

    found = factors(shape("slanted_triangular"), steps)
    assert found == pytest.approx([paper(step) for step in range(steps)], rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 9, 19, 29])
def test_slanted_triangular_never_falls_below_its_least(steps):
    """The paper's own formula would give -0.4 at step 18 of 19."""
    found = factors(shape("slanted_triangular"), steps)
    assert min(found) >= 1 / 32 and max(found) == 1.0
    assert shape("slanted_triangular").rate_factor(steps, steps) == 1 / 32


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_the_polynomial_is_exact(power):
    found = [shape("polynomial", power=power).rate_factor(step, 7) for step in range(8)]
    assert found == [(1 - step / 7) ** power for step in range(8)]


@pytest.mark.parametrize(
    "name", ["linear", "cosine", "polynomial", "cosine_with_restarts", "warmup_stable_decay"]
)
def test_after_the_last_step_the_rate_is_constant(name):
    assert [shape(name).rate_factor(step, 5, 2) for step in (5, 6, 100)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("schedule", "steps", "warmup", "drawn"),
    [
        (shape("constant"), 4, 0, "####"),
        (shape("constant"), 8, 4, "_:=+####"),
        (shape("linear"), 8, 0, "#*+==-:."),
        (shape("step", every=3, factor=0.5), 9, 0, "###===:::"),
        (shape("linear"), 2400, 0, "##***++++===---::::...__"),
    ],
)
def test_a_schedule_is_plotted(schedule, steps, warmup, drawn):
    found = draw_schedule(schedule, steps, warmup)
    assert len(found) == min(steps, 24) == len(drawn)
    assert found == drawn


@pytest.mark.parametrize("name", ["one_cycle", "slanted_triangular", "cosine_with_restarts", "exponential"])
@pytest.mark.parametrize("steps", [1, 5, 24, 25, 10_000])
def test_every_schedule_can_be_plotted_in_plain_characters(name, steps):
    found = draw_schedule(shape(name), steps)
    assert found.isascii() and len(found) == min(steps, 24)

"""The schedules' factors against those of transformers, step by step."""

import pytest
import torch
from transformers import get_scheduler

from hf_finetune.plan.schedules import rate_factor


@pytest.mark.parametrize("warmup", [0, 1, 4, 8])
@pytest.mark.parametrize("name", ["linear", "cosine", "constant", "polynomial"])
def test_the_factors_are_those_of_transformers(name, warmup):
    steps = 9
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = get_scheduler(
        "constant_with_warmup" if name == "constant" else name,
        optimizer,
        num_warmup_steps=warmup,
        num_training_steps=steps,
        scheduler_specific_kwargs={"lr_end": 0.0, "power": 3.0} if name == "polynomial" else None,
    )
    for step in range(steps):
        assert rate_factor(step, name, steps, warmup, 3.0) == scheduler.get_last_lr()[0]
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_the_polynomial_is_exact(power):
    factors = [rate_factor(step, "polynomial", 7, power=power) for step in range(8)]
    assert factors == [(1 - step / 7) ** power for step in range(8)]


@pytest.mark.parametrize("name", ["linear", "cosine", "polynomial"])
def test_behind_the_last_step_nothing_moves(name):
    assert [rate_factor(step, name, 5, 2, 0.5) for step in (5, 6, 100)] == [0.0, 0.0, 0.0]


def test_another_name_is_an_error():
    with pytest.raises(ValueError) as caught:
        rate_factor(3, "cosin", 5)
    assert str(caught.value) == "name must be linear, cosine, constant or polynomial. Got 'cosin'."

"""Comparison of a run on two processes with one on a single process, up to rounding."""

from functools import cache

import pytest
import torch
from launching import spread
from safetensors.torch import load_file
from test_processes import log_of, values

from hf_finetune.runs.run import run

__all__ = ["assert_logged_alike", "assert_trained_alike", "cached_runs_on_two", "run_alone", "run_on_two"]


def run_alone(folders, recipe):
    """Run a recipe in this process, and return its run directory."""
    folder = folders.mktemp("alone") / "run"
    run(recipe, folder)
    return folder


def run_on_two(folders, recipe):
    """Run a recipe on two processes, and return the result of ``spread``."""
    done = spread(folders.mktemp("two"), recipe, 2)
    assert done.code == 0, done.err[-4000:]
    return done


def cached_runs_on_two(folders, recipe):
    """Return a function that runs the recipe of a name on two processes, once per name.

    Args:
        folders: Factory of temporary folders.
        recipe: Function that returns the recipe of a name.
    """
    return cache(lambda name: run_on_two(folders, recipe(name)))


def assert_trained_alike(alone, two, stage, *, rtol, atol):
    """Check that the weights of a stage are equal on both processes, and close to those of one process.

    Sums in another order differ by rounding, which grows from step to step.

    Args:
        alone: Run directory of one process.
        two: Result of ``launch``.
        stage: The stage's folder.
        rtol: As for ``torch.testing.assert_close``.
        atol: As for ``torch.testing.assert_close``.
    """
    first, second = (two.weights(stage, rank) for rank in range(2))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    one, other = (
        load_file(folder / "stages" / stage / "model.safetensors") for folder in (alone, two.folder / "run")
    )
    for name, weight in one.items():
        torch.testing.assert_close(
            other[name], weight, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


def assert_logged_alike(alone, two, stage, steps, **further):
    """Compare loss, gradient, and further numbers of each step of a stage, each with its relative tolerance."""
    one, other = (log_of(folder, stage) for folder in (alone, two.folder / "run"))
    assert len(values(one, "loss")) == steps
    for name, tolerance in {"loss": 1e-3, "grad_norm": 5e-3, **further}.items():
        assert values(other, name) == pytest.approx(values(one, name), rel=tolerance)

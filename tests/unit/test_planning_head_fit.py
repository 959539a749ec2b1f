"""Whether a stage with ``fit: auto`` fits its head in closed form."""

import pytest

from hf_finetune.planning.head_fit import resolve_head_fits
from hf_finetune.planning.layers import Layout, Parameter
from hf_finetune.recipe.stage_fields import StageSpec

ONE = Layout(
    (Parameter("layer.weight", 8, 0), Parameter("fc.weight", 6, 1), Parameter("fc.bias", 3, 1)),
    ("layer", "head"),
)
TWO = Layout((*ONE.parameters, Parameter("fc.norm.weight", 3, 1)), ONE.groups)


def stage(**fields):
    return StageSpec.model_validate({"name": "head", "train": "head", "fit": "auto", "epochs": 3, **fields})


@pytest.mark.parametrize(
    ("target", "fit"),
    [
        ("single_label", "logistic_regression"),
        ("multi_label", "logistic_regression"),
        ("regression", "ridge"),
    ],
)
def test_one_linear_layer_is_fitted_at_once_and_the_settings_of_steps_go(target, fit):
    given = stage(lr=1e-3, early_stopping=2, schedule="cosine", batch_size=8, balance="class_weights")
    (settled,), (note,) = resolve_head_fits([given], ONE, target, 100)
    kept = {"name": "head", "train": "head", "batch_size": 8, "balance": "class_weights"}
    assert settled == StageSpec.model_validate({**kept, "fit": fit})
    assert note == f"stages[0].fit: auto is {fit}, because the head is one linear layer."


@pytest.mark.parametrize(
    ("layout", "fields", "examples", "alone", "reason"),
    [
        (TWO, {}, 100, True, "the head is more than one linear layer (fc.weight, fc.bias, fc.norm.weight)"),
        (ONE, {}, 100, False, "solvers fit only the head of a single task"),
        (ONE, {"balance": "sampler"}, 100, True, "balance sampler needs optimizer steps"),
        (ONE, {"teacher": "runs/large"}, 100, True, "the stage has a teacher"),
        (ONE, {}, 2 * 10**9, True, "2,000,000,000 examples and 6 weights take too long to fit"),
    ],
)
def test_any_other_head_is_trained_in_steps(layout, fields, examples, alone, reason):
    (settled,), (note,) = resolve_head_fits([stage(**fields)], layout, "single_label", examples, alone)
    assert settled == stage(
        **fields,
    ).model_copy(update={"fit": "gradient"})
    assert note == f"stages[0].fit: auto is gradient, because {reason}."


def test_other_stages_stay_as_they_are():
    others = [stage(fit="gradient"), StageSpec(train="head", fit="ridge"), stage(train="all", fit="gradient")]
    assert resolve_head_fits(others, TWO, "regression") == (tuple(others), ())

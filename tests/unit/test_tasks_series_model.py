"""Forecasting models: their quantiles, inputs, config and new heads."""

import numpy as np
import pytest
import torch
import transformers
from scipy import stats

from hf_finetune.errors import InputError
from hf_finetune.models.build import build_model, read_config
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.targets.forecast import LEVELS
from hf_finetune.tasks import TASKS
from hf_finetune.tasks.series.model import adapt_to_quantiles, forecasting_class
from hf_finetune.tasks.series.new_model import patch_length_of, save_new_model
from hf_finetune.tasks.series.processor import SeriesProcessor, configure_series, load_processor, model_inputs
from hf_finetune.tasks.series.usage import usage_code

TASK = TASKS["time-series-forecasting"]
PASTS = [[float(value) for value in range(10)], [5.0, 3.0, 8.0]]
SMALL = {
    "context_length": 8,
    "prediction_length": 3,
    "patch_length": 4,
    "d_model": 16,
    "num_input_channels": 1,
}


def data_of(**fields):
    content = {"task": TASK.name, "model": {"new": {}}, "data": {"path": "p", "horizon": 3, **fields}}
    return parse_recipe({**content, "stages": [{"name": "all", "train": "all", "epochs": 1}]}).data


def patch_tst(**fields):
    fields = {
        "patch_stride": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_labels": 3,
        **SMALL,
        **fields,
    }
    return transformers.PatchTSTForPrediction(transformers.PatchTSTConfig(**fields)).eval()


def mixer(**fields):
    fields = {"patch_stride": 4, "num_layers": 1, "num_labels": 3, **SMALL, **fields}
    return transformers.PatchTSMixerForPrediction(transformers.PatchTSMixerConfig(**fields)).eval()


def times_fm(version=""):
    fields = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    fields |= {"patch_length": 4, "context_length": 8, "horizon_length": 8, "num_labels": 3, "head_dim": 8}
    if version:
        fields |= {"num_key_value_heads": 2, "output_quantile_len": 16}
    config = getattr(transformers, f"TimesFm{version}Config")(**fields)
    return getattr(transformers, f"TimesFm{version}ModelForPrediction")(config).eval()


def inputs(context=8):
    return model_inputs(SeriesProcessor(context))(PASTS)


def quantiles(model):
    with torch.no_grad():
        logits = adapt_to_quantiles(model)(**inputs()).logits
    return logits.reshape(len(PASTS), 3, len(LEVELS)).double().numpy()


# --- Inputs ------------------------------------------------------------------------------------------------------


def test_the_last_values_are_read_and_short_pasts_are_padded():
    batch = inputs()
    assert batch["past_values"][0, :, 0].tolist() == PASTS[0][-8:]
    padding = [pytest.approx(sum(PASTS[1]) / 3)] * 5
    assert batch["past_values"][1, :, 0].tolist() == [*padding, *PASTS[1]]
    assert batch["past_observed_mask"][1, :, 0].tolist() == [0] * 5 + [1] * 3


def test_covariates_are_shifted_by_the_horizon():
    prepare = model_inputs(SeriesProcessor(4, channels=2, horizon=2))
    known = [[float(step)] for step in range(7)]
    example = {"values": [10.0, 11.0, 12.0, 13.0, 14.0], "covariates": known}
    batch = prepare([example, [1.0, 2.0]])
    assert batch["past_values"][0].T.tolist() == [[11, 12, 13, 14], [3, 4, 5, 6]]
    assert batch["past_observed_mask"][1].T.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("covariates", "message"),
    [
        ([[1.0, 2.0]] * 7, "The example must have 1 covariates, as many as the model reads. Got 2."),
        ([[1.0]] * 6, "The example must have covariates for 2 steps after the last value. Got 1 steps."),
    ],
)
def test_missing_covariates_are_an_error(covariates, message):
    prepare = model_inputs(SeriesProcessor(4, channels=2, horizon=2))
    with pytest.raises(InputError) as caught:
        prepare([{"values": [1.0] * 5, "covariates": covariates}])
    assert str(caught.value) == message


# --- Quantiles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [patch_tst, mixer])
@pytest.mark.parametrize("kind", ["mse", "normal", "student_t"])
def test_quantiles_are_those_of_the_plain_model(build, kind):
    torch.manual_seed(0)
    model = build(
        loss="mse" if kind == "mse" else "nll", distribution_output="normal" if kind == "mse" else kind
    )
    batch = inputs()
    names = {"past_observed_mask": "past_observed_mask" if build is patch_tst else "observed_mask"}
    with torch.no_grad():
        plain = model(**{names.get(name, name): value for name, value in batch.items()})
    expected = plain.prediction_outputs
    if kind == "mse":
        values = np.repeat(expected.double().numpy(), len(LEVELS), axis=-1)
    else:
        *freedom, location, spread = (each[..., 0, None].double().numpy() for each in expected)
        law = stats.t(freedom[0], location, spread) if freedom else stats.norm(location, spread)
        scaled = law.ppf(LEVELS)
        values = plain.loc.double().numpy() + plain.scale.double().numpy() * scaled
    found = quantiles(model)
    np.testing.assert_allclose(found, values, rtol=5e-3 if kind == "student_t" else 1e-4, atol=1e-3)


@pytest.mark.parametrize("version", ["", "2_5"])
def test_a_model_with_own_quantiles_keeps_them(version):
    torch.manual_seed(0)
    model = times_fm(version)
    with torch.no_grad():
        plain = model(past_values=[torch.tensor(past[-8:]) for past in PASTS])
    expected = plain.full_predictions[:, :3, 1:].double().numpy()
    np.testing.assert_allclose(quantiles(model), expected, rtol=1e-4, atol=1e-4)


def test_padding_is_not_read():
    torch.manual_seed(0)
    model = adapt_to_quantiles(patch_tst(norm_type="layernorm"))
    batch = inputs()
    with torch.no_grad():
        both, alone = (
            model(**batch).logits,
            model(**{name: value[1:] for name, value in batch.items()}).logits,
        )
    torch.testing.assert_close(both[1:], alone)


def test_other_distributions_and_architectures_are_refused():
    with pytest.raises(InputError, match="must be a model with a normal or student_t distribution"):
        adapt_to_quantiles(patch_tst(loss="nll", distribution_output="negative_binomial"))
    with pytest.raises(InputError, match="must be one of PatchTSTForPrediction"):
        adapt_to_quantiles(transformers.BertForMaskedLM(transformers.BertConfig(num_hidden_layers=1)))


# --- Checkpoints -------------------------------------------------------------------------------------------------


def built(path, steps, data):
    names = tuple(f"step {number}" for number in range(1, steps + 1))
    config = read_config(str(path), names, "forecast")
    configure_series(load_processor(str(path)), config, data)
    return build_model(str(path), config, task=TASK)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    save_new_model(path, layers=1, hidden=16, context=8, horizon=3, patch_length=4, seed=0)
    return path


def test_a_head_of_the_same_horizon_is_kept(folder):
    model = built(folder, 3, data_of())
    assert not model.has_new_head
    saved = transformers.PatchTSTForPrediction.from_pretrained(folder).state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in model.model.state_dict().items())


def test_another_horizon_gets_a_new_head(folder):
    model = built(folder, 5, data_of(horizon=5))
    assert model.has_new_head and model.notes == ("A new head is initialized for 5 steps.",)
    assert model.model(**inputs()).logits.shape == (2, 5 * len(LEVELS))


def test_a_single_step_has_a_forecast_without_uncertainty(tmp_path):
    save_new_model(tmp_path, layers=1, hidden=16, context=8, horizon=1, patch_length=4, seed=0)
    model = adapt_to_quantiles(forecasting_class().from_pretrained(tmp_path))
    logits = model(**inputs()).logits
    assert logits.shape == (2, len(LEVELS)) and (logits == logits[:, :1]).all()


def test_small_values_have_the_same_forecast_in_their_unit(folder):
    model = adapt_to_quantiles(forecasting_class().from_pretrained(folder).eval())
    batch = inputs()
    small = {**batch, "past_values": batch["past_values"] * 1e-4}
    with torch.no_grad():
        torch.testing.assert_close(model(**small).logits, model(**batch).logits * 1e-4, rtol=2e-3, atol=1e-6)


def test_a_new_model_reads_several_values(tmp_path):
    with pytest.raises(InputError, match=r"data.context_length must be at least 2 for a new model. Got 1."):
        save_new_model(tmp_path, layers=1, hidden=16, context=1, horizon=3, patch_length=1, seed=0)


def test_a_checkpoint_of_transformers_needs_no_preprocessor(tmp_path):
    patch_tst().save_pretrained(tmp_path)
    processor = load_processor(str(tmp_path))
    assert (processor.context_length, processor.channels) == (8, 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"context_length": 16},
            "data.context_length must be 8, the context length of the checkpoint. Got 16.",
        ),
        ({"covariates": ["a"]}, "data.covariates must be 0 columns, as many as the checkpoint reads. Got 1."),
    ],
)
def test_fields_must_fit_the_checkpoint(folder, fields, message):
    with pytest.raises(InputError) as caught:
        built(folder, 3, data_of(**fields))
    assert str(caught.value) == message


def test_a_horizon_longer_than_that_of_the_checkpoint_is_refused(tmp_path):
    times_fm().save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"data.horizon must be at most 8, the horizon of the checkpoint. Got 9."
    ):
        built(tmp_path, 9, data_of(horizon=9))


@pytest.mark.parametrize(
    ("context", "season", "length"),
    [(48, 12, 12), (48, 1, 16), (24, 52, 12), (14, 7, 7), (7, 7, 1), (1, 1, 1)],
)
def test_a_patch_is_a_season_if_that_divides_the_context(context, season, length):
    assert patch_length_of(context, season) == length


@pytest.mark.parametrize("kind", ["mse", "normal", "student_t", "mixer", "times_fm"])
def test_the_code_of_the_card_runs_without_the_package(tmp_path, kind):
    torch.manual_seed(0)
    normal = {"loss": "nll", "distribution_output": "normal"}
    models = {
        "mse": lambda: patch_tst(loss="mse"),
        "normal": lambda: patch_tst(**normal),
        "student_t": lambda: patch_tst(loss="nll", distribution_output="student_t"),
        "mixer": lambda: mixer(**normal),
        "times_fm": times_fm,
    }
    model = models[kind]()
    model.save_pretrained(tmp_path)
    values = {}
    exec(usage_code(str(tmp_path), model.config.to_dict(), str(PASTS[1])), values)
    middle = quantiles(model)[1, :, len(LEVELS) // 2]
    np.testing.assert_allclose(values["forecast"].flatten().numpy(), middle, rtol=1e-4, atol=1e-4)

"""The pooling of a checkpoint: as declared by it, or by its architecture."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from hf_finetune.models.head_spec import FIELD, head_problem, set_head, with_head
from hf_finetune.models.pooling import (
    POOLED,
    DefaultPooling,
    declared_pooling,
    default_pooling,
    fill_pooling,
    uses_default_pooling,
)
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.recipe.model import ModelSpec

OWN = "the input of the architecture's own head"
MEAN = DefaultPooling("mean", "default of MiniLM")


def declare(folder, content):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, None),
        ({"embedding_dimension": 384, "pooling_mode": "cls", "include_prompt": True}, "cls"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, "mean_sqrt_len"),
        ({"pooling_mode": ["mean", "max"]}, None),
        ({"pooling_mode": "lasttoken"}, None),
        ([], None),
        (None, None),
    ],
)
def test_pooling_declared_by_checkpoints(tmp_path, content, expected):
    if content is not None:
        declare(tmp_path, content)
    assert declared_pooling(str(tmp_path)) == expected


@pytest.mark.parametrize(
    ("model_type", "width", "declared", "expected"),
    [
        ("bert", 384, None, MEAN),
        ("bert", 32, None, DefaultPooling("own", OWN)),
        ("bert", 384, "cls", DefaultPooling("cls", "from the checkpoint's 1_Pooling/config.json")),
        ("bert", 384, "max", DefaultPooling("own", OWN)),
        ("squeezebert", 768, "mean", DefaultPooling("own", OWN)),  # it cannot have a head of this package
        ("bert", 768, None, DefaultPooling("own", OWN)),
        ("bert", 768, "mean", DefaultPooling("mean", "from the checkpoint's 1_Pooling/config.json")),
        ("gpt2", None, None, DefaultPooling("own", OWN)),
    ],
)
def test_a_declared_pooling_overrides_the_architecture(tmp_path, model_type, width, declared, expected):
    if declared:
        mode = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}[declared]
        declare(tmp_path, {f"pooling_mode_{mode}": True})
    config = AutoConfig.for_model(model_type, **({"hidden_size": width} if width else {}))
    assert default_pooling(config, str(tmp_path)) == expected


@pytest.mark.parametrize("model_type", ["vit", "beit", "resnet"])
def test_image_models_keep_the_pooling_of_their_head(model_type):
    assert default_pooling(AutoConfig.for_model(model_type), "nobody/has-this").name == "own"


def saved(folder, **settings):
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **settings}), encoding="utf-8")
    config = AutoConfig.for_model("bert", hidden_size=384)
    return default_pooling(config, str(folder))


def test_a_checkpoint_with_a_classifier_keeps_its_pooling(tmp_path):
    declare(tmp_path, {"pooling_mode_mean_tokens": True})
    assert saved(tmp_path, architectures=["BertModel"]).name == "mean"
    assert saved(tmp_path, architectures=["BertForSequenceClassification"]).name == "own"
    of_this_package = {
        "architectures": ["BertForSequenceClassification"],
        FIELD: {"type": "linear", "pool": "cls"},
    }
    assert saved(tmp_path, **of_this_package) == DefaultPooling(
        "cls", "pooling of the checkpoint's own head", is_saved=True
    )
    assert saved(tmp_path, **{FIELD: {"type": "mlp"}}).name == "own"


@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize("model_type", POOLED)
def test_a_head_of_this_package_fits_every_architecture_that_gets_one_by_default(model_type, pool):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    if model_type == "distilbert":
        sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
    config = AutoConfig.for_model(model_type, vocab_size=20, num_labels=2, pad_token_id=0, **sizes)
    config.__dict__.update(bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2)
    set_head(config, {"type": "linear", "pool": pool})
    model = with_head(config, AutoModelForSequenceClassification._model_mapping[type(config)])._from_config(
        config
    )
    tokens = torch.tensor([[1, 5, 6, 2]])
    assert head_problem(model, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}) == ""


def recipe(**model):
    content = {"task": "text-classification", "data": "reviews.csv", "model": {"path": "x", **model}}
    return parse_recipe({**content, "stages": [{"train": "all", "epochs": 1, "lr": 1e-4}]})


def test_a_saved_head_stays_whatever_the_rates_unless_an_adapter_is_saved_by_itself():
    kept = DefaultPooling("mean", "pooling of the checkpoint's own head", is_saved=True)
    assert uses_default_pooling(recipe(), kept) and not uses_default_pooling(recipe(), MEAN)
    assert uses_default_pooling(recipe(adapter="lora"), kept)
    assert not uses_default_pooling(recipe(adapter={"type": "lora", "save": "both"}), kept)
    assert not uses_default_pooling(recipe(head={"pool": "own"}), kept)
    spec, notes = fill_pooling(head(None), kept, uses_default=True, is_chosen=False)
    assert spec == head("mean")
    assert notes == (
        "model.head.pool is mean: pooling of the checkpoint's own head. Plain transformers needs "
        "trust_remote_code=True for this head.",
    )


def head(pool):
    return ModelSpec(path="x", head={"pool": pool})


NEEDS = "Plain transformers needs trust_remote_code=True for this head; own keeps the architecture's pooling."


@pytest.mark.parametrize("pool", ["auto", None])
def test_a_default_pooling_is_filled_in_and_reported(pool):
    spec, notes = fill_pooling(head(pool), MEAN, uses_default=True, is_chosen=False)
    assert spec == head("mean")
    assert notes == (f"model.head.pool is mean: default of MiniLM. {NEEDS}",)


def test_the_architectures_own_pooling_is_reported_on_request():
    own = DefaultPooling("own", OWN)
    spec, notes = fill_pooling(head("auto"), own, uses_default=True, is_chosen=False)
    assert spec == head("own") and notes == (f"model.head.pool is own: {OWN}.",)
    assert fill_pooling(head(None), own, uses_default=True, is_chosen=False) == (head(None), ())


def test_with_explicit_rates_the_head_stays_and_a_pooling_is_suggested():
    assert fill_pooling(head(None), MEAN, uses_default=False, is_chosen=False) == (
        head(None),
        (
            "model.head.pool is not set, so the architecture's pooling (own) is used; the mean over tokens suits the "
            "checkpoint better (default of MiniLM). Set it to auto for that pooling (plain transformers then needs "
            "trust_remote_code=True to load the model), or to own to silence this note.",
        ),
    )


@pytest.mark.parametrize(
    ("pool", "suits", "uses_default", "is_chosen"),
    [
        ("own", MEAN, False, False),
        ("cls", MEAN, False, False),
        (None, MEAN, False, True),
        (None, DefaultPooling("own", OWN), False, False),
    ],
)
def test_a_given_chosen_or_suitable_pooling_causes_no_note(pool, suits, uses_default, is_chosen):
    assert fill_pooling(head(pool), suits, uses_default=uses_default, is_chosen=is_chosen) == (head(pool), ())

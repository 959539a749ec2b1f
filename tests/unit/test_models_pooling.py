"""The pooling that suits a checkpoint: declared by it, or of its architecture."""

import json

import pytest
from transformers import AutoConfig

from hf_finetune.models.pooling import DefaultPooling, declared_pooling, default_pooling, fill_pooling
from hf_finetune.recipe.model import ModelSpec

OWN = "what the architecture's own head reads"
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
        ([], None),
        (None, None),
    ],
)
def test_what_a_checkpoint_declares(tmp_path, content, expected):
    if content is not None:
        declare(tmp_path, content)
    assert declared_pooling(str(tmp_path)) == expected


@pytest.mark.parametrize(
    ("model_type", "width", "declared", "expected"),
    [
        ("bert", 384, None, MEAN),
        ("bert", 32, None, DefaultPooling("own", OWN)),
        ("bert", 384, "cls", DefaultPooling("cls", "the checkpoint's 1_Pooling/config.json has it")),
        ("bert", 384, "max", MEAN),
        ("bert", 768, None, DefaultPooling("own", OWN)),
        ("bert", 768, "mean", DefaultPooling("mean", "the checkpoint's 1_Pooling/config.json has it")),
        ("gpt2", None, None, DefaultPooling("own", OWN)),
    ],
)
def test_what_a_checkpoint_declares_goes_before_its_architecture(
    tmp_path, model_type, width, declared, expected
):
    if declared:
        mode = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}[declared]
        declare(tmp_path, {f"pooling_mode_{mode}": True})
    config = AutoConfig.for_model(model_type, **({"hidden_size": width} if width else {}))
    assert default_pooling(config, "text", str(tmp_path)) == expected


@pytest.mark.parametrize("model_type", ["vit", "beit", "resnet"])
def test_image_models_keep_what_their_own_head_reads(model_type):
    assert default_pooling(AutoConfig.for_model(model_type), "image", "nobody/has-this").name == "own"


def head(pool):
    return ModelSpec(path="x", head={"pool": pool})


NEEDS = "Plain transformers needs trust_remote_code=True for this head; own keeps the architecture's."


@pytest.mark.parametrize(("pool", "is_left"), [("auto", False), (None, True)])
def test_a_pooling_that_is_left_to_the_checkpoint_is_filled_in_and_told(pool, is_left):
    spec, notes = fill_pooling(head(pool), MEAN, is_left=is_left, is_chosen=False)
    assert spec == head("mean")
    assert notes == (f"model.head.pool is mean: default of MiniLM. {NEEDS}",)


def test_the_architectures_own_pooling_is_told_where_it_was_asked_for():
    own = DefaultPooling("own", OWN)
    spec, notes = fill_pooling(head("auto"), own, is_left=False, is_chosen=False)
    assert spec == head("own") and notes == (f"model.head.pool is own: {OWN}.",)
    assert fill_pooling(head(None), own, is_left=True, is_chosen=False) == (head(None), ())


def test_where_rates_are_given_the_head_stays_and_is_told_what_would_suit_it():
    assert fill_pooling(head(None), MEAN, is_left=False, is_chosen=False) == (
        head(None),
        (
            "model.head.pool is own, the architecture's. The mean over tokens would suit the checkpoint better "
            "(default of MiniLM): auto takes it, and plain transformers then needs trust_remote_code=True to load the "
            "model. own, written out, ends this note.",
        ),
    )


@pytest.mark.parametrize(
    ("pool", "suits", "is_left", "is_chosen"),
    [
        ("own", MEAN, False, False),
        ("cls", MEAN, False, False),
        (None, MEAN, False, True),
        (None, DefaultPooling("own", OWN), False, False),
    ],
)
def test_nothing_is_said_of_a_pooling_that_is_given_or_chosen_or_suits(pool, suits, is_left, is_chosen):
    assert fill_pooling(head(pool), suits, is_left=is_left, is_chosen=is_chosen) == (head(pool), ())

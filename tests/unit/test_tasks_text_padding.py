"""The answer to a text does not depend on its batch: padding is on the right, or the user is warned."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from evaluation_helpers import save_bert
from transformers import AutoTokenizer

from hf_finetune.evaluation.classifier import iter_logits, load_classifier
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.forward_check import padding_notes
from hf_finetune.runs.run import run
from hf_finetune.tasks import TASKS
from hf_finetune.tasks.text.tokenization import pad_right

EXAMPLES = ["good film", "the film is very very very very bad", "bad"]
CHANGED = (
    "padding_side of the tokenizer was changed from left to right, also in the saved model: the model has absolute "
    "position embeddings, so with left padding predictions would depend on the batch."
)


def pad_left(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).padding_side == "left"


def logits(folder, batch_size):
    return np.stack(list(iter_logits(load_classifier(folder, batch_size=batch_size), EXAMPLES)))


def test_a_model_with_absolute_positions_is_padded_at_the_right(tmp_path):
    save_bert(tmp_path)
    pad_left(tmp_path)
    assert logits(tmp_path, 3) == pytest.approx(logits(tmp_path, 1), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_saved_tokenizers_pad_on_the_right(name, tmp_path, caplog, tiny_model, tiny_tokenizer):
    caplog.set_level("INFO", "hf_finetune")
    tiny_model(name, num_labels=2).save_pretrained(tmp_path / "checkpoint")
    tiny_tokenizer(tmp_path / "checkpoint")
    pad_left(tmp_path / "checkpoint")
    lines = [f"{'very ' * index}{label},{label}" for label in ("bad", "good") for index in range(8)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *lines, ""]), encoding="utf-8")
    recipe = {
        "task": "text-classification",
        "model": str(tmp_path / "checkpoint"),
        "data": str(tmp_path / "reviews.csv"),
        "stages": [{"name": "all", "train": "all", "epochs": 1, "lr": 1e-2}],
        "evaluation": {"linear_probe": None},
    }
    run(parse_recipe(recipe), tmp_path / "run")
    assert CHANGED in caplog.messages
    assert not any("depend on padding" in message for message in caplog.messages)
    saved = tmp_path / "run" / "model"
    assert AutoTokenizer.from_pretrained(saved).padding_side == "right"
    plain = transformers.pipeline("text-classification", str(saved))
    together, alone = plain(EXAMPLES, batch_size=3, top_k=None), plain(EXAMPLES, batch_size=1, top_k=None)
    assert [one[0]["score"] for one in together] == pytest.approx(
        [one[0]["score"] for one in alone], abs=1e-6
    )


def test_a_side_that_the_files_do_not_state_is_saved_too(tmp_path, tiny_tokenizer):
    tiny_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.init_kwargs.pop("padding_side", None)
    tokenizer.padding_side = "left"
    assert pad_right(tokenizer, 16)
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).init_kwargs["padding_side"] == "right"


def test_a_model_without_absolute_positions_keeps_its_side(tmp_path, tiny_tokenizer):
    tiny_tokenizer(tmp_path)
    pad_left(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert not pad_right(tokenizer, None)
    assert tokenizer.padding_side == "left"


@pytest.fixture
def padded(tmp_path, tiny_tokenizer):
    """Return a function that makes a run of texts that are padded on a side."""
    tiny_tokenizer(tmp_path)

    def make(side):
        processor = AutoTokenizer.from_pretrained(tmp_path, padding_side=side)
        return SimpleNamespace(task=TASKS["text-classification"], processor=processor)

    return make


XLNET = {"d_model": 16, "n_layer": 2, "n_head": 2, "vocab_size": 15, "d_inner": 16, "pad_token_id": 0}


def xlnet():
    torch.manual_seed(0)
    return transformers.XLNetForSequenceClassification(transformers.XLNetConfig(**XLNET))


def fnet():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16, "vocab_size": 15}
    return transformers.FNetForSequenceClassification(transformers.FNetConfig(**sizes))


@pytest.mark.parametrize(
    "name", ["bert", "roberta", "electra", "deberta-v2", "distilbert", "modernbert", "gpt2"]
)
def test_models_that_mask_padding_are_not_reported(name, tiny_model, padded):
    assert padding_notes(tiny_model(name), padded("right")) == []


def test_the_last_token_of_all_is_exact_where_padding_is_at_the_left(padded):
    assert padding_notes(xlnet(), padded("left")) == []


def test_positions_that_padding_shifts_are_reported(tiny_model, padded):
    assert len(padding_notes(tiny_model("bert"), padded("left"))) == 1


@pytest.mark.parametrize("make", [xlnet, fnet])
def test_a_model_whose_answer_depends_on_padding_is_reported(make, padded):
    (note,) = padding_notes(make(), padded("right"))
    assert note.startswith(
        "The predictions of this model depend on padding: the logits of a short text change by "
    )
    assert note.endswith(
        " % (of the largest logit) when it is batched with a longer text. Set evaluation.batch_size: 1, and "
        "run evaluate and predict "
        "with --batch-size 1, or use a checkpoint that masks padding."
    )


def test_images_are_not_padded():
    assert padding_notes(None, SimpleNamespace(task=TASKS["image-classification"])) == []

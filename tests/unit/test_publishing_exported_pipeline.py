"""Inputs of an exported model equal those of the pipeline of transformers."""

import json

import numpy as np
import pytest
import torch
from evaluation_helpers import save_bert, save_timm, save_vit
from PIL import Image
from transformers import AutoTokenizer

from hf_finetune.evaluation.classifier import iter_logits, load_classifier
from hf_finetune.evaluation.predict import predict
from hf_finetune.publishing.exported_pipeline import (
    METADATA,
    example_inputs,
    export_metadata,
    load_exported_classifier,
)
from hf_finetune.targets.decision_rule import DecisionRule

IMAGES = [Image.fromarray(np.full((40, 30 + 9 * each, 3), 80 * each, np.uint8)) for each in range(4)]
TEXTS = [
    {"text": "a very boring film"},
    {"text": "good", "text_pair": "bad plot"},
    {"text": "not bad " * 100},
    "great film",
]


def through_inputs(folder, batch_size):
    """Call the pipeline's own model with our inputs."""
    classifier = load_classifier(folder)
    model = classifier.pipe.model

    def forward(batch):
        with torch.no_grad():
            return model(**batch).logits.numpy()

    return load_exported_classifier(folder, export_metadata(classifier), forward, batch_size)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(("save", "examples"), [(save_vit, IMAGES), (save_timm, IMAGES), (save_bert, TEXTS)])
def test_logits_are_the_pipelines(tmp_path, save, examples, batch_size):
    folder = save(tmp_path / "model")
    expected = np.stack(list(iter_logits(load_classifier(folder, batch_size=2), examples)))
    found = np.stack(list(iter_logits(through_inputs(folder, batch_size), examples)))
    assert np.ptp(expected, axis=0).max() > 1e-3
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_predict_accepts_an_exported_classifier(tmp_path):
    folder = save_bert(tmp_path / "model")
    texts = ["good film", "very bad plot"]
    expected = list(predict(folder, texts))
    assert len({prediction.score for prediction in expected}) == 2
    for one, other in zip(predict(through_inputs(folder, 2), texts), expected, strict=True):
        assert (one.id, one.label) == (other.id, other.label)
        assert one.scores == pytest.approx(other.scores, abs=1e-6)


def test_postprocessing_settings_are_exported_too(tmp_path):
    folder = save_bert(tmp_path / "model", ("dull", "long", "süß"), "multi_label")
    config = json.loads((folder / "config.json").read_text())
    config |= {"logit_temperature": 2.0, "decision_thresholds": [0.1, 0.5, 0.9]}
    (folder / "config.json").write_text(json.dumps(config))
    metadata = export_metadata(load_classifier(folder))
    assert set(metadata) == set(METADATA)
    assert all(isinstance(value, str) for value in metadata.values())
    # The config next to an exported model is not read: the file itself contains it.
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    found = load_exported_classifier(folder, metadata, lambda batch: np.array([[2.0, 0.0, -2.0]]), 8)
    assert (found.task, found.target) == ("text-classification", "multi_label")
    assert found.label_names == ("dull", "long", "süß")
    assert (found.temperature, found.rule) == (2.0, DecisionRule((0.1, 0.5, 0.9)))
    (logits,) = iter_logits(found, ["good"])
    assert logits.tolist() == [1.0, 0.0, -1.0]


def test_preprocessing_is_written_down(tmp_path):
    text = json.loads(export_metadata(load_classifier(save_bert(tmp_path / "bert")))["preprocessing"])
    assert (text["max_length"], text["truncation_side"], text["pad_token_id"]) == (16, "right", 0)
    image = json.loads(export_metadata(load_classifier(save_vit(tmp_path / "vit")))["preprocessing"])
    assert image["size"] == {"height": 32, "width": 32}
    assert len(image["image_mean"]) == 3


def test_a_tokenizer_that_cannot_pad_takes_one_text_at_a_time(tmp_path):
    folder = save_bert(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    classifier = through_inputs(folder, 8)
    assert classifier.batch_size == 1
    assert len(list(iter_logits(classifier, ["good film", "bad"]))) == 2


def test_a_model_is_traced_with_two_examples(tmp_path):
    for save, names in (
        (save_vit, ["pixel_values"]),
        (save_bert, ["input_ids", "attention_mask", "token_type_ids"]),
    ):
        classifier = load_classifier(save(tmp_path / save.__name__))
        batch = example_inputs(classifier)
        assert list(batch) == names
        assert all(len(value) == 2 for value in batch.values())

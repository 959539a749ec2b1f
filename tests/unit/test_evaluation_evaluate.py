"""Evaluation of a finished model."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from evaluation_helpers import save_bert, save_timm, save_vit
from PIL import Image as PilImage
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, AutoTokenizer

from hf_finetune.errors import InputError
from hf_finetune.evaluation.classifier import load_classifier
from hf_finetune.evaluation.evaluate import evaluate_model
from hf_finetune.evaluation.metrics import all_metrics, compute_metrics, label_array, probabilities
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.tasks.image.transforms import processor_transform

NAMES = {
    "single_label": ("soup", "cake", "tea"),
    "multi_label": ("soup", "cake", "tea"),
    "regression": ("label",),
}
LABELS = {
    "single_label": [0, 1, 2, 0, 1],
    "multi_label": [[0], [0, 2], [], [1], [2]],
    "regression": [0.5, 1.0, -2.0, 3.0, 0.0],
}
TEXTS = ["good film", "very bad plot " * 20, "the boring films", "not great", "great"]


def label_type(target, names):
    classes = ClassLabel(names=list(names))
    return {"single_label": classes, "multi_label": List(classes), "regression": Value("float32")}[target]


def dataset_of(name, values, feature, target, names=None, **more):
    features = {"id": Value("string"), name: feature, **dict.fromkeys(more, Value("string"))}
    columns = {
        "id": [f"test:{row}" for row in range(len(values))],
        name: values,
        **more,
        "label": LABELS[target],
    }
    return Dataset.from_dict(
        columns, Features(features | {"label": label_type(target, names or NAMES[target])})
    )


def images(tmp_path):
    """Return one image of each mode that must be converted to RGB."""
    generator = np.random.default_rng(0)
    paths = []
    for index, mode in enumerate(("RGB", "RGBA", "L", "P", "CMYK")):
        pixels = generator.integers(0, 255, (48, 40, 4), dtype=np.uint8)
        picture = PilImage.fromarray(pixels, "RGBA").convert(mode)
        paths.append(str(tmp_path / f"{index}.{'jpg' if mode == 'CMYK' else 'png'}"))
        picture.save(paths[-1])
    return paths


def expected_of(logits, target):
    scores = probabilities(logits.numpy(), target)
    labels = label_array(LABELS[target], target, len(NAMES[target]))
    names = all_metrics(target, len(NAMES[target]))
    return scores, compute_metrics(names, ScoredExamples(labels, scores, target))


@pytest.mark.parametrize("target", NAMES)
def test_images_get_the_metrics_of_the_training_side(tmp_path, target):
    folder = save_vit(tmp_path / "model", NAMES[target], target)
    dataset = dataset_of("image", images(tmp_path), Image(), target)
    classifier = load_classifier(folder, batch_size=2)
    transform = processor_transform(classifier.pipe.image_processor)
    with torch.no_grad():
        model = AutoModelForImageClassification.from_pretrained(folder).eval()
        logits = model(torch.stack([transform(image) for image in dataset["image"]])).logits
    scores, metrics = expected_of(logits, target)
    seen = []
    found = evaluate_model(classifier, dataset, progress=seen.append)
    assert found.scores == pytest.approx(scores, abs=1e-6)
    assert found.metrics == pytest.approx(metrics, abs=1e-5, nan_ok=True)
    assert list(found.metrics) == list(all_metrics(target, len(NAMES[target])))
    assert found.labels.tolist() == label_array(LABELS[target], target, len(NAMES[target])).tolist()
    assert found.ids == tuple(f"test:{row}" for row in range(5))
    assert (found.target, found.label_names) == (target, NAMES[target])
    assert seen == [1, 2, 3, 4, 5]
    assert found.seconds > 0


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("paired", [False, True])
def test_texts_and_pairs_get_the_metrics_of_the_training_side(tmp_path, target, paired):
    folder = save_bert(tmp_path / "model", NAMES[target], target)
    pairs = {"text_pair": TEXTS[::-1]} if paired else {}
    dataset = dataset_of("text", TEXTS, Value("string"), target, **pairs)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(TEXTS, *pairs.values(), truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = AutoModelForSequenceClassification.from_pretrained(folder).eval()(**batch).logits
    scores, metrics = expected_of(logits, target)
    found = evaluate_model(load_classifier(folder, batch_size=3), dataset)
    assert found.scores == pytest.approx(scores, abs=1e-5)
    assert found.metrics == pytest.approx(metrics, abs=1e-4, nan_ok=True)


def test_a_timm_model_is_evaluated(tmp_path):
    dataset = dataset_of("image", images(tmp_path), Image(), "single_label")
    found = evaluate_model(load_classifier(save_timm(tmp_path / "model")), dataset)
    assert np.ptp(found.scores, axis=0).max() > 1e-3
    examples = ScoredExamples(found.labels, found.scores, "single_label")
    assert found.metrics == compute_metrics(all_metrics("single_label", 3), examples)


def test_a_format_of_the_dataset_does_no_harm(tmp_path):
    dataset = dataset_of("text", TEXTS, Value("string"), "single_label")
    classifier = load_classifier(save_bert(tmp_path / "model", NAMES["single_label"]))
    plain = evaluate_model(classifier, dataset)
    assert evaluate_model(classifier, dataset.with_format("torch")).metrics == plain.metrics


def test_other_classes_than_the_models_are_reported(tmp_path):
    classifier = load_classifier(save_bert(tmp_path / "model", NAMES["single_label"]))
    dataset = dataset_of("text", TEXTS, Value("string"), "single_label", names=("cake", "soup", "tea"))
    with pytest.raises(InputError) as caught:
        evaluate_model(classifier, dataset)
    assert str(caught.value) == (
        "The data's classes must be those of the model: 'soup', 'cake', 'tea'. Got 'cake', 'soup', 'tea'."
    )
    with pytest.raises(InputError) as caught:
        evaluate_model(classifier, dataset.select([]))
    assert str(caught.value) == "The data contains no examples."


def test_a_diverged_model_is_reported(tmp_path):
    classifier = load_classifier(save_bert(tmp_path / "model", NAMES["single_label"]))
    torch.nn.init.constant_(classifier.pipe.model.classifier.bias, torch.nan)
    with pytest.raises(InputError, match="nan or infinity for 5 of 5 examples"):
        evaluate_model(classifier, dataset_of("text", TEXTS, Value("string"), "single_label"))

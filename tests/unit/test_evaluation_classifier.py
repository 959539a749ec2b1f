"""Locating a finished model and loading it as a pipeline."""

import json

import numpy as np
import pytest
import torch
from evaluation_helpers import save_bert, save_timm, save_vit
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
)

from hf_finetune.errors import InputError
from hf_finetune.evaluation.classifier import iter_logits, load_classifier, resolve_model_dir
from hf_finetune.evaluation.metrics import probabilities
from hf_finetune.tasks import TASKS


def error_of(function, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


def change_config(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_a_run_a_folder_and_a_hub_id_are_found(tmp_path):
    save_bert(tmp_path / "run" / "model")
    assert resolve_model_dir(tmp_path / "run") == tmp_path / "run" / "model"
    assert resolve_model_dir(str(tmp_path / "run" / "model")) == tmp_path / "run" / "model"
    assert resolve_model_dir("google/vit-base-patch16-224") == "google/vit-base-patch16-224"


def test_folders_without_a_model_are_reported(tmp_path):
    rule = "must be a checkpoint folder, a run or a Hub id"
    assert error_of(resolve_model_dir, tmp_path) == (
        f"{tmp_path} {rule}. Got a folder with neither config.json nor model/config.json."
    )
    file = tmp_path / "model.safetensors"
    file.touch()
    assert error_of(resolve_model_dir, file) == f"{file} {rule}. Got a file. Use the folder that contains it."
    missing = tmp_path / "missing"
    assert error_of(resolve_model_dir, missing) == f"{missing} {rule}. Got a path that does not exist."


def test_an_unfinished_run_is_reported_with_the_command_to_resume(tmp_path):
    (tmp_path / "recipe.yaml").touch()
    assert error_of(resolve_model_dir, tmp_path) == (
        f"{tmp_path} is a run that is not finished. Got no {tmp_path / 'model'}. Finish the run: "
        f"hf-finetune run {tmp_path / 'recipe.yaml'} --output-dir {tmp_path} --resume."
    )


@pytest.mark.parametrize(
    ("save", "task", "target", "names"),
    [
        (save_vit, "image-classification", "single_label", ("soup", "cake", "tea")),
        (save_vit, "image-classification", "multi_label", ("soup", "cake")),
        (save_vit, "image-classification", "regression", ("label",)),
        (save_bert, "text-classification", "single_label", ("bad", "good")),
        (save_bert, "text-classification", "multi_label", ("dull", "long", "loud")),
        (save_bert, "text-classification", "regression", ("label",)),
    ],
)
def test_task_target_and_names_come_from_the_config(tmp_path, save, task, target, names):
    classifier = load_classifier(save(tmp_path / "model", names, target))
    assert (classifier.task, classifier.target, classifier.label_names) == (task, target, names)


def test_without_a_problem_type_one_output_is_a_regression(tmp_path):
    folder = save_bert(tmp_path / "one", ("label",), "regression")
    change_config(folder, problem_type=None)
    assert load_classifier(folder).target == "regression"
    folder = save_bert(tmp_path / "two")
    change_config(folder, problem_type=None)
    assert load_classifier(folder).target == "single_label"


def test_logits_of_images_are_the_models(tmp_path):
    images = [Image.fromarray(np.full((40, 30, 3), value, np.uint8)) for value in (0, 90, 200)]
    for save in (save_vit, save_timm):
        folder = save(tmp_path / save.__name__)
        classifier = load_classifier(folder, batch_size=2)
        model = AutoModelForImageClassification.from_pretrained(folder).eval()
        with torch.no_grad():
            pixels = classifier.pipe.image_processor(images, return_tensors="pt")["pixel_values"]
            expected = model(pixels).logits.numpy()
        assert np.ptp(expected, axis=0).max() > 1e-3
        assert np.stack(list(iter_logits(classifier, images))) == pytest.approx(expected, abs=1e-5)


def test_logits_of_texts_and_pairs_are_the_models(tmp_path):
    folder = save_bert(tmp_path / "model")
    classifier = load_classifier(folder, batch_size=2)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for example in ({"text": "a very boring film"}, {"text": "good", "text_pair": "bad plot"}):
        with torch.no_grad():
            expected = model(**tokenizer(**example, return_tensors="pt")).logits[0].numpy()
        others = [{"text": "great"}, {"text": "not bad " * 100, "text_pair": "bad"}]
        found = list(iter_logits(classifier, [example, *others]))
        assert len(found) == 3
        assert found[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("target", ["single_label", "multi_label"])
def test_logits_are_bit_for_bit_those_of_the_plain_pipeline(tmp_path, target):
    """In the same batches: texts of similar length are predicted together."""
    folder = save_bert(tmp_path / "model", target=target)
    texts = ["a very boring film", "good", "not bad " * 20, "great plot", "the"]
    plain = pipeline("text-classification", str(folder), device="cpu")
    options = {"function_to_apply": "none", "top_k": None, "batch_size": 2, "truncation": True}
    by_length = sorted(texts, key=len, reverse=True)
    expected = {
        text: {each["label"]: each["score"] for each in found}
        for text, found in zip(by_length, plain((text for text in by_length), **options), strict=True)
    }
    classifier = load_classifier(folder, batch_size=2)
    found = [
        dict(zip(classifier.label_names, row.tolist(), strict=True)) for row in iter_logits(classifier, texts)
    ]
    assert found == [expected[text] for text in texts]
    assert len({str(row) for row in found}) == len(texts)


def test_probabilities_are_the_scores_of_the_plain_pipeline(tmp_path):
    folder = save_vit(tmp_path / "model")
    images = [Image.new("RGB", (40, 30), color) for color in ("red", "green", "blue")]
    expected = pipeline("image-classification", str(folder), device="cpu")(images, top_k=3)
    classifier = load_classifier(folder)
    scores = probabilities(np.stack(list(iter_logits(classifier, images))), "single_label")
    for row, said in zip(scores, expected, strict=True):
        by_class = {each["label"]: each["score"] for each in said}
        assert dict(zip(classifier.label_names, row.tolist(), strict=True)) == pytest.approx(
            by_class, abs=1e-6
        )


def test_a_tokenizer_that_cannot_pad_takes_one_text_at_a_time(tmp_path):
    folder = save_bert(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    classifier = load_classifier(folder, batch_size=8)
    assert classifier.batch_size == 1
    assert len(list(iter_logits(classifier, [{"text": "good film"}, {"text": "bad"}]))) == 2


def test_classes_of_one_name_are_distinguished(tmp_path):
    folder = save_vit(tmp_path / "model", ("crane", "soup", "tea"))
    change_config(folder, id2label={"0": "crane", "1": "soup", "2": "crane"})
    classifier = load_classifier(folder)
    assert classifier.label_names == ("crane (0)", "soup", "crane (2)")
    (logits,) = iter_logits(classifier, [Image.new("RGB", (32, 32), "red")])
    assert len(set(logits.tolist())) == 3


def test_a_model_for_another_task_is_reported(tmp_path):
    folder = save_vit(tmp_path / "model")
    assert error_of(load_classifier, folder, task="text-classification") == (
        f"{folder} must be a model for text-classification. Got a model for image-classification."
    )
    change_config(folder, architectures=["ViTModel"])
    suffixes = dict.fromkeys(suffix for task in TASKS.values() for suffix in task.suffixes)
    assert error_of(load_classifier, folder) == (
        f"{folder} must be a model whose class name ends in {' or '.join(suffixes)}. Got ViTModel."
    )


def test_a_damaged_checkpoint_is_reported(tmp_path):
    folder = save_vit(tmp_path / "model")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    rule = f"{folder} must be a checkpoint that can be loaded."
    assert error_of(load_classifier, folder) == (
        f"{folder} contains a damaged or truncated weight file. Download or copy it again."
    )
    weights.write_bytes(whole)
    (folder / "preprocessor_config.json").unlink()
    assert error_of(load_classifier, folder).startswith(f"{rule} Got OSError: Can't load image processor for")
    (folder / "config.json").write_text("{")
    assert error_of(load_classifier, folder).startswith(
        f"{rule} Got OSError: It looks like the config file at"
    )


def test_missing_weights_are_reported_and_never_initialized(tmp_path):
    folder = save_vit(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert error_of(load_classifier, folder) == (f"{folder} lacks weights of its model: classifier.bias.")

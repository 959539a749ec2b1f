"""Exported graphs give the logits of the pipeline, for any number of examples and texts of any length."""

import json
import shutil
from functools import cache, partial

import numpy as np
import pytest
import torch
from evaluation_helpers import save_bert, save_timm, save_vit
from PIL import Image

from hf_finetune.evaluation.classifier import iter_logits, load_classifier
from hf_finetune.publishing.exported_pipeline import (
    METADATA,
    example_inputs,
    export_metadata,
    model_inputs,
)
from hf_finetune.publishing.graph_export import (
    ONNX_FILE,
    PROGRAM_FILE,
    GraphError,
    load_onnx_classifier,
    load_program_classifier,
    write_metadata,
    write_onnx,
    write_program,
)
from hf_finetune.publishing.quantize import quantize_int8

pytestmark = pytest.mark.slow
IMAGES = [Image.fromarray(np.full((40, 30 + 9 * each, 3), 60 * each, np.uint8)) for each in range(5)]
TEXTS = ["good", "a very boring film", "not bad " * 100, "great plot", "the film"]


def save_reviews(folder):
    """Save a text classifier with one label that is not ASCII."""
    return save_bert(folder, ("dull", "süß"))


CASES = [(save_vit, IMAGES), (save_timm, IMAGES), (save_reviews, TEXTS)]


def needs_onnx():
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module)


def written(folder, kind):
    """Write a graph into the model's own folder, which contains the processor that is needed too."""
    classifier = load_classifier(folder)
    modality, model = classifier.modality, classifier.pipe.model.eval()
    batch = example_inputs(classifier)
    if kind == "program":
        write_program(model, modality, batch, folder / PROGRAM_FILE, export_metadata(classifier))
    else:
        write_onnx(model, modality, batch, folder / ONNX_FILE)
        write_metadata(folder / ONNX_FILE, export_metadata(classifier))
    return folder


@pytest.fixture(scope="module")
def copy_onnx(tmp_path_factory):
    """Return a function that copies a model with its ONNX file, which is slow to write and written once for each."""
    needs_onnx()

    @cache
    def original(save):
        return written(save(tmp_path_factory.mktemp("onnx") / "model"), "onnx")

    return lambda save, folder: shutil.copytree(original(save), folder)


@pytest.mark.parametrize("kind", ["onnx", "program"])
@pytest.mark.parametrize(("save", "examples"), CASES)
def test_logits_are_the_pipelines(tmp_path, request, save, examples, kind):
    folder = tmp_path / "model"
    if kind == "onnx":
        load = load_onnx_classifier
        request.getfixturevalue("copy_onnx")(save, folder)
    else:
        load = partial(load_program_classifier, trust_remote_code=True)
        written(save(folder), kind)
    expected = np.stack(list(iter_logits(load_classifier(folder), examples)))
    (folder / "model.safetensors").unlink()  # the graph contains the weights itself
    for batch_size in (1, 3, 5):
        found = np.stack(list(iter_logits(load(folder, batch_size=batch_size), examples)))
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_an_onnx_file_has_the_labels_of_its_logits(tmp_path, copy_onnx):
    import onnx

    folder = copy_onnx(save_reviews, tmp_path / "model")
    model = onnx.load(str(folder / ONNX_FILE))
    onnx.checker.check_model(model)
    said = {each.key: json.loads(each.value) for each in model.metadata_props}
    assert {name: said[name] for name in ("task", "target", "labels")} == {
        "task": "text-classification",
        "target": "single_label",
        "labels": ["dull", "süß"],
    }
    assert set(METADATA) <= set(said)
    axes = [[each.dim_param for each in one.type.tensor_type.shape.dim] for one in model.graph.input]
    assert [one.name for one in model.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    assert axes == [["batch", "tokens"]] * 3
    assert [one.name for one in model.graph.output] == ["logits"]


@pytest.mark.parametrize(("save", "examples"), CASES)
def test_int8_is_smaller_and_gives_nearly_the_same_logits(tmp_path, copy_onnx, save, examples):
    import onnx

    folder = copy_onnx(save, tmp_path / "model")
    classifier = load_classifier(folder)
    expected = np.stack(list(iter_logits(classifier, examples)))
    prepare = model_inputs(classifier)
    path = folder / ONNX_FILE
    whole = path.rename(folder / "whole.onnx")
    batches = None if classifier.modality.has_tokens else [prepare([each]) for each in examples]
    quantize_int8(whole, path, batches)
    write_metadata(path, export_metadata(classifier))
    kinds = {each.data_type for each in onnx.load(str(path)).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    found = np.stack(list(iter_logits(load_onnx_classifier(folder, batch_size=2), examples)))
    assert not np.array_equal(found, expected)
    assert np.abs(found - expected).max() < 0.3 * np.abs(expected).max()


class Chooses(torch.nn.Module):
    """Branches on the values, which a graph cannot represent."""

    def __init__(self, model):
        super().__init__()
        self.config, self.model = model.config, model

    def forward(self, **inputs):
        if inputs["input_ids"].sum() > 3:
            return self.model(**inputs)
        return self.model(input_ids=inputs["input_ids"])


def test_an_architecture_that_cannot_be_exported_is_reported(tmp_path):
    classifier = load_classifier(save_bert(tmp_path / "model"))
    batch = example_inputs(classifier)
    with pytest.raises(GraphError, match=r"torch\.export cannot write Chooses\."):
        write_program(Chooses(classifier.pipe.model), classifier.modality, batch, tmp_path / PROGRAM_FILE, {})
    assert not (tmp_path / PROGRAM_FILE).exists()

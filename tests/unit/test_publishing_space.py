"""The folder of a Space: plain transformers gives the same answers there as ``predict``."""

import importlib.util
import json
import sys
import types

import numpy as np
import pytest
import yaml
from evaluation_helpers import save_bert, save_timm, save_vit
from PIL import Image

from hf_finetune.errors import InputError
from hf_finetune.evaluation.predict import predict
from hf_finetune.publishing.space import write_space


def stand_in():
    """Return a module with the parts of gradio that app.py uses, for when gradio is not installed."""

    class Error(Exception):
        pass

    module = types.ModuleType("gradio")
    module.Error = Error
    for name in ("Image", "Textbox", "Label", "Interface"):
        setattr(module, name, lambda *arguments, **options: (arguments, options))
    return module


def app_of(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", stand_in())
    monkeypatch.delitem(sys.modules, "fields", raising=False)
    monkeypatch.syspath_prepend(folder)
    spec = importlib.util.spec_from_file_location("space_app", folder / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("save", [save_vit, save_timm])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_images_get_the_same_probabilities(tmp_path, monkeypatch, save, mode):
    write_space(save(tmp_path / "model"), tmp_path / "space")
    image = Image.fromarray(np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)).convert(mode)
    image.save(tmp_path / "soup.png")
    (expected,) = predict(tmp_path / "model", [str(tmp_path / "soup.png")])
    with Image.open(tmp_path / "soup.png") as opened:
        found = app_of(tmp_path / "space", monkeypatch).classify(opened)
    assert found == pytest.approx(expected.scores, abs=1e-6)


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_images_of_more_than_8_bits_are_refused(tmp_path, monkeypatch, kind):
    write_space(save_vit(tmp_path / "model"), tmp_path / "space")
    app = app_of(tmp_path / "space", monkeypatch)
    with pytest.raises(app.gr.Error, match="more than 8 bits"):
        app.classify(Image.fromarray(np.zeros((8, 8), kind)))


@pytest.mark.parametrize("target", ["single_label", "multi_label", "regression"])
def test_texts_get_the_same_scores(tmp_path, monkeypatch, target):
    names = ("label",) if target == "regression" else ("dull", "süß")
    folder = save_bert(tmp_path / "model", names, target)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"logit_temperature": 2.5}))
    write_space(folder, tmp_path / "space")
    app = app_of(tmp_path / "space", monkeypatch)
    text = "not bad " * 100
    (expected,) = predict(folder, [text])
    found = app.classify(text)
    if target == "regression":
        assert found == f"{expected.label:.4g}"
    else:
        assert found == pytest.approx(expected.scores, abs=1e-6)


def test_an_empty_text_is_an_error(tmp_path, monkeypatch):
    write_space(save_bert(tmp_path / "model"), tmp_path / "space")
    app = app_of(tmp_path / "space", monkeypatch)
    with pytest.raises(app.gr.Error, match="The text is empty"):
        app.classify("  ")
    with pytest.raises(app.gr.Error, match="The text is empty"):
        app.classify("good", "")


def test_the_folder_contains_the_files_of_a_space_and_no_private_ones(tmp_path):
    model = save_timm(tmp_path / "model")
    (model / "README.md").write_text(f"trained in {tmp_path}", encoding="utf-8")
    (model / "optimizer.pt").write_bytes(b"moments")
    write_space(model, tmp_path / "space")
    space = tmp_path / "space"
    names = {file.relative_to(space).as_posix() for file in space.rglob("*") if file.is_file()}
    assert names >= {
        "app.py",
        "fields.py",
        "settings.json",
        "requirements.txt",
        "README.md",
        "model/model.safetensors",
    }
    assert not names & {"model/README.md", "model/optimizer.pt"}
    for name in names - {"model/model.safetensors"}:
        assert str(tmp_path) not in (space / name).read_text(encoding="utf-8")
    _, front, _ = (space / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(front) == {"title": "model", "sdk": "gradio", "app_file": "app.py"}
    required = (space / "requirements.txt").read_text(encoding="utf-8").split()
    assert {line.partition(">")[0] for line in required} == {
        *("gradio", "numpy", "pillow", "torch", "transformers", "torchvision", "timm")
    }
    for name in ("app.py", "fields.py"):
        assert "hf_finetune" not in (space / name).read_text(encoding="utf-8")


def test_a_folder_with_content_is_unchanged(tmp_path):
    folder = tmp_path / "space"
    folder.mkdir()
    (folder / "thesis.txt").write_text("all of it", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        write_space(save_bert(tmp_path / "model"), folder)
    assert str(caught.value) == f"--space must be an empty folder or not exist. Got {str(folder)!r}."
    assert [file.name for file in folder.iterdir()] == ["thesis.txt"]

"""The examples in the docstrings of the public names, and the Python code of the documentation, run."""

import doctest
import inspect
from types import SimpleNamespace

import datasets
import pytest
from PIL import Image
from stage_helpers import Examples
from test_readme import CODE
from transformers import ViTImageProcessor

import hf_finetune
from hf_finetune import load_recipe, run

REVIEWS = """
task: text-classification
model: bert
data: reviews.csv
stages:
  - {train: head, epochs: 4, lr: 1e-2}
  - {train: all, epochs: 20, lr: 1e-2, batch_size: 8}
"""
PHOTOS = """
task: image-classification
model: MODEL
data: DATA
stages: [{train: head, epochs: 1, lr: 1e-2}]
"""


def documented():
    """Yield each public name and each public method of a class of the package, with its docstring."""
    for name in hf_finetune.__all__:
        value = getattr(hf_finetune, name)
        yield name, inspect.getdoc(value)
        for method, function in vars(value).items() if inspect.isclass(value) else ():
            if inspect.isfunction(function) and not method.startswith("_"):
                yield f"{name}.{method}", inspect.getdoc(function)


EXAMPLES = {name: text for name, text in documented() if ">>>" in text}
WHOLE_RUNS = {"Predictor", "Predictor.predict", "RunResult", "evaluate", "run"}
"""The examples that train a run or read a finished one."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, reviews, squares, timm_checkpoint, tiny_model, tiny_tokenizer):
    """Return a folder with checkpoints, data, recipes and a finished run."""
    folder = tmp_path_factory.mktemp("examples")
    tiny_model("bert", num_labels=2).save_pretrained(folder / "bert")
    tiny_tokenizer(folder / "bert")
    for name in ("reviews.csv", "other.csv"):
        (folder / name).write_bytes(reviews.read_bytes())
    for name, color in (("a.jpg", (200, 50, 40)), ("b.jpg", (40, 60, 200))):
        Image.new("RGB", (40, 40), color).save(folder / name)
    (folder / "reviews.yaml").write_text(REVIEWS, encoding="utf-8")
    photos = PHOTOS.replace("MODEL", str(timm_checkpoint)).replace("DATA", str(squares))
    (folder / "photos.yaml").write_text(photos, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(workplace):
    """Finish a run in the folder."""
    run(load_recipe(workplace / "reviews.yaml"), workplace / "runs" / "reviews")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in WHOLE_RUNS)) for name in EXAMPLES]
)
def test_the_example_of_a_docstring_runs(name, request, workplace, monkeypatch, tiny_model):
    if name in WHOLE_RUNS:
        request.getfixturevalue("finished")
    monkeypatch.chdir(workplace)
    test = doctest.DocTestParser().get_doctest(EXAMPLES[name], of_texts(tiny_model), name, None, 0)
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(test, out=said.append).failed == 0, "".join(said)


@pytest.mark.slow
@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize(
    ("page", "count", "names"), [("README.md", 2, "of_images"), ("docs/python.md", 5, "of_texts")]
)
def test_the_code_of_the_documentation_runs(
    page, count, names, workplace, squares, monkeypatch, capsys, tiny_model
):
    monkeypatch.chdir(workplace)
    space = of_texts(tiny_model) if names == "of_texts" else of_images(tiny_model, squares)
    blocks = [code for name, code in CODE if name == page]
    assert len(blocks) == count
    for code in blocks:
        exec(compile(code, page, "exec"), space)
    assert "nan" not in capsys.readouterr().out


def of_texts(tiny_model):
    """Return the variables ``model``, ``train_data`` and ``validation_data`` of the examples."""
    model = tiny_model("bert")
    examples = list(Examples(model, 8))
    return {"model": model, "train_data": examples, "validation_data": examples}


def of_images(tiny_model, squares):
    """Return the variables that the README uses from examples/freezing_callback.py, with a tiny model and squares."""
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    paths = sorted(squares.glob("*/*.png"))
    classes = sorted({path.parent.name for path in paths})
    data = datasets.Dataset.from_dict(
        {
            "image": [str(path) for path in paths],
            "label": [classes.index(path.parent.name) for path in paths],
        }
    ).cast_column("image", datasets.Image())

    def prepare(batch):
        return {"labels": batch["label"], **processor(batch["image"], return_tensors="pt")}

    return {
        "model": tiny_model("vit"),
        "data": {"train": data},
        "prepare": prepare,
        "options": SimpleNamespace(output_dir="runs/callback"),
    }

"""The examples in the docstrings of the public names run."""

import doctest
import inspect

import pytest
from conftest import make_model, save_tokenizer
from stage_helpers import Examples

import hf_finetune
from hf_finetune import load_recipe, run

RECIPE = """
task: text-classification
model: bert
data: reviews.csv
stages:
  - {train: head, epochs: 4, lr: 1e-2}
  - {train: all, epochs: 20, lr: 1e-2, batch_size: 8}
"""


def documented():
    """Yield each public name and each public method of a class of the package, with its docstring."""
    for name in hf_finetune.__all__:
        value = getattr(hf_finetune, name)
        yield name, inspect.getdoc(value)
        methods = vars(value).items() if inspect.isclass(value) else ()
        for method, function in methods:
            if inspect.isfunction(function) and not method.startswith("_"):
                yield f"{name}.{method}", inspect.getdoc(function)


EXAMPLES = {name: text for name, text in documented() if ">>>" in text}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, reviews):
    """Give a folder with a checkpoint, data, a recipe and a finished run of it."""
    folder = tmp_path_factory.mktemp("examples")
    make_model("bert", num_labels=2).save_pretrained(folder / "bert")
    save_tokenizer(folder / "bert")
    for name in ("reviews.csv", "other.csv"):
        (folder / name).write_bytes(reviews.read_bytes())
    (folder / "reviews.yaml").write_text(RECIPE, encoding="utf-8")
    run(load_recipe(folder / "reviews.yaml"), folder / "runs" / "reviews")
    return folder


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    model = make_model("bert")
    examples = list(Examples(model, 8))
    given = {"model": model, "train_data": examples, "validation_data": examples}
    test = doctest.DocTestParser().get_doctest(EXAMPLES[name], given, name, None, 0)
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(test, out=said.append).failed == 0, "".join(said)

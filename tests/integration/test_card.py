"""The model card: its metadata, its text, and its recipe, which repeats the run."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from run_helpers import changed, weights_of

from hf_finetune.publishing.card import write_card
from hf_finetune.publishing.portable_recipe import portable_recipe
from hf_finetune.recipe.load import load_recipe, parse_recipe
from hf_finetune.runs.run import run


@pytest.fixture(params=["image", "text"])
def done(request):
    return request.getfixturevalue(f"{request.param}_run")[1]


def test_the_hub_reads_task_metrics_and_intervals(done):
    card = ModelCard.load(done.folder / "model" / "README.md")
    metrics = json.loads((done.folder / "metrics.json").read_text(encoding="utf-8"))
    assert card.data.pipeline_tag == metrics["task"] and card.data.library_name == "transformers"
    results = {result.metric_type: result for result in card.data.eval_results}
    assert set(results) == {"accuracy", "f1_macro"}
    for name, result in results.items():
        assert result.metric_value == round(metrics["test"][name], 4)
        assert result.metric_args["interval_95"] == [round(end, 4) for end in metrics["test_interval"][name]]
        assert result.dataset_split == "test"


def test_no_local_folder_is_published(done):
    text = (done.folder / "model" / "README.md").read_text(encoding="utf-8")
    recipe = json.loads((done.folder / "manifest.json").read_text(encoding="utf-8"))["recipe"]
    for part in ("model", "data"):
        path = Path(recipe[part]["path"])
        assert str(path.parent) not in text and f"./{path.name}" in text
    assert str(done.folder) not in text


def test_the_recipe_of_the_card_repeats_the_run(done, tmp_path, monkeypatch):
    text = (done.folder / "model" / "README.md").read_text(encoding="utf-8")
    recipe = json.loads((done.folder / "manifest.json").read_text(encoding="utf-8"))["recipe"]
    for part in ("model", "data"):
        source = Path(recipe[part]["path"])
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / source.name)
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1]
    (tmp_path / "recipe.yaml").write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    again = run(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "again")
    assert changed(weights_of(done.folder), weights_of(again.folder)) == set()


def with_paths(done, folder, **paths):
    """Copy a run, and replace the paths in its recipe."""
    shutil.copytree(done.folder, folder)
    content = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    for part, path in paths.items():
        content[part]["path"] = path
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return folder


def test_the_licence_of_the_checkpoint_is_carried_over(done, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "README.md").write_text("---\nlicense: cc-by-4.0\n---\nA model.\n", encoding="utf-8")
    folder = with_paths(done, tmp_path / "run", model=str(checkpoint))
    assert ModelCard.load(write_card(folder)).data.license == "cc-by-4.0"


def test_a_checkpoint_without_metadata_is_accepted(done, tmp_path, monkeypatch, caplog):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    folder = with_paths(done, tmp_path / "run", model=str(checkpoint))
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    for text in (None, "A model.\n", "---\n- no mapping\n---\n", "---\n{: not yaml\n---\n"):
        if text is not None:
            (checkpoint / "README.md").write_text(text, encoding="utf-8")
        caplog.clear()
        path = write_card(folder)
        assert caplog.text == ""
        assert ModelCard.load(path).data.license is None


def test_a_checkpoint_and_data_of_the_hub_are_named_as_such(done, tmp_path):
    folder = with_paths(done, tmp_path / "run", model="someone/model", data="someone/data")
    card = ModelCard.load(write_card(folder))
    assert (card.data.base_model, card.data.datasets) == ("someone/model", "someone/data")
    assert card.data.eval_results[0].dataset_type == "someone/data"


def test_names_of_classes_are_no_markdown(done, tmp_path):
    folder = shutil.copytree(done.folder, tmp_path / "run")
    data = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    data["splits"]["train"]["classes"] = {"<img src=x>": 3, "[a](b)": 2}
    (folder / "data.json").write_text(json.dumps(data), encoding="utf-8")
    text = write_card(folder).read_text(encoding="utf-8")
    assert r"\<img src=x\>" in text and r"\[a\](b)" in text
    assert not re.search(r"(?<!\\)<img", text)


def test_only_local_paths_are_shortened():
    stage = {"train": "all", "epochs": 1, "lr": 1e-3, "teacher": "/x/y/teacher"}
    recipe = parse_recipe(
        {
            "task": "text-classification",
            "model": "/a/b/c",
            "data": "name/data",
            "stages": [stage, {**stage, "teacher": "me/teacher"}],
            "publish": "me/model",
        }
    )
    made = portable_recipe(recipe)
    assert (made.model.path, made.data.path, made.publish) == ("./c", "name/data", None)
    assert [each.teacher.path for each in made.stages] == ["./teacher", "me/teacher"]

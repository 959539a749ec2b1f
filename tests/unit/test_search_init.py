"""`init`: what is seen in data, which columns are guessed, and the recipe that is written for it."""

import pytest
import yaml
from folder_helpers import touch
from typer.testing import CliRunner

from hf_finetune.cli.app import app
from hf_finetune.errors import InputError
from hf_finetune.recipe import parse_recipe
from hf_finetune.search import candidates
from hf_finetune.search.candidates import Candidate, CandidateList, choose_at_hand, read_candidates
from hf_finetune.search.draft_recipe import draft_recipe
from hf_finetune.search.inspect_data import inspect_data
from hf_finetune.tasks import MODALITIES


def write_table(path, rows, header):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def drafted(path, named=None):
    """Return the recipe for data, as text and as checked fields."""
    text = draft_recipe(inspect_data(str(path), named), "a/model")
    content = yaml.safe_load(text)
    parse_recipe(content)
    return text, content


def test_a_recipe_for_class_folders(squares):
    text, recipe = drafted(squares)
    assert recipe["task"] == "image-classification"
    assert recipe["data"] == {
        "path": str(squares),
        "target": "single_label",
        "split": {"validation": 0.15, "test": 0.15, "stratify": True},
        "augment": "standard",
    }
    assert "# 36 images; 3 classes with 12 examples.\n# Median size 40 x 40 pixels.\n" in text
    assert "train in the data, validation, test split off." in text


def test_a_recipe_for_a_table_of_texts(reviews):
    text, recipe = drafted(reviews)
    assert recipe["task"] == "text-classification"
    assert "columns" not in recipe["data"]
    assert "guessed" not in text
    assert "# 40 texts; 2 classes with 20 examples.\n" in text


def test_columns_without_usual_names_are_guessed_and_named(tmp_path):
    rows = [f"{row},dish {row} was as one expects,shop {row % 3},{row % 2 + 1}" for row in range(40)]
    text, recipe = drafted(write_table(tmp_path / "remarks.csv", rows, "number,remark,shop,stars"))
    assert recipe["data"]["columns"] == {"text": "remark", "label": "stars"}
    assert "# guessed: text, label; not used: number, shop\n" in text


def test_a_named_column_is_not_guessed(tmp_path):
    rows = [f"{row},dish {row} was as one expects,shop {row % 3},{row % 2 + 1}" for row in range(40)]
    table = write_table(tmp_path / "remarks.csv", rows, "number,remark,shop,stars")
    text, recipe = drafted(table, {"label": "shop"})
    assert recipe["data"]["columns"] == {"text": "remark", "label": "shop"}
    assert "# guessed: text; not used: number, stars\n" in text


def test_numbers_of_many_values_are_a_regression(tmp_path):
    rows = [f"dish {row} was as one expects,{row / 7:.3f}" for row in range(40)]
    text, recipe = drafted(write_table(tmp_path / "prices.csv", rows, "remark,price"))
    assert recipe["data"]["columns"] == {"text": "remark", "label": "price"}
    assert recipe["data"]["target"] == "regression"
    assert recipe["metrics"][0] == "rmse"
    assert "numbers from 0 to 5.571, mean 2.786" in text


def test_a_class_with_two_examples_is_not_stratified(tmp_path):
    rows = [f"dish {row} was as one expects,{'good' if row > 1 else 'bad'}" for row in range(40)]
    text, recipe = drafted(write_table(tmp_path / "remarks.csv", rows, "text,label"))
    assert recipe["data"]["split"]["stratify"] is False
    assert "random, because a class has too few examples" in text


def test_unreadable_examples_are_skipped_and_named(squares, tmp_path):
    for folder in ("green", "red"):
        (tmp_path / folder).symlink_to(squares / folder)
    (tmp_path / "blue").mkdir()
    for file in (squares / "blue").iterdir():
        (tmp_path / "blue" / file.name).symlink_to(file)
    (tmp_path / "blue" / "broken.png").write_bytes(b"not a picture")
    text, recipe = drafted(tmp_path)
    assert recipe["data"]["on_error"] == "skip"
    assert "broken.png" in text


def test_given_splits_are_kept(tmp_path):
    for split in ("train", "test"):
        rows = [f"{split} dish {row} was as one expects,{row % 2}" for row in range(20)]
        write_table(tmp_path / f"{split}.csv", rows, "text,label")
    text, recipe = drafted(tmp_path)
    assert recipe["data"]["split"] == {"validation": 0.15, "stratify": True}
    assert "train, test in the data, validation split off." in text


def test_data_of_no_task_is_refused_with_the_reasons_of_each(tmp_path):
    touch(tmp_path, "notes.pdf")
    with pytest.raises(InputError) as error:
        inspect_data(str(tmp_path))
    first, second = map(str, error.value.problems)
    assert first.startswith("For image-classification: ") and second.startswith("For text-classification: ")


def test_the_candidates_of_each_modality_are_read():
    for modality in MODALITIES.values():
        listed = read_candidates(modality)
        names = [candidate.model for candidate in listed.checkpoints]
        assert listed.default in names
        assert len(set(names)) == len(names)


def test_the_first_candidate_on_this_machine_is_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(candidates, "ASSETS", tmp_path)
    checkpoints = [
        Candidate(model="a/large", parameters=90.0, folder="large"),
        Candidate(model="a/small", parameters=5.0, folder="small"),
    ]
    listed = CandidateList(date="2026-11-29", default="a/large", checkpoints=checkpoints)
    assert choose_at_hand(listed) == ("a/large", False)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text("{}")
    assert choose_at_hand(listed) == ((tmp_path / "small").as_posix(), True)


def test_a_candidate_in_the_cache_of_the_hub_is_on_this_machine(monkeypatch):
    cached = {
        ("a/model", "config.json"): "/cache/config.json",
        ("a/model", "model.safetensors"): "/cache/model",
    }
    monkeypatch.setattr(candidates, "try_to_load_from_cache", lambda *file: cached.get(file))
    assert Candidate(model="a/model", parameters=1.0).location() == "a/model"
    del cached[("a/model", "model.safetensors")]
    assert Candidate(model="a/model", parameters=1.0).location() is None


def invoke(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_the_command_writes_a_new_file_only(reviews, tmp_path):
    path = tmp_path / "recipe.yaml"
    told = invoke("init", reviews, "--output", path, "--model", "a/model")
    assert told.exit_code == 0, told.output
    assert path.read_text(encoding="utf-8") in told.output
    assert f"hf-finetune run {path}" in told.output
    before = path.read_bytes()
    again = invoke("init", reviews, "--output", path, "--model", "b/model")
    assert isinstance(again.exception, InputError)
    assert str(again.exception).startswith(f"{path} must not exist.")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--task", "dancing"),
            "--task must be one of image-classification, text-classification. Got 'dancing'.",
        ),
        (("--column", "lable=stars"), "--column must set one of"),
        (("--column", "label=starz"), "data.columns.label must be a column of the data. Got 'starz'."),
        (("--output", "nowhere/recipe.yaml"), "nowhere must be a folder."),
    ],
)
def test_invalid_options_are_refused(reviews, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = invoke("init", reviews, *arguments)
    assert isinstance(told.exception, InputError)
    assert message in str(told.exception)
    assert not [*tmp_path.iterdir()]


def test_a_run_needs_a_recipe_or_data():
    assert str(invoke("run").exception) == "RECIPE must be set. Name a recipe, or set --data."
    refused = invoke("run", "quickstart", "--model", "a/model").exception
    assert str(refused) == "--data must be set. Or override model in the recipe."

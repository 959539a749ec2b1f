"""Slices by columns of the data: metrics, predictions, report, card, and another evaluation."""

import csv
import json
import shutil

import pytest
from datasets import Dataset
from run_helpers import quick_run, refusal, tiny_image_recipe, tiny_text_recipe, without_times

from hf_finetune.evaluation.evaluate_run import evaluate
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.recipe.load import parse_recipe

FIT = [{"name": "head", "train": "head", "fit": "logistic_regression"}]
STYLES = ("flat", "round", "")


@pytest.fixture(scope="module")
def styled(tmp_path_factory, reviews):
    """Return the reviews with a style, a year, and a test split with an additional style."""
    folder = tmp_path_factory.mktemp("styled")
    _, *lines = reviews.read_text(encoding="utf-8").splitlines()
    for split, chosen in (("train", lines[:28]), ("test", lines[28:])):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", "style", "year"])
            for index, line in enumerate(chosen):
                style = STYLES[index % 3] if split == "train" else ("flat", "new", "")[index % 3]
                writer.writerow([*line.rsplit(",", 1), style, 1990 + index])
    return folder


def with_slices(recipe, slices, **changes):
    content = {**recipe.model_dump(mode="json"), **changes}
    content["evaluation"]["slices"] = slices
    content["data"]["split"]["validation"] = 0
    return parse_recipe(content)


@pytest.fixture(scope="module")
def texts(tmp_path_factory, styled, bert_checkpoint):
    recipe = with_slices(tiny_text_recipe(styled, bert_checkpoint, stages=FIT), ["style", "year"])
    return recipe, quick_run(recipe, tmp_path_factory.mktemp("texts") / "run").folder


def slices_of(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["slices"]


def test_every_slice_of_the_test_split_is_evaluated(texts):
    found, table = slices_of(texts[1]), Dataset.from_parquet(str(texts[1] / "predictions.parquet"))
    styles = {row["name"]: row for row in found["style"]["slices"]}
    assert set(styles) == {"flat", "new", "(missing)"}
    assert found["style"]["training"] == ["(missing)", "flat", "round"]
    assert {name: row["in_training"] for name, row in styles.items()} == {
        "flat": True, "new": False, "(missing)": True,
    }  # fmt: skip
    for name, row in styles.items():
        members = [each for each in table if each["slice:style"] == name]
        right = [each["label"] == each["prediction"] for each in members]
        assert (row["examples"], row["enough"]) == (len(members), False)
        assert row["metrics"]["accuracy"] == pytest.approx(sum(right) / len(right))
    assert sum(row["examples"] for row in styles.values()) == len(table) == 12
    assert found["style"]["worst"] is None, "all are too small"
    assert found["year"]["ends"] == [1996.75, 2003.5, 2010.25]
    assert {row["name"] for row in found["year"]["slices"]} == {"up to 1996.75", "1996.75 to 2003.5"}


def test_report_and_card_show_slices(texts):
    page = (texts[1] / "report.html").read_text(encoding="utf-8")
    assert 'href="#slices"' in page and "By style" in page and "By year" in page
    assert "not in training, too few examples to compare" in page
    card = (texts[1] / "model" / "README.md").read_text(encoding="utf-8")
    assert "By style, fewer than two slices have enough examples to be compared." in card


def test_the_run_is_evaluated_again_with_its_slices_and_on_other_data_with_those_that_it_has(texts, styled):
    again = evaluate(texts[1])
    assert without_times(again.slices) == slices_of(texts[1])
    other = evaluate(texts[1], data=str(styled), split="train")
    assert {row["name"] for row in other.slices["style"]["slices"]} == {"flat", "round", "(missing)"}
    assert all(row["in_training"] for row in other.slices["style"]["slices"])
    plain = evaluate(texts[1] / "model", data=str(styled))
    assert plain.slices == {} or set(plain.slices) == {"style", "year"}


def test_predictions_are_read_as_without_slices(texts, tmp_path, styled):
    plain = quick_run(with_slices(texts[0], []), tmp_path / "run").folder
    one, other = (read_predictions(folder / "predictions.parquet") for folder in (texts[1], plain))
    assert one.ids == other.ids and one.label_names == other.label_names
    assert (one.scores == other.scores).all()
    assert "slices" not in json.loads((plain / "metrics.json").read_text(encoding="utf-8"))


def test_class_folders_of_images_have_slices_of_a_metadata_file(tmp_path, squares, timm_checkpoint):
    lines = [f"{file.relative_to(squares)},{'dark' if index % 2 else 'light'}"
             for index, file in enumerate(sorted(squares.glob("*/*.png")))]  # fmt: skip
    photos = tmp_path / "photos"
    photos.mkdir()
    for folder in squares.iterdir():
        shutil.copytree(folder, photos / folder.name)
    (photos / "metadata.csv").write_text("\n".join(["file_name,shade", *lines, ""]), encoding="utf-8")
    recipe = with_slices(tiny_image_recipe(photos, timm_checkpoint, stages=FIT), ["shade"])
    folder = quick_run(recipe, tmp_path / "run").folder
    found = {row["name"]: row["examples"] for row in slices_of(folder)["shade"]["slices"]}
    table = Dataset.from_parquet(str(folder / "predictions.parquet"))
    shades = dict(line.split(",") for line in lines)
    assert [shades[name] for name in table["id"]] == list(table["slice:shade"])
    assert sum(found.values()) == len(table) and set(found) <= {"dark", "light"}


def test_slices_of_folds_are_carried(tmp_path, texts):
    content = with_slices(texts[0], ["style"]).model_dump(mode="json")
    content["evaluation"]["folds"] = 2
    folder = quick_run(parse_recipe(content), tmp_path / "run").folder
    fold = json.loads((folder / "folds" / "1-of-2" / "metrics.json").read_text(encoding="utf-8"))
    assert {row["name"] for row in fold["slices"]["style"]["slices"]} == {"flat", "round", "(missing)"}


def test_slices_that_cannot_be_evaluated_are_refused_before_any_file_is_written(tmp_path, texts):
    wrong = with_slices(texts[0], ["stile"])
    assert refusal(lambda: quick_run(wrong, tmp_path / "run")) == (
        "evaluation.slices[0] must be a column of the train split. Got 'stile'. Its columns are 'text', 'label', "
        "'style', 'year'."
    )
    data = {**texts[0].model_dump(mode="json")["data"], "path": str(tmp_path / "train.csv")}
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\nc,x\nd,y\n", encoding="utf-8")
    content = with_slices(texts[0], ["label"], data=data).model_dump(mode="json")
    content["data"]["split"] = {"validation": 0, "test": 0}
    assert refusal(lambda: quick_run(parse_recipe(content), tmp_path / "run")) == (
        "evaluation.slices must not be set without a test split. Set data.split.test above 0, or remove the field."
    )
    assert not (tmp_path / "run").exists()

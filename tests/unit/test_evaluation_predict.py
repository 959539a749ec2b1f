"""Prediction of files, folders, tables, texts and lines."""

import base64
import csv
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from evaluation_helpers import save_bert, save_vit
from PIL import Image

from hf_finetune.errors import InputError
from hf_finetune.evaluation.classifier import load_classifier
from hf_finetune.evaluation.evaluate import evaluate_model
from hf_finetune.evaluation.predict import Predictor, predict
from hf_finetune.evaluation.prediction_inputs import open_inputs
from hf_finetune.evaluation.prediction_writers import json_line, open_output
from hf_finetune.tasks import MODALITIES

TEXT, IMAGE = MODALITIES["text"], MODALITIES["image"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return load_classifier(save_bert(tmp_path_factory.mktemp("bert")), batch_size=4)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return load_classifier(save_vit(tmp_path_factory.mktemp("vit")), batch_size=2)


@pytest.fixture
def photos(tmp_path):
    """Three images at two depths, a text file, and a damaged image."""
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in ("b.png", "a.JPG", "deep/er/c.webp"):
        Image.fromarray(generator.integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(folder / name)
    (folder / "deep" / "broken.png").write_bytes((folder / "b.png").read_bytes()[:200])
    (folder / "notes.md").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def ids(stream):
    return [prediction.id for prediction in stream]


def test_single_label_predictions(texts):
    found = list(predict(texts, ["good film", "very boring"]))
    assert ids(found) == ["good film", "very boring"]
    for prediction in found:
        assert sum(prediction.scores.values()) == pytest.approx(1)
        assert prediction.label == max(prediction.scores, key=prediction.scores.get)
        assert prediction.score == prediction.scores[prediction.label]
    assert found[0].scores != found[1].scores


def test_multi_label_predictions_are_the_classes_from_a_half_on(tmp_path):
    classifier = load_classifier(save_bert(tmp_path, ("dull", "long", "loud"), "multi_label"))
    torch.nn.init.zeros_(classifier.pipe.model.classifier.weight)
    classifier.pipe.model.classifier.bias.data = torch.tensor([2.0, 0.0, -2.0])
    (found,) = predict(classifier, ["good film"])
    assert found.label == ["dull", "long"]
    assert found.score is None
    assert found.scores == pytest.approx({"dull": 0.8808, "long": 0.5, "loud": 0.1192}, abs=1e-4)


def test_a_run_is_loaded_for_its_model(texts, tmp_path):
    save_bert(tmp_path / "run" / "model")
    (found,) = predict(tmp_path / "run", ["good film"])
    (expected,) = predict(texts, ["good film"])
    assert found == expected
    with pytest.raises(InputError, match="must be a model for image-classification"):
        predict(tmp_path / "run", ["good film"], task="image-classification")


def test_a_predictor_predicts_again_and_again_as_the_function_does(texts, tmp_path):
    predictor = Predictor(save_bert(tmp_path / "run" / "model").parent, batch_size=4)
    expected = list(predict(texts, ["good film", "very boring"]))
    assert (
        predictor(["good film", "very boring"]) == predictor.predict(["good film", "very boring"]) == expected
    )
    (alone,) = predictor("good film")  # another batch size may round differently
    assert (alone.id, alone.label) == (expected[0].id, expected[0].label)
    assert alone.scores == pytest.approx(expected[0].scores)
    assert predictor.classifier.label_names == texts.label_names
    with pytest.raises(InputError, match="must be at least one file, folder or text"):
        predictor([])
    with pytest.raises(InputError, match="must be a model for image-classification"):
        Predictor(tmp_path / "run", task="image-classification")


def test_a_predictor_reads_tables_and_paths(images, photos, tmp_path):
    predictor = Predictor(save_vit(tmp_path / "vit"))
    assert predictor(photos / "b.png") == list(predict(images, [str(photos / "b.png")]))
    table = tmp_path / "table.csv"
    table.write_text(f"picture,number\n{photos / 'b.png'},7\n", encoding="utf-8")
    (found,) = predictor([table], columns={"image": "picture", "id": "number"}, keep=True)
    assert (found.id, found.row["number"]) == ("7", "7")


def test_regression_predicts_the_raw_value(tmp_path):
    classifier = load_classifier(save_bert(tmp_path, ("label",), "regression"))
    torch.nn.init.constant_(classifier.pipe.model.classifier.bias, 100.0)
    (found,) = predict(classifier, ["good film"])
    assert found.label > 50
    assert (found.score, found.scores) == (None, {})


def test_predictions_are_those_of_the_evaluation(images, photos, tmp_path):
    names = ["a.JPG", "b.png", "deep/er/c.webp"]
    Image.open(photos / "b.png").convert("RGBA").save(photos / "b.png")
    dataset = Dataset.from_dict(
        {"id": names, "image": [str(photos / name) for name in names], "label": [0, 1, 2]},
        Features({"id": Value("string"), "image": ImageFeature(), "label": Value("int64")}),
    )
    expected = evaluate_model(images, dataset).scores
    found = [list(p.scores.values()) for p in predict(images, [str(photos / name) for name in names])]
    assert np.array(found) == pytest.approx(expected, abs=1e-6)


def test_a_folder_is_read_at_any_depth_and_a_damaged_image_does_not_stop_it(images, photos):
    stream = predict(images, [str(photos)])
    assert stream.total == 4
    found = list(stream)
    assert ids(found) == [
        str(photos / name) for name in ("a.JPG", "b.png", "deep/broken.png", "deep/er/c.webp")
    ]
    assert [prediction.error is None for prediction in found] == [True, True, False, True]
    assert found[2].error.startswith("The image cannot be read. OSError: ")
    assert (stream.done, stream.failed) == (4, 1)


def test_links_in_a_folder_are_followed_and_broken_ones_are_reported(images, photos, tmp_path):
    (photos / "deep").rename(tmp_path / "elsewhere")
    (photos / "deep").symlink_to(tmp_path / "elsewhere")
    (photos / "round").symlink_to(photos)
    (photos / "gone.png").symlink_to(tmp_path / "nothing.png")
    os.mkfifo(photos / "pipe.png")
    found = list(predict(images, [str(photos)]))
    assert {Path(one.id).relative_to(photos).as_posix(): one.error is None for one in found} == {
        "a.JPG": True, "b.png": True, "deep/broken.png": False, "deep/er/c.webp": True, "gone.png": False,
    }  # fmt: skip


def test_a_table_finds_images_with_any_form_of_paths(images, photos):
    (photos / "new.csv").write_text(
        "id,image\n007,deep\\er\\c.webp\n008,a.jpg\n009,b\n010,https://x.example/1.png\n"
    )
    found = list(predict(images, [str(photos / "new.csv")]))
    assert [(one.id, one.error is None) for one in found] == [
        ("007", True), ("008", True), ("009", True), ("010", False),
    ]  # fmt: skip
    assert found[-1].error == (
        "The image is a URL (https://x.example/1.png); download it, and write the path of the file."
    )


def test_base64_images_are_reported_by_a_short_name(images, photos):
    encoded = base64.b64encode((photos / "b.png").read_bytes()).decode()
    assert len(encoded) > 100
    reason = f"The image is base64 or a data URI ({encoded[:100]}...); "
    reason += "write the picture to a file, and put its path there."
    found = list(
        predict(images, [encoded, "-"], stdin=[f"{encoded}\n", f"{'x' * 300}\n", f"{photos / 'b.png'}\n"])
    )
    assert [(one.id, one.error) for one in found] == [
        (f"{encoded[:100]}...", reason),
        ("stdin:1", reason),
        ("stdin:2", f"There is no file of this name ('{'x' * 100}...')."),
        (str(photos / "b.png"), None),
    ]


def test_missing_images_at_either_end_are_errors_in_their_rows(images, photos):
    stream = predict(images, ["x.png", str(photos / "b.png"), "y.png", "z.png"])
    assert [prediction.error is None for prediction in stream] == [False, True, False, False]
    assert stream.failed == 3
    stream = predict(images, ["x.png"])
    (found,) = stream
    assert found.error == (
        "The image cannot be read. FileNotFoundError: [Errno 2] No such file or directory: 'x.png'."
    )


def test_lines_of_standard_input(texts, images, photos):
    lines = ["good film\n", "\n", "  \n", "bad\r\n"]
    stream = predict(texts, ["-"], stdin=lines)
    assert stream.total is None
    assert ids(stream) == ["stdin:1", "stdin:4"]
    assert ids(predict(images, ["-"], stdin=[f"{photos / 'b.png'}\n"])) == [str(photos / "b.png")]


def test_standard_input_is_read_as_it_is_needed(texts):
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield "good film\n"

    stream = iter(predict(texts, ["-"], stdin=endless()))
    for _ in range(5):
        next(stream)
    assert read <= 3 * texts.batch_size


def test_memory_does_not_grow_with_the_lines():
    items = open_inputs(["-"], TEXT, stdin=("good film\n" for _ in range(20_000))).items
    tracemalloc.start()
    for _ in items:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_unreadable_lines_are_told_before_the_next_readable_one_is_far(images, monkeypatch):
    monkeypatch.setattr("hf_finetune.evaluation.predict._MAX_PENDING", 3)
    read = 0

    def missing():
        nonlocal read
        for number in range(100):
            read += 1
            yield f"{number}.png\n"

    stream = predict(images, ["-"], stdin=missing())
    assert next(iter(stream)).id == "0.png"
    assert read == 3


def test_text_files(texts, tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("\ufeffgood film\n\nbad\n")
    assert ids(predict(texts, [str(file)])) == [f"{file}:1", f"{file}:3"]
    assert ids(predict(texts, [str(tmp_path)])) == [f"{file}:1", f"{file}:3"]
    file.write_bytes(b"caf\xe9\n")
    (found,) = predict(texts, [str(file)])
    assert found.error.startswith(f"The rest of {file} cannot be read. UnicodeDecodeError: ")


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "parquet"])
def test_tables_of_texts(texts, tmp_path, ending):
    rows = [
        {"review": "good film", "stars": 5},
        {"review": None, "stars": 1},
        {"review": "bad, bad\nbad", "stars": 1},
    ]
    file = tmp_path / f"reviews[1].{ending}"
    table = Dataset.from_list(rows)
    if ending == "parquet":
        table.to_parquet(file)
    elif ending == "csv":
        table.to_csv(file)
    else:
        table.to_json(file, lines=ending == "jsonl")
    stream = predict(texts, [str(file)])
    assert stream.total == (3 if ending == "parquet" else None)
    found = list(stream)
    assert ids(found) == [f"{file}:0", f"{file}:1", f"{file}:2"]
    assert [prediction.error for prediction in found] == [None, "The text is empty.", None]
    direct = list(predict(texts, ["good film", "bad, bad\nbad"]))
    assert [found[0].score, found[2].score] == pytest.approx([direct[0].score, direct[1].score], abs=1e-6)


def test_tables_of_pairs_with_names_of_their_own(texts, tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text("id,text,text_pair,other\nx,good,bad film,great\n7,good,,great\n")
    first, second = predict(texts, [str(file)])
    assert (first.id, second.id) == ("x", "7")
    assert (first.error, second.error) == (None, None)
    (alone,) = predict(texts, ["good"])
    assert first.score != pytest.approx(alone.score, abs=1e-4)
    (named, _) = predict(texts, [str(file)], columns={"text": "other", "text_pair": "text"})
    (item, _) = open_inputs([str(file)], TEXT, columns={"text": "other", "text_pair": "text"}).items
    assert item.content == {"text": "great", "text_pair": "good"}
    assert named.error is None


def test_tables_of_images(images, photos, tmp_path):
    paths = photos / "table.csv"
    paths.write_text("file_name,who\nb.png,me\ngone.png,me\n")
    assert [p.error is None for p in predict(images, [str(paths)])] == [True, False]
    stored = tmp_path / "stored.parquet"
    whole = (photos / "b.png").read_bytes()
    Dataset.from_dict(
        {"photo": [{"bytes": whole, "path": None}, {"bytes": b"no picture", "path": None}, None]},
        Features({"photo": ImageFeature()}),
    ).to_parquet(stored)
    plain = tmp_path / "plain.parquet"
    pq.write_table(pa.table({"image": [whole], "label": ["soup"]}), plain)
    found = list(predict(images, [str(stored), str(plain), str(photos / "b.png")]))
    assert [prediction.error is None for prediction in found] == [True, False, False, True, True]
    assert found[2].error == "There is no image."
    assert found[0].scores == pytest.approx(found[4].scores, abs=1e-6)
    assert found[3].scores == pytest.approx(found[4].scores, abs=1e-6)


def test_a_damaged_row_ends_only_its_table(texts, tmp_path):
    file = tmp_path / "reviews.jsonl"
    # Two chunks of ten megabytes: the damage is in the second.
    line = json.dumps({"text": "good film", "filler": "x" * 1_000_000})
    file.write_text("\n".join([line] * 15) + '\n{"text":\n')
    found = list(predict(texts, [str(file), "bad"]))
    assert found[0].error is None
    assert found[-2].error.startswith(f"The rest of {file} cannot be read. ")
    assert (found[-1].id, found[-1].error) == ("bad", None)


def test_a_model_with_nan_outputs_is_reported(tmp_path):
    classifier = load_classifier(save_bert(tmp_path))
    torch.nn.init.constant_(classifier.pipe.model.classifier.bias, torch.nan)
    stream = predict(classifier, ["good"])
    (found,) = stream
    assert (found.error, stream.failed) == ("The model's output is not finite.", 1)


def test_texts_that_look_like_paths(texts):
    endless = "good film " * 1000
    assert ids(predict(texts, [endless, "a/b", "read notes.txt"])) == [endless, "a/b", "read notes.txt"]


def test_examples_of_an_image_table_are_called_by_their_files(photos):
    paths = photos / "table.csv"
    paths.write_text("image,who\nb.png,me\n")
    (item,) = open_inputs([str(paths)], IMAGE).items
    assert item.id == "b.png"
    (item,) = open_inputs([str(paths)], IMAGE, columns={"id": "who"}).items
    assert item.id == "me"


def test_columns_are_kept_with_the_predictions(texts, tmp_path):
    (tmp_path / "a.csv").write_text("text,ID,prediction,label\ngood,01,mine,x\n,02,,y\n", encoding="utf-8")
    rows = [{"text": "bad", "ID": 3, "tags": ["a"], "prediction": "other"}]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    files = [str(tmp_path / "a.csv"), str(tmp_path / "b.jsonl")]
    stream = predict(texts, files, keep=True)
    assert stream.columns == ("text", "ID", "prediction", "label", "tags")
    found = list(stream)
    assert dict(found[0].row) == {"text": "good", "ID": "01", "prediction": "mine", "label": "x"}
    assert found[1].error == "The text is empty." and found[1].row["ID"] == "02"
    line = json.loads(json_line(found[2]))
    assert list(line) == ["id", "text", "ID", "tags", "input:prediction", "prediction", "score", "scores"]
    assert (line["id"], line["ID"], line["tags"], line["input:prediction"]) == ("3", 3, ["a"], "other")
    for ending in ("csv", "parquet"):
        with open_output(
            tmp_path / f"out.{ending}", texts.target, texts.label_names, stream.columns
        ) as write:
            for prediction in found:
                write(prediction)
    with (tmp_path / "out.csv").open(newline="") as file:
        first, empty, last = csv.DictReader(file)
    assert (first["id"], first["text"], first["input:prediction"], first["label"]) == (
        "01",
        "good",
        "mine",
        "x",
    )
    assert first["prediction"] == found[0].label and empty["label"] == "y" and last["tags"] == '["a"]'
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert table[0]["ID"] == "01" and table[2]["ID"] == "3" and table[0]["tags"] is None
    assert all(prediction.row == {} for prediction in predict(texts, files))

"""Foreign files are read and never run: weights, settings, data; and their content runs nowhere else."""

import csv
import io
import json
import pickle
import re
import struct
import tarfile
import zipfile
import zlib

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import load_from_disk
from evaluation_helpers import save_bert, save_timm
from pyarrow import parquet
from report_helpers import make_record
from security_helpers import Canary, change_json, refused

from hf_finetune.data.load import load_source
from hf_finetune.evaluation.classifier import load_classifier
from hf_finetune.evaluation.example_reading import read_file
from hf_finetune.evaluation.predict import Prediction
from hf_finetune.evaluation.prediction_writers import open_output, safe_cell
from hf_finetune.models.build import build_model, read_config
from hf_finetune.publishing.card import render_card
from hf_finetune.publishing.exported_pipeline import METADATA, load_exported_classifier
from hf_finetune.publishing.space import write_space
from hf_finetune.publishing.upload_plan import collect_uploads
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.tasks import MODALITIES, TASKS

SCRIPT = '</script><script>alert(1)</script>"); import os; os.system("x'
CSV = "text,label\ngood,a\nbad,b\n"


@pytest.fixture
def canary(tmp_path):
    return Canary(tmp_path / "canary")


def texts(path):
    return load_source(str(path), modality=MODALITIES["text"])


# weights and settings of a checkpoint


@pytest.mark.parametrize(
    "write",
    [
        lambda value, file: torch.save({"x": value}, file),
        lambda value, file: file.write_bytes(pickle.dumps(value)),
    ],
)
def test_pickled_weights_are_never_unpickled(tmp_path, canary, write):
    folder = save_bert(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    write(canary, folder / "pytorch_model.bin")
    rule = "must have weight files that contain only tensors"
    repair = (
        f"Got {str(folder)!r}. Its pickle file contains other objects, which could run code when loaded. "
        "No code was run. Use a checkpoint with model.safetensors."
    )
    assert refused(load_classifier, folder) == f"{folder} {rule}. {repair}"
    assert refused(load_classifier, folder, trust_remote_code=True) == f"{folder} {rule}. {repair}"
    config = read_config(str(folder), ("a", "b"), "single_label")
    assert (
        refused(build_model, str(folder), config, task=TASKS["text-classification"])
        == f"model.path {rule}. {repair}"
    )
    assert not canary.ran


def test_pickled_weights_that_are_tensors_are_read(tmp_path):
    folder = save_bert(tmp_path / "model")
    model = load_classifier(folder).pipe.model
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert load_classifier(folder).label_names == ("bad", "good")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"model_args": {"checkpoint_path": "{}/evil.pth"}},
            "its model_args contain 'checkpoint_path', which would make timm load another checkpoint",
        ),
        (
            {"model_args": {"pretrained_cfg_overlay": {"file": "{}/evil.pth"}}},
            "its model_args contain 'pretrained_cfg_overlay', which would make timm load another checkpoint",
        ),
        (
            {"architecture": "hf-hub:somebody/else"},
            "its architecture 'hf-hub:somebody/else' is an address, not a timm model name",
        ),
    ],
)
def test_a_timm_config_refers_to_no_other_checkpoint(tmp_path, canary, changes, reason):
    folder = save_timm(tmp_path / "model")
    torch.save({"x": canary}, tmp_path / "evil.pth")
    change_json(folder / "config.json", **json.loads(json.dumps(changes).replace("{}", str(tmp_path))))
    assert refused(load_classifier, folder) == (
        f"{folder} must be a checkpoint that can be loaded. Got ValueError: {reason}."
    )
    assert refused(read_config, str(folder), ("a", "b"), "single_label") == (
        f"model.path must be a checkpoint: a folder with config.json, or a name on the Hub. Got {str(folder)!r}. "
        f"Its config.json cannot be read: {reason}."
    )
    assert not canary.ran


@pytest.mark.parametrize(
    "where",
    [
        {"attn_implementation": "somebody/kernel"},
        {"text_config": {"_attn_implementation_internal": "somebody/kernel"}},
    ],
)
def test_a_kernel_of_the_hub_is_code(tmp_path, where):
    folder = save_bert(tmp_path / "model")
    change_json(folder / "config.json", **where)
    assert refused(load_classifier, folder) == (
        f"{folder} must not need custom code unless --trust-remote-code is given. Got {str(folder)!r}. "
        f"It would run the kernel 'somebody/kernel' of the Hub (named in config.json), from {folder}. Read the code "
        "first."
    )


# data


def test_a_script_next_to_the_data_is_not_run(tmp_path, canary):
    folder = tmp_path / "texts"
    canary.script(folder / "texts.py")
    refused(texts, folder)
    (folder / "train.csv").write_text(CSV)
    assert len(texts(folder).splits["train"]) == 2
    assert not canary.ran


@pytest.mark.parametrize(
    "name", ["d.pkl", "d.pt", "d.pth", "d.npy", "d.csv", "d.json", "d.jsonl", "d.parquet", "d.csv.gz"]
)
def test_a_pickle_is_no_data_whatever_its_name(tmp_path, canary, name):
    (tmp_path / name).write_bytes(pickle.dumps(canary))
    assert "must be" in refused(texts, tmp_path / name)
    assert not canary.ran


def test_an_extension_type_of_a_parquet_file_is_not_unpickled(tmp_path, canary):
    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(canary),
    }
    fields = [pa.field("text", pa.string(), metadata=metadata), pa.field("label", pa.string())]
    schema = pa.schema(fields, metadata={b"pandas": pickle.dumps(canary)})
    table = pa.table({"text": ["good", "bad"], "label": ["a", "b"]}).cast(schema)
    parquet.write_table(table, tmp_path / "d.parquet")
    assert texts(tmp_path / "d.parquet").splits["train"]["text"][:] == ["good", "bad"]
    assert not canary.ran


def test_an_object_array_in_a_parquet_file_is_bytes(tmp_path, canary):
    table = pa.table({"text": ["good", "bad"], "label": ["a", "b"], "extra": [pickle.dumps(canary)] * 2})
    parquet.write_table(table, tmp_path / "d.parquet")
    texts(tmp_path / "d.parquet")
    assert not canary.ran


@pytest.fixture
def saved(tmp_path):
    datasets.Dataset.from_dict({"text": ["a secret"], "label": ["x"]}).save_to_disk(tmp_path / "other")
    whole = datasets.Dataset.from_dict({"text": ["good", "bad"], "label": ["a", "b"]})
    whole.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(tmp_path / "two")
    return tmp_path


@pytest.mark.parametrize("name", ["../other/data-00000-of-00001.arrow", "/etc/passwd", "a/../../other/data"])
@pytest.mark.parametrize("place", ["one", "two/train"])
def test_a_saved_dataset_names_its_own_files(saved, place, name):
    file = saved / place / "state.json"
    change_json(file, _data_files=[{"filename": name}])
    assert refused(texts, saved / place.split("/")[0]) == (
        f"{file} must refer only to files in its own folder. Got {name!r}. Save the dataset again."
    )


def test_a_saved_dataset_names_its_own_splits(saved):
    change_json(saved / "two" / "dataset_dict.json", splits=["train", "../other"])
    assert "Got '../other'" in refused(texts, saved / "two")
    assert len(texts(saved / "one").splits["train"]) == len(load_from_disk(str(saved / "one")))


def test_a_saved_dataset_with_a_pickle_for_its_state_is_refused(saved, canary):
    (saved / "one" / "state.json").write_bytes(pickle.dumps(canary))
    assert "must be readable as a saved dataset" in refused(texts, saved / "one")
    assert not canary.ran


def test_an_archive_under_another_name_is_not_unpacked(tmp_path, canary):
    with zipfile.ZipFile(tmp_path / "zip.csv", "w") as archive:
        archive.writestr(f"../../../../../../../../../..{canary.path}", "x")
    with tarfile.open(tmp_path / "tar.csv", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo(f"../../../../../../../../../..{canary.path}"), io.BytesIO(b""))
    assert refused(texts, tmp_path / "zip.csv").startswith("zip.csv must be a text file.")
    assert refused(texts, tmp_path / "tar.csv").startswith("tar.csv must")
    assert not canary.ran


def test_an_image_header_with_billions_of_pixels_is_not_decoded(tmp_path):
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert read_file(MODALITIES["image"], "bomb.png", tmp_path / "bomb.png").error


# output files


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1+1", "'+1+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("＝1+1", "'＝1+1"),  # noqa: RUF001
        ("-1", "-1"),
        ("+3.5e-7", "+3.5e-7"),
        ("soup = good", "soup = good"),
        ("007", "007"),
        ("", ""),
        (-1.5, -1.5),
        (None, None),
    ],
)
def test_a_formula_in_a_csv_file_is_text(text, cell):
    assert safe_cell(text) == cell


def test_formulas_in_names_and_classes_are_text(tmp_path):
    path, names = tmp_path / "p.csv", ("=1+1", "@b")
    with open_output(path, "single_label", names) as write:
        write(Prediction("=HYPERLINK(1)", "=1+1", 0.75, {"=1+1": 0.75, "@b": 0.25}))
        write(Prediction("+x", error="-x could not be read"))
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[1][:3] == ["'=HYPERLINK(1)", "'=1+1", "0.75"]
    assert rows[2][0] == "'+x" and rows[2][-1] == "'-x could not be read"
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]


def test_classes_and_names_are_escaped_in_a_card():
    hostile = "tea\r# Heading\u2028<img src=x onerror=alert(1)>`"
    stage = {"name": "head", "train": "head", "epochs": 1, "lr": 0.1}
    content = {"task": "image-classification", "model": "timm/x", "data": "x", "stages": [stage]}
    stage["balance"] = {"method": "class_weights", "weights": {"`````\n# Heading\n<script>": 2}}
    record = make_record(names=("cake", "soup", hostile))
    card = render_card(record, parse_recipe(content), {})
    body, _, recipe = card.partition("## Recipe")
    assert "\n# Heading" not in body
    assert not re.search(r"(?<!\\)<img", body)
    fence = recipe.split("yaml\n")[0].split()[-1]
    assert set(fence) == {"`"} and f"\n{fence}\n" in recipe.partition("yaml\n")[2] + "\n"
    assert fence not in recipe.partition("yaml\n")[2].rpartition(f"\n{fence}")[0]


def test_labels_do_not_become_code_of_a_space(tmp_path):
    folder = save_bert(tmp_path / SCRIPT.replace("/", "_"), names=(SCRIPT, "'''\nimport os"))
    write_space(folder, tmp_path / "space")
    plain = save_bert(tmp_path / "plain")
    write_space(plain, tmp_path / "plain-space")
    for name in ("app.py", "fields.py"):
        assert (tmp_path / "space" / name).read_text() == (tmp_path / "plain-space" / name).read_text()
    assert json.loads((tmp_path / "space" / "settings.json").read_text())["classes"] == [
        SCRIPT,
        "'''\nimport os",
    ]


@pytest.mark.defends(
    "hf_finetune.publishing.space:_check_link",
    why="A link to a file outside a checkpoint is not copied into a Space",
)
def test_a_link_to_a_file_outside_a_checkpoint_is_not_published(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    folder = save_bert(tmp_path / "run" / "model")
    (folder / "vocab.txt").symlink_to(secret)
    assert refused(write_space, folder, tmp_path / "space") == (
        f"{folder / 'vocab.txt'} must not be a link to a file outside of the checkpoint folder. Got "
        f"{str(secret)!r}. Replace the link by a copy of the "
        "file."
    )
    assert not (tmp_path / "space").exists()
    uploads, left = collect_uploads(tmp_path / "run", "me/model")
    assert "vocab.txt" in left and "vocab.txt" not in [upload.name for upload in uploads]


def test_the_metadata_of_an_onnx_file_must_be_json():
    described = dict.fromkeys(METADATA, "__import__('os').system('x')")
    with pytest.raises(json.JSONDecodeError):
        load_exported_classifier(None, described, lambda batch: np.zeros(1), 1)

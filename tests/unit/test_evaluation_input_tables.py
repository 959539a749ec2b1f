"""Tables for prediction are read like those of training."""

import gzip
import json
from pathlib import Path

import pytest
from PIL import Image

from hf_finetune.data.table_options import TableOptions
from hf_finetune.evaluation.input_tables import open_table
from hf_finetune.tasks import MODALITIES


def items(path, content, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = open_table(
        path, MODALITIES["text"], named={}, options=TableOptions(**options, fallback=True)
    ).items
    return [(item.id, item.content["text"] if item.content else item.error) for item in found]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.csv", "id;text\n007;a, b\n08;c\n"),
        ("r.tsv", "id\ttext\n007\ta, b\n08\tc\n"),
        ("r.csv.gz", gzip.compress(b'id,text\n007,"a, b"\n08,c\n', mtime=0)),
        ("r.csv", "id|text\n007|a, b\n08|c\n".encode("utf-16")),
        ("r.ndjson", '{"id": "007", "text": "a, b"}\n{"id": "08", "text": "c"}\n'),
        ("r.json", json.dumps({"id": {"0": "007", "1": "08"}, "text": {"0": "a, b", "1": "c"}})),
    ],
)
def test_every_form_keeps_ids_and_texts(tmp_path, name, content):
    assert items(tmp_path / name, content) == [("007", "a, b"), ("08", "c")]


def test_a_row_of_a_wrong_length_is_an_error_in_its_place(tmp_path):
    file = tmp_path / "r.csv"
    found = items(file, "text,stars\na,1\nb, c,2\n,3\nd,4,\n,\n")
    assert found == [
        (f"{file}:0", "a"),
        (f"{file}:1", "Line 3 has 3 cells, but the header has 2."),
        (f"{file}:2", "The text is empty."),
        (f"{file}:3", "d"),
    ]


def test_columns_of_training_are_used_if_inference_is_ambiguous(tmp_path):
    assert items(tmp_path / "a.csv", "text\ncafé\n".encode("cp1252"), encoding="cp1252")[0][1] == "café"
    assert items(tmp_path / "b.csv", "text\ncafé\n", encoding="cp1252")[0][1] == "café"
    assert items(tmp_path / "c.csv", "text,n|id\na,1|x\n", separator=",")[0][1] == "a"
    assert items(tmp_path / "d.csv", "text;n\na;1\n", separator=",")[0][1] == "a"


def test_files_are_found_from_a_table_that_is_named_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("photos")
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "soup.png")
    (folder / "rows.csv").write_text("image\nsoup.png\n", encoding="utf-8")
    (item,) = open_table(folder / "rows.csv", MODALITIES["image"], named={}).items
    assert item.error is None
    assert item.content.size == (4, 4)

"""Text files of cells: separators, quotes, headers, rows of wrong lengths, encodings."""

import gzip
import tracemalloc

import pytest

from hf_finetune.data.csv_files import open_rows
from hf_finetune.data.table_files import read_file, read_once
from hf_finetune.data.table_options import TableOptions
from hf_finetune.errors import InputError

GOOD = {"text": ["a, b", "c"], "label": ["pos", "neg"]}


def read(path, content, **options):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_file(path, TableOptions(**options))


def columns(path, content, **options):
    return read(path, content, **options).table.to_pydict()


def problem(path, content, **options):
    with pytest.raises(InputError) as error:
        read(path, content, **options)
    return str(error.value)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "r.csv"


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ('text,label\n"a, b",pos\nc,neg\n', None),
        ("text;label\na, b;pos\nc;neg\n", "semicolons"),
        ("text\tlabel\r\na, b\tpos\r\nc\tneg\r\n", "tabs"),
        ("text|label\ra, b|pos\rc|neg\r", "pipes"),
        ("\ufefftext;label\na, b;pos\nc;neg", "semicolons"),
        ("sep=;\ntext;label\na, b;pos\nc;neg", "semicolons"),
        ("\n\n text ;label\n\na, b;pos\n   \nc;neg\n\n\x1a", "semicolons"),
        ('"text"; "label"\n"a, b"; "pos"\n"c"; "neg"\n', "semicolons"),
    ],
)
def test_separators_that_the_header_shows(file, content, note):
    found = read(file, content)
    assert found.table.to_pydict() == GOOD
    told = f"r.csv: the cells are separated by {note}."
    assert (told in found.notes) == (note is not None)


def test_the_separator_of_a_tsv_is_the_tab_unless_it_has_none(tmp_path):
    assert columns(tmp_path / "r.tsv", "text\tlabel, x\na, b\tpos\n")["text"] == ["a, b"]
    found = read(tmp_path / "r.tsv", "text,label\nc,pos\n")
    assert found.notes == ("r.tsv: the cells are separated by commas.",)
    assert columns(tmp_path / "one.tsv", "text\na, b\n") == {"text": ["a, b"]}


def test_an_ambiguous_separator_must_be_set(file):
    ambiguous = "text,label|source\na,pos|x\nb,neg|x\n"
    assert problem(file, ambiguous) == (
        "r.csv must have an unambiguous separator. Got several candidates (commas: 2 cells, pipes: 2 "
        "cells). Set data.separator."
    )
    assert columns(file, ambiguous, separator=",") == {"text": ["a", "b"], "label|source": ["pos|x", "neg|x"]}
    assert columns(file, ambiguous, separator="|", fallback=True)["source"] == ["x", "x"]
    assert columns(file, "text;label\na;pos\n", separator=",", fallback=True)["label"] == ["pos"]
    assert columns(file, "text^label\na^pos\n", separator="^")["label"] == ["pos"]


def test_a_header_with_a_second_separator_is_resolved_by_the_rows(file):
    content = "text (good, bad)|label\na, b, c|pos\nd|neg\n"
    assert columns(file, content) == {"text (good, bad)": ["a, b, c", "d"], "label": ["pos", "neg"]}


def test_surplus_cells_are_left_out_if_empty_and_refused_if_filled(file):
    for content in ("text,label\na,pos,\nb,neg, ,\n", "text,label,\na,pos,\nb,neg,\n"):
        found = read(file, content)
        assert found.table.to_pydict() == {"text": ["a", "b"], "label": ["pos", "neg"]}
        assert found.notes == ("r.csv: empty cells after the last column were ignored.",)
    assert problem(file, 'text,label\na,pos\n"b\nb",neg\nc, d, and e,pos\nf\n') == (
        "r.csv must have 2 cells in each row, as in its header. Got 4 cells in line 5, 1 cell in line 6. Quote each "
        "cell that contains ',', or set data.separator if another character separates the cells."
    )
    assert problem(file, "text,label\na,pos\nb\n").endswith(
        "Got 1 cell in line 3. Write a separator for each empty cell, and quote each cell that contains a line "
        "break or a carriage return."
    )
    assert problem(file, "text,label\n1,a,pos\n2,b,neg\n").endswith(
        "If the first cell of each row is an index, add a name for that column to the header."
    )


def test_only_empty_cells_are_missing_and_zeros_stay(file):
    found = columns(file, 'id,text,label\n007,NA,\n1.0,null,"0"\n')
    assert found == {"id": ["007", "1.0"], "text": ["NA", "null"], "label": [None, "0"]}


def test_quoted_line_breaks_and_doubled_quotes(file):
    found = columns(file, 'text,label\n"one\ntwo, ""three""",pos\n5" pipe,neg\n')
    assert found == {"text": ['one\ntwo, "three"', '5" pipe'], "label": ["pos", "neg"]}


@pytest.mark.parametrize(
    ("name", "body", "texts", "note"),
    [
        ("r.csv", '"say \\"hi, you\\"",pos\nb,neg\n', ['say "hi, you"', "b"], "backslashes before quotes"),
        ("r.csv", '"Great" film,pos\n"b, c",neg\n', ["Great film", "b, c"], "stray quotes at the start"),
        ("r.tsv", '"Great film\tpos\n"b" c\tneg\n', ['"Great film', '"b" c'], "quotes do not enclose"),
        ("r.csv", '"Great film,pos\nb "c" d,neg\n', ['"Great film', 'b "c" d'], "quotes do not enclose"),
    ],
)
def test_quotes_that_enclose_no_cells_never_run_rows_together(tmp_path, name, body, texts, note):
    header = "text\tlabel\n" if name.endswith("tsv") else "text,label\n"
    found = read(tmp_path / name, header + body)
    assert found.table.to_pydict() == {"text": texts, "label": ["pos", "neg"]}
    assert note in found.notes[0]
    names, rows, notes = open_rows(tmp_path / name, TableOptions())
    assert (names, [cells[0] for _, cells in rows], tuple(notes)) == (["text", "label"], texts, found.notes)


def test_an_unclosed_quote_is_reported_by_its_first_line(file):
    assert problem(file, 'text,label\n"a, b",pos\n"c, d,neg\ne,pos\n') == (
        "r.csv must have quotes only around whole cells. Got an invalid quote in the record that begins in "
        "line 3 (unexpected end of data). Double each quote inside a quoted cell, and close each quoted "
        "cell."
    )


def test_headers(file):
    found = read(file, ",text, label \n0,a,pos\n1,b,neg\n")
    assert found.table.to_pydict() == {"Unnamed: 0": ["0", "1"], "text": ["a", "b"], "label": ["pos", "neg"]}
    assert found.notes == (
        "r.csv: spaces around column names were removed.",
        "r.csv: columns without a name are called 'Unnamed: 0'.",
    )
    found = read(file, "text,label\na,pos\ntext,label\nb,neg\n")
    assert found.table.to_pydict() == {"text": ["a", "b"], "label": ["pos", "neg"]}
    assert found.notes == ("r.csv: rows that repeat the header were skipped: line 3.",)
    found = read(file, "text,label,label\na,pos,1\nb,neg,2\n")
    assert found.table.column_names == ["text", "label", "label.1"]
    assert str(found.column_problems["label"]) == (
        "r.csv must have unique column names. Got 'label' 2 times. Rename all but one of them."
    )
    assert not read(file, "text,label,label\na,pos,pos\n").column_problems


def test_comments_before_the_header(file):
    found = read(file, "# made by us\n#\ntext,label\n#1 film,pos\n")
    assert found.table.to_pydict() == {"text": ["#1 film"], "label": ["pos"]}
    assert found.notes == ("r.csv: comment lines before the header were skipped: 2.",)
    assert columns(file, "#text,label\na,pos\n") == {"#text": ["a"], "label": ["pos"]}
    assert columns(file, "# made by us\n#text,label\na,pos\n") == {"#text": ["a"], "label": ["pos"]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a film,pos\nb film,pos\nc film,neg\nd film,pos\n", "'pos' also occurs in 2 rows below"),
        ("a film,3.5\nb film,2.5\n", "'3.5' is a number"),
    ],
)
def test_a_first_row_that_looks_like_data(file, content, reason):
    doubt = str(read(file, content).header_problem)
    assert doubt.startswith("r.csv must begin with a header line. Got 'a film', ")
    assert reason in doubt
    for header in ("text,label\n", "0,1\n"):
        assert read(file, header + content).header_problem is None


def test_empty_rows(file):
    found = read(file, "text,label\na,pos\n,\nb,neg\n,\n,\n")
    assert found.table.to_pydict() == {"text": ["a", None, "b"], "label": ["pos", None, "neg"]}
    assert found.notes == ("r.csv: empty rows at the end were skipped: 2.",)
    assert columns(file, 'text\na\n""\n') == {"text": ["a", None]}
    assert problem(file, "\n \n") == "r.csv must not be empty."


CAFE = "text,label\ncafé, crème".replace(", ", "; ") + ",pos\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_with_a_mark_and_utf_8_are_recognized(file, encoding):
    found = read(file, CAFE.encode(encoding))
    assert found.table.to_pydict() == {"text": ["café; crème"], "label": ["pos"]}
    assert found.notes == (() if encoding.startswith("utf-8") else (f"r.csv was read as {encoding}.",))


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("cp1252", "café €"), ("gbk", "很好的电影"), ("utf-16-le", "café"), ("cp1251", "фильм")],
)
def test_other_encodings_are_stated_and_never_guessed(file, encoding, text):
    content = f"text,label\nfilm,neg\n{text},pos\n".encode(encoding)
    assert columns(file, content, encoding=encoding)["text"] == ["film", text]
    told = problem(file, content)
    assert told.startswith("r.csv must be readable as UTF-8. Got ")
    assert f"data.encoding: {encoding}" in told or f"{encoding} reads " in told
    assert columns(file, content, encoding=encoding, fallback=True)["text"] == ["film", text]
    utf8 = content.decode(encoding).encode()
    assert columns(file, utf8, encoding=encoding, fallback=True)["text"] == ["film", text]


def test_an_encoding_that_the_file_does_not_have(file):
    assert problem(file, CAFE.encode("cp1252"), encoding="utf-8").startswith(
        "r.csv must be readable as UTF-8. Got invalid bytes in line 2. Save it again as UTF-8, or set "
        "data.encoding: cp1252 reads 'café; crème', "
    )
    assert problem(file, CAFE.encode("utf-8-sig"), encoding="cp1252") == (
        "data.encoding must be the encoding of r.csv. Got 'cp1252', but a byte-order mark of utf-8."
    )


def test_nul_bytes_and_files_of_another_kind_are_reported(file):
    assert problem(file, b"text,label\na,pos\nb\0,neg\n") == (
        "r.csv must not contain NUL bytes. Got a NUL byte in line 3. Remove it; if the file is UTF-16, set "
        "data.encoding: utf-16-le."
    )
    assert problem(file, b"PK\x03\x04...") == (
        "r.csv must be a text file. Got a zip archive or an Excel workbook. Unpack it, or rename it with "
        "the suffix .xlsx."
    )
    assert problem(file, b"<!DOCTYPE html>") == (
        "r.csv must be a text file. Got an HTML page. Download the file itself, not the page that shows it."
    )
    assert "Fetch the data with `git lfs pull`." in problem(
        file, b"version https://git-lfs.github.com/spec/v1\n"
    )


def test_compressed_files(tmp_path):
    content = gzip.compress(b"text\tlabel\na\tpos\n")
    assert columns(tmp_path / "r.tsv.gz", content) == {"text": ["a"], "label": ["pos"]}
    assert problem(
        tmp_path / "r.csv.gz", gzip.compress(b"text,label\n" + b"a,pos\n" * 1000)[:-20]
    ).startswith("r.csv.gz must be a complete and valid gzip file. Got EOFError")


@pytest.mark.slow
def test_long_texts_and_many_rows_in_little_memory(tmp_path):
    file = tmp_path / "r.csv"
    with file.open("w") as out:
        out.write("text,label\n" + "x" * 200_000 + ",0\n")
        out.writelines(f"film number {row},{row % 2}\n" for row in range(50_000))
    tracemalloc.start()
    table = read_file(file).table
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(table), len(table["text"][0].as_py())) == (50_001, 200_000)
    assert peak < 20_000_000  # bytes of Python objects: those of one chunk of rows


def test_rows_within_an_unclosed_quote_are_reported(file):
    rows = [f"{'ab'[i % 2]},text {i}" for i in range(20)]
    rows[3] = rows[3].replace("text", '"text')
    rows[14] += '"'
    found = read(file, "\n".join(["label,text", *rows]) + "\n")
    assert len(found.table) == 9
    (note,) = [note for note in found.notes if "can be read as separate rows" in note]
    assert "11 lines" in note and "line 5" in note


def test_texts_of_several_lines_are_not_taken_for_rows(file):
    found = read(file, "label,text\n" + 'a,"good,\nfine, cheap\nand more, too"\nb,"bad,\npoor, dear"\n' * 5)
    assert len(found.table) == 10
    assert not [note for note in found.notes if "separate rows" in note]


@pytest.mark.parametrize("cell", ["two\rlines", "two\nlines"])
def test_an_unquoted_line_break_is_not_mistaken_for_an_empty_cell(file, cell):
    assert "quote each cell that contains a line break" in problem(file, f"text,label\na,x\n{cell},y\nb,y\n")


@pytest.mark.parametrize("name", ["r.csv.gz", "r.jsonl.gz", "r.json.gz"])
def test_a_small_file_that_unpacks_to_very_much_is_refused(tmp_path, monkeypatch, name):
    row = (
        b"text,label\n" + b"0" * 10_000 + b",a\n"
        if "csv" in name
        else b'{"text": "' + b"0" * 10_000 + b'"}\n'
    )
    path = tmp_path / name
    path.write_bytes(gzip.compress(row * 400))
    monkeypatch.setattr("hf_finetune.data.text_files.MAX_UNPACKED_BYTES", 1_000_000)
    with pytest.raises(InputError) as error:
        read_file(path)
    assert str(error.value) == (
        f"{name} must unpack to at most {max(1, round(path.stat().st_size / 1e4))} MB. Got more from "
        f"{path.stat().st_size:,} compressed bytes. If you trust the file, unpack it yourself: other files "
        f"are not limited."
    )
    monkeypatch.undo()
    assert len(read_file(path).table) > 0


def test_within_a_block_a_file_is_read_once_for_each_choice_of_options(tmp_path):
    file, other_options = tmp_path / "t.csv", TableOptions(encoding="latin-1")
    file.write_text("text,label\né,x\n", encoding="utf-8")
    with read_once():
        first, other = read_file(file), read_file(file, other_options)
        file.write_text("text,label\nc,y\n", encoding="utf-8")
        assert read_file(file) is first
        assert read_file(file, other_options) is other
    assert (first.table["text"][0].as_py(), other.table["text"][0].as_py()) == ("é", "Ã©")
    assert read_file(file).table["text"].to_pylist() == ["c"]

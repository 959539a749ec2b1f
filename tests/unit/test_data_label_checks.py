"""Spellings of one class, contradictory labels, rows without a label, and weights."""

import csv
import json

import pytest
from data_helpers import prepare_data
from PIL import Image

from hf_finetune.data.label_checks import merge_variants, normalize_name, spellings
from hf_finetune.errors import InputError
from hf_finetune.targets.labels import TRAINING_LABEL, UNKNOWN
from hf_finetune.tasks import MODALITIES

ROWS = [(f"text {number}", ("ham", "spam")[number % 2]) for number in range(20)]


def write(path, rows, columns=("text", "label")):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return str(path)


def prepare(path, **options):
    return prepare_data(path, modality=MODALITIES["text"], **options)


def notes(path, word, **options):
    return [note for note in prepare(path, **options).notes if word in note]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("good", "Good"), ("good", " good "), ("good", "good."), ("hot dog", "hot  dog"), ("\u00e9", "e\u0301"),
        ("good", "good\u00a0"), ("\uff21\uff22", "ab"), ("Straße", "STRASSE"),
        ("good !", "good"), ("good", "good\u2003"),
    ],
)  # fmt: skip
def test_mere_spellings_of_a_class_are_alike(one, other):
    assert normalize_name(one) == normalize_name(other)


@pytest.mark.parametrize(
    ("one", "other"), [("c", "c++"), ("1", "01"), ("a", "b"), ("?", "!"), ("a-b", "ab"), ("1", "1.0")]
)
def test_other_classes_are_not(one, other):
    assert normalize_name(one) != normalize_name(other)


def test_spellings_are_grouped_and_merged_to_the_most_frequent():
    assert spellings({"Good": 2, " good": 3, "good": 9, "bad": 5}) == [["good", " good", "Good"]]
    merged, told = merge_variants(
        {"train": ["good", "good", "Good", "good ", "bad"], "test": [None, ["Bad", "bad"]]}
    )
    assert merged == {"train": ["good", "good", "good", "good", "bad"], "test": [None, ["bad"]]}
    assert told == ("Spellings of one class are merged: 'Good' (1) to 'good', 'good ' (1) to 'good', "
                    "'Bad' (1) to 'bad'.",)  # fmt: skip
    assert merge_variants({"test": ["GOOD"]}, known=["Good", "bad"])[0] == {"test": ["Good"]}


def test_spellings_are_reported_with_the_line_that_merges_them(tmp_path):
    rows = [(text, label.upper() if number < 3 else label) for number, (text, label) in enumerate(ROWS)]
    path = write(tmp_path / "r.csv", rows)
    (note,) = notes(path, "differ only", validation=0, test=0)
    assert note == (
        "Classes that differ only in case, spaces, hyphens, Unicode form or trailing punctuation: 'spam' "
        "(9) and 'SPAM' (1), 'ham' (8) and 'HAM' (2). To merge them, set columns: {label: {name: label, "
        "normalize: true}}."
    )
    merged = prepare(path, validation=0, test=0, columns={"label": {"name": "label", "normalize": True}})
    assert merged.label_names == ("ham", "spam")
    assert any("are merged: 'HAM' (2) to 'ham'" in note for note in merged.notes)


def test_one_text_with_several_labels_is_reported_with_its_rows(tmp_path):
    rows = [*ROWS, ("Text  0", "spam"), ("text 1", "spam"), ("text 2", "spam")]
    (note,) = notes(write(tmp_path / "r.csv", rows), "different labels")
    assert note == (
        "2 texts of train occur in 4 examples with different labels: 'train:0' (ham) and 'train:20' (spam), "
        "'train:2' (ham) and 'train:22' (spam). Correct or remove them: at most one label can be right."
    )


def test_one_image_in_two_class_folders_is_reported(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(8):
            Image.new("RGB", (8, 8), (number * 20, 50 if label == "cat" else 90, 0)).save(
                tmp_path / label / f"{number}.png"
            )
    (tmp_path / "dog" / "copy.png").write_bytes((tmp_path / "cat" / "3.png").read_bytes())
    data = prepare_data(str(tmp_path), modality=MODALITIES["image"])
    (note,) = [note for note in data.notes if "different labels" in note]
    assert note.startswith(
        "1 image of train occurs in 2 examples with different labels: 'cat/3.png' (cat) and"
    )


def test_several_labels_contradict_each_other_as_sets(tmp_path):
    rows = [("one", "a,b"), ("one", "b,a"), ("two", "a"), ("two", "a,b"), ("three", "b"), ("four", "a")]
    columns = {"label": {"name": "label", "separator": ","}}
    (note,) = notes(
        write(tmp_path / "r.csv", rows), "different labels", columns=columns, validation=0, test=0
    )
    assert "1 text of train occurs in 2 examples with different labels: 'train:2' ('a') and" in note


def test_rows_without_a_label_are_left_out_before_the_cut_on_request(tmp_path):
    rows = [*ROWS[:18], ("no label", ""), ("none either", " ")]
    path = write(tmp_path / "r.csv", rows)
    with pytest.raises(InputError, match="must contain a label in every row"):
        prepare(path)
    data = prepare(path, on_error="skip")
    assert "2 rows of train have no label and were skipped: 'train:18', 'train:19'." in data.notes
    assert sum(map(len, (data.train, data.validation, data.test))) == 18


def test_rows_are_dropped_without_writing_the_images_again(tmp_path):
    rows = [(text, "" if number % 5 == 0 else label) for number, (text, label) in enumerate(ROWS)]
    data = prepare(write(tmp_path / "r.csv", rows), on_error="skip", validation=0, test=0)
    assert data.train._indices is not None  # chosen from the table that was read, and not a copy of it
    known = [(text, label) for text, label in rows if label]
    assert [(row["text"], data.label_names[row["label"]]) for row in data.train] == known


def test_damaged_rows_do_not_take_a_class_out_of_a_split(tmp_path):
    """Three examples of a class, two of which are damaged: too few for three splits without the damaged ones."""
    rows = [*ROWS, ("rare one", "rare"), ("", "rare"), (" ", "rare")]
    path = write(tmp_path / "r.csv", rows)
    with pytest.raises(InputError, match=r"Each class must have at least 3 examples.*Got 'rare': 1\."):
        prepare(path, on_error="skip")
    enough = [
        *ROWS,
        *((f"rare {number}", "rare") for number in range(3)),
        *((" " * number, "rare") for number in range(9)),
    ]
    for seed in range(6):
        data = prepare(write(tmp_path / "e.csv", enough), on_error="skip", seed=seed)
        rare = data.label_names.index("rare")
        assert all(rare in split["label"] for split in (data.train, data.validation, data.test))


def test_a_split_whose_rows_are_all_left_out_is_refused(tmp_path):
    with pytest.raises(InputError, match="The train split must contain at least one usable example"):
        prepare(write(tmp_path / "r.csv", [("", "a"), (" ", "b")]), on_error="skip")


def test_weights_are_in_the_training_labels_and_reported(tmp_path):
    rows = [(text, label, 1 + number % 3) for number, (text, label) in enumerate(ROWS)]
    path = write(tmp_path / "r.csv", rows, ("text", "label", "w"))
    data = prepare(path, columns={"weight": "w"}, validation=0, test=0)
    assert data.train[4][TRAINING_LABEL] == [2.0, 0.0]
    assert data.train[5][TRAINING_LABEL] == [0.0, 3.0]
    assert (
        "Training examples are weighted in the loss by 'w': 1 to 3, mean 1.95. Metrics are not weighted."
        in data.notes
    )
    plain = prepare(path, validation=0, test=0)
    assert plain.fingerprint != data.fingerprint
    assert TRAINING_LABEL not in plain.train.column_names


@pytest.mark.parametrize("weight", ["-1", "", "heavy", "nan", "inf"])
def test_other_weights_name_their_row(tmp_path, weight):
    rows = [(text, label, weight if number == 7 else 1) for number, (text, label) in enumerate(ROWS)]
    with pytest.raises(
        InputError, match=r"data\.columns\.weight must be a column of nonnegative numbers.*train:7"
    ):
        prepare(write(tmp_path / "r.csv", rows, ("text", "label", "w")), columns={"weight": "w"})


def test_weights_are_of_single_label_data_and_some_are_above_0(tmp_path):
    zeros = write(tmp_path / "z.csv", [(*row, 0) for row in ROWS], ("text", "label", "w"))
    with pytest.raises(InputError, match="with a weight above 0 in train"):
        prepare(zeros, columns={"weight": "w"})
    amounts = write(
        tmp_path / "a.csv",
        [(text, 0.5 * len(text) + n, 1) for n, (text, _) in enumerate(ROWS)],
        ("text", "label", "w"),
    )
    with pytest.raises(InputError, match="must not be set unless each example has exactly one class"):
        prepare(amounts, columns={"weight": "w"})


def test_one_hot_columns_with_gaps_keep_unknown_labels_in_splits_and_folds(tmp_path):
    rows = [(f"text {n}", n % 2, "" if n % 5 == 0 else n % 3 % 2) for n in range(30)]
    path = write(tmp_path / "r.csv", rows, ("text", "odd", "third"))
    data = prepare(path, columns={"label": ["odd", "third"]})
    assert data.label_names == ("odd", "third")
    for split in (data.train, data.validation, data.test):
        for row in split:
            number = int(row["text"].split()[1])
            third = number % 5 != 0 and number % 3 % 2
            assert row["label"] == [0] * (number % 2) + [1] * third
            assert row[UNKNOWN] == ([1] if number % 5 == 0 else [])


def test_a_split_with_some_of_the_columns_of_classes_is_refused(tmp_path):
    write(tmp_path / "train.csv", [(f"t {n}", n % 2, n % 3 % 2) for n in range(9)], ("text", "a", "b"))
    write(tmp_path / "test.csv", [(f"u {n}", n % 2) for n in range(9)], ("text", "a"))
    with pytest.raises(
        InputError,
        match=r"The test split must have all columns of data\.columns\.label, or none\. Got no column 'b'",
    ):
        prepare(str(tmp_path), columns={"label": ["a", "b"]}, validation=0)


def test_lists_of_json_and_parquet_and_mappings_of_probabilities(tmp_path):
    lines = [{"text": f"t {n}", "label": {"a": n % 5 / 4, "b": 1 - n % 5 / 4}} for n in range(20)]
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    data = prepare(str(path), validation=0, test=0)
    assert (data.target, data.label_names) == ("single_label", ("a", "b"))
    assert data.train[3][TRAINING_LABEL] == [0.75, 0.25]
    assert data.train["label"][:4] == [1, 1, 0, 0]


def test_hyphens_underscores_and_invisible_characters_make_no_other_class():
    names = ["very good", "very-good", "Very_good", "very\u200b good", "very\u2013good"]
    assert spellings(dict.fromkeys(names, 1)) == [sorted(names)]
    assert spellings(dict.fromkeys(["-1", "1", "1-2", "1 2", "c", "c-", "verygood", "very good"], 1)) == []

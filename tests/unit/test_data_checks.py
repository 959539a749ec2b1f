import io

import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from hf_finetune.data.checks import (
    check_class_counts,
    check_duplicates_across_splits,
    check_groups,
    check_labels,
    check_readable,
)
from hf_finetune.data.tables import Table, hash_rows


def png(color="red", size=(8, 8)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def image_table(images, ids=None):
    ids = ids or [f"train:{row}" for row in range(len(images))]
    features = Features({"id": Value("string"), "image": ImageFeature(decode=False)})
    data = Dataset.from_dict({"id": ids, "image": images}, features=features).cast_column(
        "image", ImageFeature()
    )
    return hash_rows(Table(data, tuple(ids), (0,) * len(ids), None))


def text_table(texts, pairs=None, labels=None, split="train", groups=None):
    ids = [f"{split}:{row}" for row in range(len(texts))]
    columns = {"id": ids, "text": texts} | ({} if pairs is None else {"text_pair": pairs})
    data = Dataset.from_dict(columns, features=Features({name: Value("string") for name in columns}))
    return hash_rows(Table(data, tuple(ids), tuple(labels or [0] * len(ids)), None, groups))


def embedded(data):
    return {"bytes": data, "path": None}


def lines(problems):
    return [str(problem) for problem in problems]


def test_unreadable_images_are_reported_with_the_reason(tmp_path):
    truncated = png(size=(64, 64))[:-60]
    missing = {"bytes": None, "path": str(tmp_path / "gone.png")}
    images = [embedded(data) for data in (png(), b"", b"no image", truncated)] + [missing, None]
    ids = ["good", "empty", "text", "truncated", "gone", "null"]
    table = image_table(images, ids)
    kept, notes, problems = check_readable({"train": table}, skip=False)
    repair = "Replace or remove it, or set data.on_error: skip."
    assert lines(problems) == [
        f"empty must contain a readable image. Got an empty file. {repair}",
        f"text must contain a readable image. Got a file in an unknown format. {repair}",
        "truncated must contain a readable image. "
        f"Got a damaged file (OSError: image file is truncated). {repair}",
        f"gone must contain a readable image. Got no such file. {repair}",
        f"null must contain a readable image. Got no image in this row. {repair}",
    ]
    assert (len(kept["train"]), notes) == (6, [])
    kept, notes, problems = check_readable({"train": table}, skip=True)
    assert kept["train"].ids == ("good",)
    assert kept["train"].dataset["id"][:] == ["good"]
    assert notes == [
        "'empty' was skipped: an empty file.",
        "'text' was skipped: a file in an unknown format.",
        "'truncated' was skipped: a damaged file (OSError: image file is truncated).",
        "'gone' was skipped: no such file.",
        "'null' was skipped: no image in this row.",
    ]
    assert problems == []


def test_at_most_20_are_named():
    table = image_table([embedded(b"x")] * 23 + [embedded(png())])
    _, _, problems = check_readable({"train": table}, skip=False)
    assert len(problems) == 21
    assert str(problems[-1]) == (
        "3 more rows must contain a readable image. Replace or remove them, or set data.on_error: skip."
    )
    _, notes, _ = check_readable({"train": table}, skip=True)
    assert len(notes) == 21
    assert notes[-1] == "3 more were skipped for similar reasons."


def test_empty_texts():
    table = text_table(["good", "", " \n", None, "fair"], ["a", "b", "c", None, ""])
    _, _, problems = check_readable({"train": table}, skip=False)
    repair = "Replace or remove it, or set data.on_error: skip."
    assert lines(problems) == [
        f"train:1 must contain text. Got an empty text. {repair}",
        f"train:2 must contain text. Got an empty text. {repair}",
        f"train:3 must contain text. Got an empty text and text_pair. {repair}",
        f"train:4 must contain text. Got an empty text_pair. {repair}",
    ]
    kept, _, problems = check_readable({"train": table}, skip=True)
    assert (kept["train"].ids, problems) == (("train:0",), [])


def test_the_same_text_in_two_splits():
    train = text_table(["A  good film", "bad", "new"])
    test = text_table(["a good\tFilm", "fair", "bad"], split="test")
    kept, notes, problems = check_duplicates_across_splits({"train": train, "test": test}, skip=False)
    assert lines(problems) == [
        "The data must not contain the same example in train and test. Got 'train:0' = 'test:0', 'train:1' "
        "= 'test:2'. Remove one of each, or set data.on_error: skip to remove them from train."
    ]
    kept, notes, problems = check_duplicates_across_splits({"train": train, "test": test}, skip=True)
    assert (kept["train"].ids, len(kept["test"]), problems) == (("train:2",), 3, [])
    assert notes == [
        "Examples of train that are also in test were removed from train: 'train:0' = 'test:0', 'train:1' "
        "= 'test:2'."
    ]


def test_pairs_are_equal_if_both_texts_are():
    train = text_table(["a b", "a"], ["c", "b"])
    test = text_table(["a", "a"], ["b c", "b"], split="test")
    _, _, problems = check_duplicates_across_splits({"train": train, "test": test}, skip=False)
    assert [problem.value for problem in problems] == ["'train:1' = 'test:1'"]


def test_empty_texts_are_not_copies_of_each_other():
    tables = {"train": text_table(["", "a"]), "test": text_table(["", "b"], split="test")}
    assert check_duplicates_across_splits(tables, skip=False)[2] == []


def test_the_same_image_in_two_splits_and_copies_within_one():
    train = image_table([embedded(png("red")), embedded(png("blue")), embedded(png("blue"))])
    test = image_table([embedded(png("green")), embedded(png("blue"))], ["test:0", "test:1"])
    _, _, problems = check_duplicates_across_splits({"train": train, "test": test}, skip=False)
    assert [problem.value for problem in problems] == ["'train:1' = 'test:1', 'train:2' = 'test:1'"]
    assert check_duplicates_across_splits({"train": train}, skip=False) == ({"train": train}, [], [])


def test_every_two_splits_are_compared():
    tables = {split: text_table([split, "same"], split=split) for split in ("train", "validation", "test")}
    _, _, problems = check_duplicates_across_splits(tables, skip=False)
    assert [problem.rule for problem in problems] == [
        "must not contain the same example in train and test",
        "must not contain the same example in validation and test",
        "must not contain the same example in train and validation",
    ]
    kept, _, _ = check_duplicates_across_splits(tables, skip=True)
    assert {split: table.ids for split, table in kept.items()} == {
        "train": ("train:0",),
        "validation": ("validation:0",),
        "test": ("test:0", "test:1"),
    }


def test_classes_with_too_few_examples_to_cut():
    # The second "c" is a copy of the first: they stay together, so they count once.
    table = text_table(["1", "2", "3", "4", "5", "5"], labels=[0, 0, 0, 1, 2, 2])
    problems = check_class_counts(table, "single_label", ["a", "b", "c"], {"validation": 0.1, "test": 0.1})
    assert lines(problems) == [
        "Each class must have at least 3 examples, one for each of train, validation, test. Got 'b': 1, 'c': 1. "
        "Add examples, set data.split.validation and data.split.test to 0, or set data.split.stratify: false."
    ]
    assert check_class_counts(table, "single_label", ["a", "b", "c"], {}) == []


def test_classes_that_look_like_continuous_targets_are_reported():
    table = text_table(["1", "2", "3", "4", "5"], labels=[0, 1, 2, 2, 3])
    hint = "If the labels are continuous values, set data.target: regression. Otherwise "
    for names, amounts in (
        (["5", "42", "-79", "1000"], True),
        (["5", "42", "\u22120.38", "1000"], True),
        (["5", "42", "116", "<1"], True),
        (["5", "b", "c", "d"], False),
        (["005", "042", "079", "116"], False),
    ):
        found = check_class_counts(table, "single_label", names, {"test": 0.1})[0].repair
        assert found.startswith(f"{hint}add examples, set" if amounts else "Add examples, set")
        test = text_table(["6", "7"], labels=[0, 3])
        tables = {"train": table.take([0, 1, 2, 3]), "test": test}
        unseen = check_labels(tables, "single_label", names)[1][0].repair
        assert unseen == (f"{hint}add" if amounts else "Add") + " examples of them to train, or remove them."
    many = text_table([*"123456"], labels=[0, 0, 0, 1, 1, 2])
    assert check_class_counts(many, "single_label", ["1", "2", "3"], {"test": 0.1})[0].repair.startswith(
        "Add"
    )


def test_labels_of_lists_are_counted_one_by_one():
    table = text_table(["1", "2", "3"], labels=[[0, 1], [0], []])
    problems = check_class_counts(table, "multi_label", ["a", "b"], {"test": 0.1})
    assert [problem.value for problem in problems] == ["'b': 1"]


def test_groups():
    train = text_table(["a", "b", "c"], groups=("x", "y", None))
    test = text_table(["d"], split="test", groups=("y",))
    assert lines(check_groups({"train": train, "test": test}, needed=3)) == [
        "The group column must have a value in every row. Got empty cells in 'train:2'. Add a group to "
        "these rows, or remove them.",
        "The data must not have the same group in train and test. Got 'y'. Remove those rows from train, "
        "or remove data.split.group from the recipe.",
        "data.split.group must have at least 3 groups in train for 3 splits. Got 2. Reduce the number of "
        "splits, or choose another column.",
    ]
    fine = {"train": text_table(["a", "b"], groups=(1, 2)), "test": text_table(["d"], groups=(3,))}
    assert check_groups(fine, needed=2) == []


def test_classes_of_one_split_only():
    tables = {
        "train": text_table(["1", "2", "3"], labels=[0, 1, 2]),
        "test": text_table(["4", "5"], labels=[0, 3]),
    }
    notes, problems = check_labels(tables, "single_label", ["a", "b", "c", "d"])
    assert notes == ["Classes of train that are not in test: 'b', 'c'."]
    assert lines(problems) == [
        "The test split must contain only classes that are also in train. Got 'd'. Add examples of them to "
        "train, or remove them."
    ]


@pytest.mark.parametrize(
    ("target", "labels", "rule", "value"),
    [
        ("single_label", [0, 0], "two classes", "'a'"),
        ("multi_label", [[], []], "two classes", "none"),
        ("multi_label", [[0], []], "two classes", "'a'"),
        ("regression", [0.5, 0.5], "two different values", "0.5"),
    ],
)
def test_too_few_classes_are_refused(target, labels, rule, value):
    names = ["a", "b"] if target == "single_label" else ["a"]
    _, problems = check_labels({"train": text_table(["1", "2"], labels=labels)}, target, names)
    assert lines(problems) == [f"The label column must contain at least {rule} in train. Got {value}."]


def test_empty_splits():
    tables = {"train": text_table([]), "test": text_table([], split="test")}
    assert lines(check_labels(tables, "single_label", ["a", "b"])[1]) == [
        "The train split must not be empty.",
        "The test split must not be empty.",
    ]

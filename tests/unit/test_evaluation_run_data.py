"""The examples of a run are located in data that has changed: pure functions on hashes and small tables."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from removals import always

from hf_finetune.data.content_hashes import write_hashes
from hf_finetune.data.recipe_data import load_data
from hf_finetune.errors import InputError, MissingSplitError
from hf_finetune.evaluation.run_data import load_run_split, match_rows
from hf_finetune.recipe.load import parse_recipe

ROWS = [f"film {number} is {word},{word}" for number in range(20) for word in ("good", "bad")]
KEYS = {letter: f"{index:016x}" + 48 * "f" for index, letter in enumerate("abcdef", 1)}


def hashes(letters):
    return np.sort(np.array([int(KEYS[letter][:16], 16) for letter in letters], dtype=np.uint64))


@pytest.mark.parametrize(
    ("there", "rows", "new"),
    [
        ("abcd", [2, 3], 0),
        ("dcba", [0, 1], 0),
        ("abcdef", [2, 3], 2),
        ("eabcdf", [3, 4], 2),
        ("abd", [2], 0),
        ("ab", [], 0),
        ("abccd", [2, 4], 1),  # a further copy of a test example
        ("aabcd", [3, 4], 1),  # and of a training example
    ],
)
def test_examples_are_matched_by_their_contents(there, rows, new):
    known = {"train": hashes("ab"), "test": hashes("cd")}
    assert match_rows([KEYS[letter] for letter in there], known, "test") == (rows, new)


def test_copies_within_a_split_are_all_found():
    known = {"train": hashes("aab"), "test": hashes("ccd")}
    assert match_rows([KEYS[letter] for letter in "cdabcac"], known, "test") == ([0, 1, 4], 1)
    assert match_rows([None, KEYS["c"]], known, "test") == ([1], 1)


class Case:
    """The table of a run, and the files of the run; no model is trained."""

    def __init__(self, folder, rows, header="text,label", **data):
        self.path, self.run = folder / "rows.csv", folder / "run"
        self.header = header
        self.write(rows)
        self.run.mkdir()
        content = {"task": "text-classification", "model": "m", "data": {"path": str(self.path), **data}}
        stages = [{"name": "head", "train": "head", "epochs": 1, "lr": 0.1}]
        self.recipe = parse_recipe({**content, "stages": stages})
        self.keep()
        self.model = SimpleNamespace(
            task="text-classification", target=self.data.target, label_names=self.data.label_names
        )

    def keep(self):
        """Load the data, and write the data files of a run."""
        self.data = load_data(self.recipe)
        write_hashes(self.run / "examples.npz", self.data.hashes)
        manifest = {"stages": [], "fingerprints": {"data": self.data.fingerprint}, "versions": {}, "seed": 0}
        (self.run / "manifest.json").write_text(json.dumps({**manifest, "changes": []}), encoding="utf-8")

    def write(self, rows):
        self.path.write_text("\n".join([self.header, *rows]) + "\n", encoding="utf-8")

    def found(self, rows, split="test"):
        """Return the inputs and labels of a split in other rows, and the messages."""
        self.write(rows)
        found = load_run_split(self.run, self.recipe, self.model, split)
        return labelled(found.dataset), found.changed


def labelled(dataset):
    feature = dataset.features["label"]
    names = getattr(getattr(feature, "feature", feature), "names", None)

    def named(label):
        if isinstance(label, list):
            return tuple(names[index] for index in label)
        return label if names is None else names[label]

    rows = zip(dataset["text"], dataset["label"], strict=True)
    return sorted((text, named(label)) for text, label in rows)


def test_unchanged_data_is_cut_as_before(tmp_path):
    case = Case(tmp_path, ROWS)
    for split in ("train", "validation", "test"):
        expected = labelled(getattr(case.data, split))
        assert case.found(ROWS, split) == (expected, None)


@pytest.mark.parametrize("split", ["train", "test"])
def test_corrected_labels_are_reported_and_used(tmp_path, split):
    case = Case(tmp_path, ROWS, split={"validation": 0.2, "test": 0.2, "stratify": False})
    text, label = labelled(getattr(case.data, split))[0]
    other = {"good": "bad", "bad": "good"}[label]
    found, changed = case.found(
        [row if row != f"{text},{label}" else f"{text},{other}" for row in ROWS], split
    )
    assert dict(found) == dict(labelled(getattr(case.data, split))) | {text: other}
    assert changed == (
        f"The data has changed since the run, but not the inputs of its {split} split, which is evaluated with the "
        "current labels."
    )


@pytest.mark.defends(
    "hf_finetune.evaluation.run_data:_same_inputs",
    why="A run whose data has changed is evaluated on its own examples",
    by=always,
)
def test_rows_beyond_a_limit_are_no_test_examples(tmp_path):
    case = Case(tmp_path, ROWS, limit=3, split={"validation": 0.2, "test": 0.2})
    before = labelled(case.data.test)
    assert len(before) == 3
    assert case.found(ROWS) == (before, None)
    found, changed = case.found(ROWS[::-1])
    assert found == before
    assert changed.endswith("31 new examples are ignored; use --data to include them.")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_fold_finds_its_own_examples(tmp_path, split):
    case = Case(tmp_path, ROWS, split={"fold": "2/4", "test": 0})
    before = labelled(getattr(case.data, split))
    assert case.found(ROWS, split) == (before, None)
    found, changed = case.found(ROWS[::-1], split)
    assert found == before and "left out" not in (changed or "")


def test_groups_are_kept_apart_as_they_were(tmp_path):
    rows = [f"{row},{number // 4}" for number, row in enumerate(ROWS)]
    case = Case(tmp_path, rows, "text,label,writer", split={"group": "writer"})
    before = labelled(case.data.test)
    found, changed = case.found([*rows[::-1], "a new film,good,99"])
    assert found == before and changed.endswith(" 1 new example is ignored; use --data to include it.")


def test_continuous_targets_and_lists_are_matched_with_their_labels(tmp_path):
    amounts = [f"film {number},{number * 1.25 + 0.5}" for number in range(30)]
    (tmp_path / "amounts").mkdir()
    case = Case(tmp_path / "amounts", amounts)
    before = labelled(case.data.test)
    assert case.found(amounts[::-1])[0] == before and case.data.target == "regression"
    labels = ("fun", "fun;sad", "sad")
    lists = [f"film {number},{labels[number % 3]}" for number in range(30)]
    (tmp_path / "lists").mkdir()
    columns = {"label": {"name": "label", "separator": ";"}}
    case = Case(tmp_path / "lists", lists, columns=columns)
    before = labelled(case.data.test)
    assert case.data.target == "multi_label"
    found, changed = case.found(["a plot,dull;fun", "another,dull", "a third,dull", *lists[::-1]])
    assert found == before and "3 new examples are ignored" in changed


def test_labels_of_another_kind_or_class_are_refused(tmp_path):
    case = Case(tmp_path, ROWS)
    with pytest.raises(InputError) as caught:
        case.found([row.replace(",good", ",fine") for row in ROWS[::-1]])
    assert str(caught.value) == (
        "The labels of the run's examples must be classes of the model. Got 'fine'. Restore the data of "
        "the run, or evaluate on other data with --data."
    )
    with pytest.raises(
        InputError, match=r"The labels must be single_label, like those of the model\. Got regression\."
    ):
        case.found([f"{row.split(',')[0]},{number}.5" for number, row in enumerate(ROWS[::-1])])


def test_a_split_file_may_grow_and_rows_may_be_reordered(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()

    def write(**splits):
        for name, rows in splits.items():
            (folder / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")

    write(train=ROWS[:30], test=ROWS[30:])
    case = Case(tmp_path, ROWS)
    case.recipe = parse_recipe({**case.recipe.model_dump(mode="json"), "data": {"path": str(folder)}})
    case.keep()
    before = labelled(case.data.test)
    assert case.found(ROWS) == (before, None)
    write(train=[*ROWS[:30], ROWS[35]], test=[*ROWS[30:35], *ROWS[36:], "a new plot,good"])
    found, changed = case.found(ROWS)
    assert found == before and "all 10. 1 new example is ignored" in changed


def test_unusable_data_is_reported_as_before(tmp_path):
    case = Case(tmp_path, ROWS)
    case.write(["a film,good"] * 3)
    with pytest.raises(InputError) as caught:
        load_run_split(case.run, case.recipe, case.model, "test")
    with pytest.raises(InputError) as expected:
        load_data(case.recipe)
    assert str(caught.value) == str(expected.value)


def test_a_split_that_the_run_did_not_have_is_not_its_own(tmp_path):
    case = Case(tmp_path, ROWS, split={"validation": 0.2, "test": 0})
    with pytest.raises(MissingSplitError) as caught:
        case.found(ROWS)
    assert (
        str(caught.value) == "--split must be a split of the run. Got 'test'. Known: 'train', 'validation'."
    )


def test_a_split_that_the_run_did_not_have_is_missing_in_unusable_data_too(tmp_path):
    case = Case(tmp_path, ROWS, split={"validation": 0.2, "test": 0})
    with pytest.raises(MissingSplitError) as caught:
        case.found(["a film,good"] * 3)
    assert (
        str(caught.value) == "--split must be a split of the run. Got 'test'. Known: 'train', 'validation'."
    )


def test_without_hashes_the_fingerprint_decides(tmp_path):
    case = Case(tmp_path, ROWS)
    (case.run / "examples.npz").unlink()
    before = labelled(case.data.test)
    assert case.found(ROWS) == (before, None)
    with pytest.raises(
        InputError,
        match=r"The data has changed since the run, which stores no examples.npz.*\. Restore the data of the run",
    ):
        case.found(ROWS[::-1])
    note = (
        "The run has no examples.npz, so it is unknown whether the examples of its test split have changed."
    )
    manifest, plain = case.run / "manifest.json", case.recipe
    adapted = {"domain_adaptation": {"method": "dann", "target": "t.csv"}}
    case.recipe = parse_recipe({**plain.model_dump(mode="json"), **adapted})
    manifest.write_text('{"fingerprints": {"data": "of both domains"}}', encoding="utf-8")
    assert case.found(ROWS) == (before, note)
    case.recipe = plain
    for content in ("{}", "cut off"):
        manifest.write_text(content, encoding="utf-8")
        assert case.found(ROWS) == (before, note)


def test_examples_without_hashes_are_not_taken_for_unchanged(tmp_path):
    case = Case(tmp_path, ROWS)
    write_hashes(case.run / "examples.npz", dict.fromkeys(case.data.hashes, hashes("")))
    assert case.found(ROWS) == (labelled(case.data.test), None)
    message = r"The data has changed since the run, which stores no hashes to identify its examples\."
    with pytest.raises(InputError, match=message):
        case.found(ROWS[::-1])

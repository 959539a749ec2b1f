"""A run whose data has changed is evaluated on its own examples, located by content hashes, or not at all."""

import logging
import random
import shutil

import pytest
from PIL import Image
from run_helpers import quick_run, refusal, tiny_image_recipe, tiny_text_recipe

from hf_finetune.evaluation.evaluate_run import evaluate, load_labeled
from hf_finetune.evaluation.finished import load_finished
from hf_finetune.publishing.export import export

ROWS = [f"a {word} film {number},{word}" for number in range(20) for word in ("good", "bad")]
NEW = ["some good good plot,good", "some bad bad plot,bad"]


def write_rows(path, rows):
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def texts(tmp_path_factory, bert_checkpoint):
    folder = tmp_path_factory.mktemp("texts")
    write_rows(folder / "rows.csv", ROWS)
    recipe = tiny_text_recipe(folder / "rows.csv", bert_checkpoint)
    run = quick_run(recipe, folder / "run").folder
    return run, folder / "rows.csv", set(own(run)["text"])


@pytest.fixture(autouse=True)
def rows_as_they_were(texts):
    yield
    write_rows(texts[1], ROWS)


def own(run, split=None):
    return load_labeled(run, load_finished(run), split=split)


def told(caplog, run, split=None):
    """Return the texts of a run's split, and the messages about them."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="hf_finetune"):
        found = own(run, split)
    return found, [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def shuffled(rows, seed=0):
    return random.Random(seed).sample(rows, len(rows))


@pytest.mark.parametrize("rows", [sorted(ROWS), shuffled(ROWS), shuffled(ROWS, 1)])
def test_the_order_of_the_rows_does_not_matter(texts, caplog, rows):
    run, path, test = texts
    before = evaluate(run)
    assert before.changed is None
    write_rows(path, rows)
    found, notes = told(caplog, run)
    assert set(found["text"]) == test and len(found) == len(test) == 6
    assert notes == [
        "The data has changed since the run. The examples of the run's test split are identified by "
        "their content: all 6."
    ]
    after = evaluate(run)
    assert after.metrics == pytest.approx(before.metrics)
    assert after.changed == notes[0]


def test_further_examples_are_left_out_and_counted(texts, caplog):
    run, path, test = texts
    for rows in ([*ROWS, *NEW], [*NEW, *ROWS], shuffled([*ROWS, *NEW])):
        write_rows(path, rows)
        found, notes = told(caplog, run)
        assert set(found["text"]) == test
        assert notes == [
            "The data has changed since the run. The examples of the run's test split are identified by "
            "their content: all 6. 2 new examples are ignored; use --data to include them."
        ]
    copies = [row for row in ROWS if row.split(",")[0] in test][:1]
    write_rows(path, [*ROWS, *copies])
    assert sorted(own(run)["text"]) == sorted(test)


def test_a_new_class_is_left_out_too(texts, caplog):
    run, path, test = texts
    write_rows(path, ["a plot,awful", *ROWS])
    found, (note,) = told(caplog, run)
    assert set(found["text"]) == test
    assert note.endswith("1 new example is ignored; use --data to include it.")
    assert found.features["label"].names == ["bad", "good"]
    assert all(found.features["label"].int2str(row["label"]) in row["text"] for row in found)


def test_examples_that_are_gone_are_counted(texts, caplog):
    run, path, test = texts
    gone = sorted(test)[:2]
    write_rows(path, [row for row in ROWS if row.split(",")[0] not in gone])
    found, notes = told(caplog, run)
    assert set(found["text"]) == test - set(gone)
    assert notes == [
        "The data has changed since the run. The examples of the run's test split are identified by their "
        "content: 4 of 6; the rest was removed or edited."
    ]
    assert len(evaluate(run).ids) == 4


def test_a_run_is_not_evaluated_on_other_examples(texts):
    run, path, test = texts
    write_rows(path, [row for row in ROWS if row.split(",")[0] not in test])
    assert refusal(lambda: evaluate(run)) == (
        "The data contains none of the 6 examples of the run's test split. Restore the data of the "
        "run, or evaluate on other data with --data."
    )


def test_a_run_without_hashes_takes_only_its_own_data(texts, tmp_path, caplog):
    run, path, test = texts
    older = shutil.copytree(run, tmp_path / "run")
    (older / "examples.npz").unlink()
    found, notes = told(caplog, older)
    assert (set(found["text"]), notes) == (test, [])
    write_rows(path, sorted(ROWS))
    assert refusal(lambda: evaluate(older)) == (
        "The data has changed since the run, which stores no examples.npz to identify its examples. Restore "
        "the data of the run, or evaluate on other data with --data."
    )


def test_other_splits_are_found_as_well(texts, caplog):
    run, path, _ = texts
    before = {split: set(own(run, split)["text"]) for split in ("train", "validation")}
    write_rows(path, shuffled(ROWS))
    for split, expected in before.items():
        found, (note,) = told(caplog, run, split)
        assert set(found["text"]) == expected
        assert f"The examples of the run's {split} split are identified by their content" in note
    assert "Known: 'train', 'validation', 'test'." in refusal(lambda: own(run, "dev"))


def test_an_export_is_compared_on_the_runs_own_examples(texts, tmp_path, caplog):
    run, path, test = texts
    before = export(run, format="torch_export", output=tmp_path / "before").report["metrics"]["before"]
    write_rows(path, shuffled([*ROWS, *NEW]))
    after = export(run, format="torch_export", output=tmp_path / "after").report
    assert after["metrics"]["before"] == pytest.approx(before) and after["examples"] == len(test)
    assert "2 new examples are ignored" in caplog.text


def test_images_may_be_added_renamed_and_removed(tmp_path, timm_checkpoint, caplog):
    folder = tmp_path / "pictures"
    for shade, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            color = [10 * number + 3] * 3
            color[shade] = 220
            Image.new("RGB", (32, 32), tuple(color)).save(folder / name / f"{number}.png")
    run = quick_run(tiny_image_recipe(folder, timm_checkpoint), tmp_path / "run").folder
    before = {(folder / name).read_bytes() for name in own(run)["id"]}
    Image.new("RGB", (32, 32), (1, 2, 3)).save(folder / "red" / "00.png")
    (folder / "blue" / "0.png").rename(folder / "blue" / "99.png")
    found, (note,) = told(caplog, run)
    assert {(folder / name).read_bytes() for name in found["id"]} == before
    assert "1 new example is ignored" in note
    victim = found["id"][0]
    (folder / victim).unlink()
    found, (note,) = told(caplog, run)
    assert {(folder / name).read_bytes() for name in found["id"]} < before
    assert f"{len(before) - 1} of {len(before)}; the rest was removed or edited." in note


def test_unusable_examples_of_other_data_are_dropped_if_the_recipe_allows_it(texts, tmp_path):
    run, other = texts[0], tmp_path / "other.csv"
    write_rows(other, [*NEW, ",good"])

    def load(folder):
        return load_labeled(folder, load_finished(folder), data=str(other))["text"]

    assert "set data.on_error: skip" in refusal(lambda: load(run))
    copy = shutil.copytree(run, tmp_path / "run")
    recipe = (copy / "recipe.yaml").read_text(encoding="utf-8")
    (copy / "recipe.yaml").write_text(recipe.replace("on_error: fail", "on_error: skip"), encoding="utf-8")
    assert load(copy) == [row.partition(",")[0] for row in NEW]

"""Columns that training inferred are used by all commands on its model, also on a copy of its folder."""

import json
import shutil

import pytest
from run_helpers import quick_run, tiny_text_recipe

from hf_finetune.cli.app import app
from hf_finetune.errors import InputError
from hf_finetune.evaluation.evaluate_run import evaluate
from hf_finetune.evaluation.predict import predict
from hf_finetune.publishing.demo import prepare_page
from hf_finetune.publishing.space import write_space

ROWS = [f"this {word} film {number},a {word} plot,{word}" for number in range(20) for word in ("good", "bad")]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, bert_checkpoint):
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "rows.csv").write_text("\n".join(["premise,hypothesis,label", *ROWS]) + "\n", encoding="utf-8")
    return quick_run(tiny_text_recipe(folder / "rows.csv", bert_checkpoint), folder / "run"), folder


def test_a_model_folder_alone_knows_the_columns(pairs, tmp_path):
    done, folder = pairs
    shutil.copytree(done.folder / "model", tmp_path / "copy")
    (tmp_path / "new.csv").write_text("hypothesis,premise\na good plot,this film\n", encoding="utf-8")
    (tmp_path / "named.csv").write_text("text,text_pair\nthis film,a good plot\n", encoding="utf-8")
    found, named = predict(tmp_path / "copy", [str(tmp_path / "new.csv"), str(tmp_path / "named.csv")])
    assert found.scores == pytest.approx(named.scores)
    with pytest.raises(InputError, match="because the model takes pairs of texts"):
        predict(tmp_path / "copy", ["a film"])
    page = prepare_page(tmp_path / "copy", tmp_path)
    assert page.pairs
    write_space(tmp_path / "copy", tmp_path / "space")
    assert json.loads((tmp_path / "space" / "settings.json").read_text(encoding="utf-8"))["pairs"]
    assert '{"text": "some text", "text_pair"' in (done.folder / "model" / "README.md").read_text(
        encoding="utf-8"
    )
    assert evaluate(tmp_path / "copy", data=str(folder / "rows.csv")).seen is None


def test_evaluate_reports_which_examples_the_run_was_trained_on(pairs, tmp_path, capsys):
    done, folder = pairs
    found = evaluate(done.folder, data=str(folder / "rows.csv"), split="train")
    train, validation, test = (
        json.loads((done.folder / "data.json").read_text(encoding="utf-8"))["splits"][name]["examples"]
        for name in ("train", "validation", "test")
    )
    assert found.seen == {"train": train, "validation": validation, "test": test}
    new = ["premise,hypothesis,label", "THIS good  film 0,a good plot,good", "other,plot,bad", *ROWS[:0]]
    (tmp_path / "new.csv").write_text("\n".join(new) + "\n", encoding="utf-8")
    app(["evaluate", str(done.folder), "--data", str(tmp_path / "new.csv")], standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 2 examples were in the " in said and " split" in said
    app(["evaluate", str(done.folder), "--data", str(folder / "rows.csv")], standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"{train} of 40 examples were in the training split, {validation} in the validation split, {test} in the "
        "test split: the metrics do not measure performance on new examples."
    ) in said
    (tmp_path / "new.csv").write_text("premise,hypothesis,label\nother,plot,bad\n", encoding="utf-8")
    app(["evaluate", str(done.folder), "--data", str(tmp_path / "new.csv")], standalone_mode=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "None of the examples was in the training or validation split." in said

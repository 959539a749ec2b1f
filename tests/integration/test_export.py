"""``hf-finetune export`` of whole runs: the exported model gives the same answers."""

import json
import shutil
import sys
from functools import partial

import numpy as np
import pytest
from forked_cli import forked_cli
from run_helpers import refusal

from hf_finetune.evaluation.classifier import load_classifier
from hf_finetune.evaluation.evaluate import evaluate_model
from hf_finetune.evaluation.evaluate_run import load_labeled
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.publishing import export as export_module
from hf_finetune.publishing.export import ParityError, export
from hf_finetune.publishing.graph_export import load_onnx_classifier, load_program_classifier
from hf_finetune.publishing.parity import Parity


def needs_onnx():
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module)


load_program = partial(load_program_classifier, trust_remote_code=True)


@pytest.fixture(params=["image", "text"])
def finished(request, image_run, text_run):
    return (image_run if request.param == "image" else text_run)[1].folder


@pytest.mark.parametrize(("kind", "load"), [("onnx", load_onnx_classifier), ("torch_export", load_program)])
def test_predictions_are_those_of_the_run(tmp_path, finished, kind, load):
    if kind == "onnx":
        needs_onnx()
    result = export(finished, format=kind, output=tmp_path / "out")
    assert result.folder == tmp_path / "out"
    told = json.loads((result.folder / "export.json").read_text(encoding="utf-8"))
    assert told == result.report
    expected = read_predictions(finished / "predictions.parquet")
    assert told["examples"] == len(expected.ids)
    assert told["largest_difference"] <= 1e-3 * told["largest_logit"]
    assert told["same_answers"] == 1.0
    accuracy = json.loads((finished / "metrics.json").read_text(encoding="utf-8"))["test"]["accuracy"]
    assert told["metrics"]["before"]["accuracy"] == told["metrics"]["after"]["accuracy"] == accuracy
    assert all(told["bytes"][when] > 0 and told["milliseconds"][when] > 0 for when in ("before", "after"))

    dataset = load_labeled(finished, load_classifier(finished))
    found = evaluate_model(load(result.folder), dataset)
    assert found.ids == expected.ids
    assert found.scores == pytest.approx(expected.scores, abs=1e-4)


def test_int8_differences_are_reported_but_not_refused(tmp_path, finished):
    needs_onnx()
    result = export(finished, quantize="int8", output=tmp_path / "out")
    assert result.report["quantize"] == "int8"
    assert result.report["largest_difference"] > 0
    assert {file.name for file in result.folder.iterdir() if "onnx" in file.name} == {"model.onnx"}
    load_onnx_classifier(result.folder)


def test_an_export_into_the_runs_folder_can_be_repeated(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    first = export(run, format="torch_export")
    assert first.folder == run / "torch_export"
    names = {file.name for file in first.folder.iterdir()}
    assert {"model.pt2", "config.json", "export.json"} <= names
    assert export(run, format="torch_export").folder == first.folder
    assert {file.name for file in first.folder.iterdir()} == names
    assert (first.folder / "config.json").read_bytes() == (run / "model" / "config.json").read_bytes()


def test_a_bare_checkpoint_names_its_data_and_its_folder(finished, tmp_path, reviews, squares):
    model = shutil.copytree(finished / "model", tmp_path / "model")
    assert refusal(lambda: export(model, format="torch_export")) == (
        "--output must be set unless the model is a run directory."
    )
    out = tmp_path / "out"
    assert refusal(lambda: export(model, format="torch_export", output=out)) == (
        "--data is required unless the model is a run. Only a run records its data."
    )
    data = reviews if (model / "tokenizer.json").is_file() else squares
    result = export(model, format="torch_export", output=out, data=str(data))
    assert result.report["examples"] >= 36


def test_existing_files_in_a_folder_are_not_overwritten(tmp_path, text_run):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "thesis.txt").write_text("all of it", encoding="utf-8")
    told = refusal(lambda: export(text_run[1].folder, format="torch_export", output=folder))
    assert told == (
        f"--output must be a folder that is new or empty, or contains an earlier export. Got {str(folder)!r}."
    )
    assert (folder / "thesis.txt").read_text(encoding="utf-8") == "all of it"
    told = refusal(lambda: export(text_run[1].folder, format="torch_export", output=folder / "thesis.txt"))
    assert told == f"--output must be a folder. Got the file {str(folder / 'thesis.txt')!r}."


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"format": "onx"}, "--format must be one of onnx, torch_export. Got 'onx'. Nearest: 'onnx'."),
        ({"quantize": "int4"}, "--quantize must be int8. Got 'int4'."),
        (
            {"format": "torch_export", "quantize": "int8"},
            "--quantize must not be set unless the format is onnx. Got 'int8'.",
        ),
    ],
)
def test_unknown_choices_are_reported(tmp_path, choices, expected):
    assert refusal(lambda: export(tmp_path, **choices)) == expected


def test_without_the_packages_the_command_to_install_them_is_shown(monkeypatch, tmp_path, text_run):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    told = refusal(lambda: export(text_run[1].folder, output=tmp_path / "out"))
    assert told.startswith("--format onnx needs packages that are not installed: ")
    assert told.endswith("pip install 'hf-finetune[onnx]'.")
    assert not (tmp_path / "out").exists()


def test_an_export_with_different_answers_is_not_written(monkeypatch, tmp_path, text_run):
    found = Parity(6, 0.5, 2.0, 1.0, {"accuracy": 1.0}, {"accuracy": 1.0})
    monkeypatch.setattr(export_module, "compare_models", lambda *models: found)
    message = r"differ by up to 0\.5 from those of the original model \(largest logit: 2\);"
    with pytest.raises(ParityError, match=message):
        export(text_run[1].folder, format="torch_export", output=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_export_with_nan_logits_is_not_written(monkeypatch, tmp_path, text_run):
    found = Parity(6, np.nan, 2.0, 1.0, {}, {})
    monkeypatch.setattr(export_module, "compare_models", lambda *models: found)
    with pytest.raises(ParityError):
        export(text_run[1].folder, format="torch_export", output=tmp_path / "out")


def test_the_command_describes_the_exported_file(tmp_path, text_run):
    done = forked_cli(
        *("export", text_run[1].folder, "--format", "torch_export", "--output", tmp_path / "out")
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    accuracy = f"{told['metrics']['before']['accuracy']:.4f}"
    assert f"accuracy {accuracy} {accuracy}" in lines
    assert f"bytes {told['bytes']['before']:,} {told['bytes']['after']:,}" in lines
    assert f"The model, its labels and its preprocessing are in {tmp_path / 'out'}." in lines
    assert any("on 6 examples; the same prediction for 100.0%." in line for line in lines)

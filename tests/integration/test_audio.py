"""Recordings from the recipe to the page: fitted heads, augmented stages, predictions and faulty files."""

import csv
import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from run_helpers import quick_run
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

from hf_finetune.errors import InputError
from hf_finetune.evaluation.predict import predict
from hf_finetune.publishing.space import write_space
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.report.page import write_report
from hf_finetune.runs.preview import preview
from hf_finetune.tasks import MODALITIES

RATE = 8000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    MODALITIES["audio"].save_tiny_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Write tones of two pitches, of four speakers each, as FLAC and WAV files with a table."""
    folder, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    with (folder / "sounds.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label", "speaker"])
        for index in range(40):
            label, speaker = ("low", "high")[index % 2], index % 10 // 2
            times = np.arange(RATE // 2 + 100 * index) / RATE
            tone = np.sin(2 * np.pi * times * ({"low": 300, "high": 2000}[label] + 20 * speaker)) / 4
            name = f"{index}.{('flac', 'wav')[index % 3 == 0]}"
            soundfile.write(folder / name, tone + 0.01 * rng.standard_normal(len(times)), RATE)
            rows.writerow([name, label, f"speaker {speaker}"])
    return folder


def recipe(checkpoint, sounds, **changes):
    content = {
        "task": "audio-classification",
        "model": str(checkpoint),
        "data": {
            "path": str(sounds / "sounds.csv"),
            "split": {"group": "speaker", "test": 0.2, "validation": 0.2},
        },
        "strategy": "features",
    }
    return parse_recipe({**content, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory, checkpoint, sounds):
    return quick_run(recipe(checkpoint, sounds), tmp_path_factory.mktemp("run") / "run")


def test_a_head_is_fitted_to_the_best_layer(finished):
    fit = finished.metrics["stages"][0]["fit"]
    assert set(fit["layers"]) == {"layer 0", "layer 1", "last layer"}
    assert fit["layer"] == min(fit["layers"], key=fit["layers"].__getitem__)
    config = json.loads((finished.folder / "model" / "config.json").read_text(encoding="utf-8"))
    layers = json.loads((finished.folder / "manifest.json").read_text(encoding="utf-8"))["recipe"]["model"][
        "head"
    ]
    if fit["layer"] == "last layer":
        assert not config["use_weighted_layer_sum"] and layers["layers"] is None
    else:
        assert config["use_weighted_layer_sum"] and layers["layers"] == config["layer_sum_index"]
    assert finished.metrics["test"]["accuracy"] == 1.0
    assert set(finished.metrics["baselines"]) == {"majority", "log_mel", "linear_probe"}


@pytest.mark.parametrize("layer", [0, 1])
def test_a_named_layer_is_read_and_saved(tmp_path, checkpoint, sounds, layer):
    changes = {"model": {"path": str(checkpoint), "head": {"type": "linear", "layers": layer}}}
    result = quick_run(recipe(checkpoint, sounds, **changes), tmp_path / "run")
    assert result.metrics["test"]["accuracy"] == 1.0 and "layer" not in result.metrics["stages"][0]["fit"]
    model = AutoModelForAudioClassification.from_pretrained(result.folder / "model")
    assert int(model.layer_weights.argmax()) == layer
    assert model.layer_weights.softmax(-1).max() == 1


def test_predictions_are_those_of_the_plain_pipeline(finished, sounds):
    files = [str(sounds / name) for name in ("0.wav", "1.flac", "4.flac")]
    pipe = pipeline("audio-classification", model=str(finished.folder / "model"), top_k=None)
    rate = AutoFeatureExtractor.from_pretrained(finished.folder / "model").sampling_rate
    for prediction, file in zip(predict(finished.folder, files), files, strict=True):
        import soxr

        samples, own = soundfile.read(file, dtype="float32")
        expected = {entry["label"]: entry["score"] for entry in pipe(soxr.resample(samples, own, rate))}
        assert prediction.scores == pytest.approx(expected, abs=1e-5)


def test_a_file_that_is_no_recording_is_named(finished, sounds, tmp_path):
    (tmp_path / "broken.wav").write_bytes((sounds / "0.wav").read_bytes()[:1000])
    good, broken = predict(finished.folder, [str(sounds / "0.wav"), str(tmp_path / "broken.wav")])
    assert good.error is None
    assert broken.error.startswith("The audio cannot be read. It is a truncated file: ")


def test_the_report_plays_the_errors(tmp_path, finished):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    mistakes = [
        {
            "id": "a.wav",
            "label": "low",
            "prediction": "high",
            "confidence": 0.9,
            "audio": "data:audio/wav;base64,AA",
        }
    ]
    (folder / "mistakes.json").write_text(json.dumps(mistakes), encoding="utf-8")
    page = write_report(folder).read_text(encoding="utf-8")
    assert (
        '<audio controls preload="none" aria-label="Test example a.wav" src="data:audio/wav;base64,AA">'
        in page
    )
    assert "media-src data:" in page
    assert "log-mel statistics (logistic regression)" in page


def test_a_preview_has_players_and_spectrograms(tmp_path, checkpoint, sounds):
    changes = {"data": {**recipe(checkpoint, sounds).data.model_dump(mode="json"), "augment": {"shift": 0.1}}}
    page = preview(recipe(checkpoint, sounds, **changes), tmp_path / "page.html", examples=2, views=3)
    text = page.read_text(encoding="utf-8")
    assert text.count('<audio controls src="data:audio/wav;base64,') == 2
    assert text.count('<img alt="spectrogram" src="data:image/png;base64,') == 6


def test_a_space_crops_and_resamples(finished, tmp_path):
    write_space(finished.folder, tmp_path / "space")
    files = {path.name for path in (tmp_path / "space").iterdir()}
    assert {"app.py", "requirements.txt"} <= files
    needed = (tmp_path / "space" / "requirements.txt").read_text(encoding="utf-8")
    assert "soxr" in needed and "soundfile" in needed


def test_augmented_stages_train(tmp_path, checkpoint, sounds):
    augment = {"shift": 0.05, "gain": 3.0, "noise": 20.0, "time_mask": 0.1, "frequency_mask": 0.2}
    data = {**recipe(checkpoint, sounds).data.model_dump(mode="json"), "augment": augment, "crop": "random"}
    stages = [
        {"name": "head", "train": "head", "epochs": 2, "lr": 0.05},
        {"name": "all", "train": "all", "epochs": 1, "lr": 0.01},
    ]
    weighted = {"path": str(checkpoint), "head": {"type": "linear", "layers": "weighted"}}
    result = quick_run(
        recipe(checkpoint, sounds, data=data, stages=stages, model=weighted, strategy=None), tmp_path / "run"
    )
    model = AutoModelForAudioClassification.from_pretrained(result.folder / "model")
    assert model.layer_weights.std() > 0
    assert [stage["name"] for stage in result.metrics["stages"]] == ["head", "all"]


def test_a_layer_of_an_architecture_without_a_sum_is_refused(tmp_path, bert_checkpoint, reviews):
    content = {
        "task": "text-classification",
        "model": {"path": str(bert_checkpoint), "head": {"type": "linear", "layers": 1}},
        "data": str(reviews),
        "stages": [{"train": "head", "epochs": 1}],
    }
    with pytest.raises(
        InputError, match=r"model.head.layers must be last for an architecture without a weighted sum"
    ):
        quick_run(parse_recipe(content), tmp_path / "run")

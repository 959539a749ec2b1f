"""Speech recognition: runs of both families of models, their baselines, and what plain transformers makes of them."""

import numpy as np
import pytest
import soundfile
import transformers
from run_helpers import quick_run
from speech_data import write_speech

from hf_finetune.errors import InputError
from hf_finetune.evaluation.predict import predict
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.report.page import write_report
from hf_finetune.tasks import TASKS

TASK = "automatic-speech-recognition"
STAGE = {"epochs": 2.0, "lr": 0.01, "batch_size": 4}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    TASKS[TASK].modality.save_tiny_checkpoint(folder)
    return folder


def recipe_for(model, table, train="last:1", **fields):
    return parse_recipe(
        {
            "task": TASK,
            "model": model if isinstance(model, dict) else str(model),
            "data": {"path": str(table), "split": {"group": "speaker", "validation": 0.2, "test": 0.2}},
            "stages": [{"train": train, **STAGE}],
            **fields,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, whisper, table):
    cached = {"prefix_cache": {"views": 1}}
    return quick_run(recipe_for(whisper, table, speed=cached), tmp_path_factory.mktemp("run") / "run")


def pipeline_text(folder, wave):
    samples, rate = soundfile.read(wave, dtype="float32")
    pipe = transformers.pipeline(TASK, model=str(folder))
    return pipe({"raw": samples, "sampling_rate": rate})["text"].strip()


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer.prediction_step",
    why="A model whose output is a sequence is validated by the sequences that it writes",
)
def test_the_validation_split_is_transcribed(finished, table):
    stage = finished.metrics["stages"][0]
    assert {"wer", "cer", "wer_orthographic", "loss"} <= stage["validation"].keys()
    assert stage["start"]["wer"] > 0


def test_the_checkpoint_before_training_is_compared_on_the_same_recordings(finished):
    metrics = finished.metrics
    assert set(metrics["baselines"]) == {"untrained"}
    assert metrics["baselines"]["untrained"]["wer"] >= 0
    assert metrics["baseline_differences"]["untrained"]["wer"]["difference"] is not None
    assert metrics["stages"][0]["prefix_cache"]["used"]
    assert "checkpoint before training" in write_report(finished.folder).read_text(encoding="utf-8")


def test_sentences_of_the_training_split_are_a_slice(finished):
    (column,) = finished.metrics["slices"]
    rows = {row["name"]: row["examples"] for row in finished.metrics["slices"][column]["slices"]}
    assert column == "sentence" and rows["in training"] > 0


def test_predictions_are_texts_and_those_of_the_pipeline(finished, table):
    waves = [str(table.with_name(f"{index:02d}.wav")) for index in range(3)]
    texts = [prediction.label for prediction in predict(finished.folder, waves)]
    assert texts == [pipeline_text(finished.folder / "model", wave) for wave in waves]
    stored = read_predictions(finished.folder / "predictions.parquet")
    assert stored.target == "transcript" and all(isinstance(text, str) for text in stored.scores)


def test_a_longer_recording_is_transcribed_in_pieces(finished, tmp_path):
    sound = np.random.default_rng(0).normal(size=40_000).astype(np.float32) / 8
    soundfile.write(tmp_path / "long.wav", sound, 16_000)
    for index, piece in enumerate((sound[:16_000], sound[16_000:32_000], sound[32_000:])):
        soundfile.write(tmp_path / f"piece{index}.wav", piece, 16_000)
    whole, *pieces = [
        prediction.label
        for prediction in predict(finished.folder, [str(path) for path in sorted(tmp_path.glob("*.wav"))])
    ]
    assert whole == " ".join(filter(None, pieces))


def test_the_frozen_encoder_is_replayed_exactly(finished, whisper, table, tmp_path):
    recipe = recipe_for(whisper, table, speed={"prefix_cache": None})
    plain = quick_run(recipe, tmp_path / "run")
    assert plain.metrics["stages"][0]["validation"] == pytest.approx(
        finished.metrics["stages"][0]["validation"]
    )
    assert plain.metrics["test"] == pytest.approx(finished.metrics["test"])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"max_seconds": 2}, "at most the 1 seconds"),
        ({"language": "nl"}, "must not be set for a checkpoint without a choice"),
        ({"crop": "random"}, "data.crop must not be set"),
        ({"target": "single_label"}, "data.target must be transcript"),
    ],
)
def test_unsuitable_fields_are_named(tmp_path, whisper, table, data, words):
    with pytest.raises(InputError, match=words):
        quick_run(recipe_for(whisper, table, data={"path": str(table), **data}), tmp_path / "run")


def test_recordings_longer_than_the_window_are_named(tmp_path, whisper):
    table = write_speech(tmp_path / "speech", seconds=1.4)
    with pytest.raises(
        InputError, match=r"must contain recordings of at most 1 s.*Cut longer ones at pauses"
    ):
        quick_run(recipe_for(whisper, table), tmp_path / "run")

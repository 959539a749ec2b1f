"""Speech recognition by CTC: vocabularies, inputs of any length, and what a checkpoint already knows."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from run_helpers import quick_run
from safetensors.torch import load_file
from speech_data import save_tiny_wav2vec2, write_speech
from test_speech import TASK, pipeline_text, recipe_for
from transformers import Wav2Vec2FeatureExtractor

from hf_finetune.doctor.check_suite import check_suites, run_check
from hf_finetune.errors import InputError
from hf_finetune.evaluation.predict import predict
from hf_finetune.runs.prepare import plan_stages
from hf_finetune.tasks import TASKS
from hf_finetune.tasks.speech.inputs import inference_inputs, unpadded_inputs


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_tiny_wav2vec2(tmp_path_factory.mktemp("wav2vec2"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, checkpoint, table):
    return quick_run(recipe_for(checkpoint, table, "all"), tmp_path_factory.mktemp("run") / "run")


def test_a_vocabulary_is_made_from_the_transcripts(finished, table):
    vocabulary = json.loads((finished.folder / "model" / "vocab.json").read_text(encoding="utf-8"))
    assert set(vocabulary) == {"[PAD]", "[UNK]", "|", *"janewl"}
    assert finished.metrics["baselines"] == {}
    wave = str(table.with_name("00.wav"))
    (prediction,) = predict(finished.folder, [wave])
    assert prediction.label == pipeline_text(finished.folder / "model", wave)
    notes = json.loads((finished.folder / "data.json").read_text(encoding="utf-8"))["notes"]
    assert not [note for note in notes if "class" in note]


def test_a_trained_head_is_kept_whatever_its_labels_are_called(finished, table, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(finished.folder / "model", folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["id2label"], config["label2id"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    stage = {"train": "head", "epochs": 1.0, "lr": 1e-12, "batch_size": 8, "best": None}
    result = quick_run(recipe_for(folder, table, stages=[stage]), tmp_path / "run")
    before = load_file(folder / "model.safetensors")["lm_head.weight"]
    after = load_file(result.folder / "model" / "model.safetensors")["lm_head.weight"]
    assert torch.allclose(before, after, atol=1e-6)
    untrained = result.metrics["baselines"]["untrained"]
    assert untrained["wer"] == pytest.approx(result.metrics["test"]["wer"])


def test_training_reads_the_same_samples_as_inference():
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=False)
    short, long = (np.random.default_rng(seed).normal(size=size) for seed, size in enumerate((4000, 9000)))
    alone = inference_inputs([{"array": short, "sampling_rate": 16_000}], extractor)["input_values"]
    assert alone.shape == (1, 4000) and alone.std().item() == pytest.approx(1, abs=1e-3)
    assert torch.equal(unpadded_inputs([short.astype(np.float32)], extractor)["input_values"], alone)
    assert unpadded_inputs([short, long], extractor)["input_values"].shape == (2, 9000)


def test_a_very_short_recording_is_transcribed_too(finished, table, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.zeros(100, np.float32), 16_000)
    shutil.copy(table.with_name("00.wav"), tmp_path / "whole.wav")
    predictions = list(predict(finished.folder, [str(tmp_path)]))
    assert [prediction.error for prediction in predictions] == [None, None]


def test_characters_that_a_checkpoint_cannot_write_are_an_error(finished, tmp_path):
    table = write_speech(tmp_path / "speech")
    table.write_text(table.read_text(encoding="utf-8").replace("wel", "Wél"), encoding="utf-8")
    with pytest.raises(
        InputError, match="must contain only characters of the checkpoint's vocabulary"
    ) as error:
        quick_run(recipe_for(finished.folder / "model", table), tmp_path / "run")
    assert "'W', 'é' in" in str(error.value) and "such as in upper case" in str(error.value)


def test_the_doctor_passes(checkpoint, table, tmp_path):
    (suite,) = check_suites(recipe_for(checkpoint, table, "head"), tmp_path)
    results = [run_check(check, tmp_path) for check in suite.checks]
    assert [result for result in results if result.state == "fail"] == []


def test_an_adapter_is_trained_and_compared(table, tmp_path):
    whisper = tmp_path / "whisper"
    TASKS[TASK].modality.save_tiny_checkpoint(whisper)
    for name, adapter in (("default", {"type": "lora"}), ("named", {"type": "lora", "target": ["q_proj"]})):
        model = {"path": str(whisper), "adapter": adapter}
        result = quick_run(recipe_for(model, table, "lora"), tmp_path / name)
        assert set(result.metrics["baselines"]) == {"untrained"}


def test_long_transcripts_are_validated_within_the_limit_of_the_decoder(tmp_path):
    whisper, table = tmp_path / "whisper", write_speech(tmp_path / "speech")
    TASKS[TASK].modality.save_tiny_checkpoint(whisper)
    table.write_text(table.read_text(encoding="utf-8").replace("wel", "w" + 22 * "e" + "l"), encoding="utf-8")
    assert "wer" in quick_run(recipe_for(whisper, table), tmp_path / "run").metrics["stages"][0]["validation"]


def test_a_changed_checkpoint_gets_a_new_vocabulary(table, tmp_path):
    folder = save_tiny_wav2vec2(tmp_path / "checkpoint")
    recipe = recipe_for(folder, table)
    first = plan_stages(recipe).prepared.config
    assert first.hidden_dropout == 0.1
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "hidden_dropout": 0.25}), encoding="utf-8")
    assert plan_stages(recipe).prepared.config.hidden_dropout == 0.25


def test_without_readable_data_only_the_data_are_reported(checkpoint, tmp_path):
    with pytest.raises(InputError) as error:
        plan_stages(recipe_for(checkpoint, tmp_path / "none.csv"))
    assert [problem.place for problem in error.value.problems] == ["data.path"]

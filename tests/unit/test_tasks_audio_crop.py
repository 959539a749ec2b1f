"""Part of a long recording that is used: the same in validation and predictions, and that of the plain pipeline."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from audio_helpers import RATE, configured, examples, settings, tone
from transformers import WhisperFeatureExtractor

from hf_finetune.tasks.audio.inputs import prepare_recordings
from hf_finetune.tasks.audio.processor import configure_audio, processed_recordings
from hf_finetune.tasks.audio.samples import crop_at

WINDOW = 2 * RATE


@pytest.fixture
def dataset():
    """A recording that is twice as long as the input, and becomes louder."""
    recording = tone(4.0)
    recording["array"] *= np.linspace(0.1, 1, 2 * WINDOW, dtype=np.float32)
    return examples(recording)


def plain_input(processor, samples):
    return processor(samples, sampling_rate=RATE, return_tensors="pt")["input_features"][0]


def test_a_part_is_taken_of_long_recordings():
    samples = np.arange(10)
    assert crop_at(samples, 4, 0.0).tolist() == [0, 1, 2, 3]
    assert crop_at(samples, 4, 0.5).tolist() == [3, 4, 5, 6]
    assert crop_at(samples, 4, 1.0).tolist() == [6, 7, 8, 9]
    assert crop_at(samples, 20, 0.7).tolist() == samples.tolist()


@pytest.mark.parametrize(("crop", "begin"), [("start", 0), ("random", 0), ("center", RATE)])
def test_validation_and_predictions_read_the_same_part(dataset, crop, begin, tmp_path):
    processor = configured("whisper", crop=crop)
    splits = SimpleNamespace(train=dataset, validation=dataset)
    inputs = prepare_recordings(splits, processor, settings(crop=crop), 0, augmented=False)
    processor.save_pretrained(tmp_path)
    saved = WhisperFeatureExtractor.from_pretrained(tmp_path)
    recording = dataset[0]["audio"]
    expected = plain_input(saved, recording["array"][begin : begin + WINDOW])
    assert torch.equal(processed_recordings(saved)([recording])["input_features"][0], expected)
    assert torch.equal(inputs.validation[0]["input_features"], expected)


def test_by_default_the_part_is_that_of_the_plain_feature_extractor(dataset):
    recording, processor = dataset[0]["audio"], configured("whisper")
    predicted = processed_recordings(processor)([recording])["input_features"][0]
    assert torch.equal(predicted, plain_input(processor, recording["array"]))
    other = processed_recordings(configured("whisper", crop="center"))([recording])["input_features"][0]
    assert not torch.allclose(predicted, other, atol=0.05)


def test_a_model_that_is_trained_again_does_not_keep_its_crop(tmp_path):
    configured("whisper", crop="center").save_pretrained(tmp_path)
    again = WhisperFeatureExtractor.from_pretrained(tmp_path)
    configure_audio(again, SimpleNamespace(), settings())
    assert again.crop == "start"

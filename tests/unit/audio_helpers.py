"""Recordings, and feature extractors for them."""

from types import SimpleNamespace

import numpy as np
from datasets import ClassLabel, Dataset, Features
from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from hf_finetune.tasks.audio.feature import Recording
from hf_finetune.tasks.audio.processor import configure_audio

RATE = 16_000


def tone(seconds, rate=RATE, frequency=440.0):
    times = np.arange(round(seconds * rate), dtype=np.float32) / rate
    return {"array": np.sin(2 * np.pi * frequency * times, dtype=np.float32) / 2, "sampling_rate": rate}


def settings(**fields):
    names = {"sampling_rate": None, "max_seconds": None, "crop": "start", **fields}
    augment = {"shift": 0.0, "gain": 0.0, "noise": None, "time_mask": 0.0, "frequency_mask": 0.0}
    return SimpleNamespace(**names, augment=SimpleNamespace(**augment))


def extractor(kind):
    return {
        "whisper": lambda: WhisperFeatureExtractor(feature_size=16, chunk_length=2),
        "ast": lambda: ASTFeatureExtractor(num_mel_bins=16, max_length=64),
        "wav2vec2": lambda: Wav2Vec2FeatureExtractor(return_attention_mask=True),
    }[kind]()


def configured(kind, config=None, **fields):
    processor = extractor(kind)
    configure_audio(processor, config or SimpleNamespace(), settings(**fields))
    return processor


def examples(*recordings):
    features = Features({"audio": Recording(), "label": ClassLabel(names=["low", "high"])})
    labels = [index % 2 for index in range(len(recordings))]
    return Dataset.from_dict({"audio": list(recordings), "label": labels}, features=features)

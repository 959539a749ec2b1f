"""A modality and a task outside the package: vibrations in WAV files, for a Wav2Vec2.

``pytest -p throw_away_modality`` imports it before anything of the package, as a program with its own modality would.
"""

import io
import wave

import numpy as np
from datasets import Audio
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)

from hf_finetune.tasks import Modality, Task, register
from hf_finetune.tasks.columns import ColumnRole, is_string

RATE, SAMPLES = 16_000, 800


def read_wave(source):
    """Read samples in -1 .. 1 from the path or the bytes of a WAV file with one channel of 16 bits."""
    with wave.open(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float32) / 2**15


def wave_bytes(samples):
    """Return a WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, len(samples), "NONE", ""))
        file.writeframes((samples * (2**15 - 1)).astype("<i2").tobytes())
    return buffer.getvalue()


class Recording(Audio):
    """Column type of vibrations, which the standard library reads."""

    def encode_example(self, value):
        return {"bytes": wave_bytes(value), "path": None} if isinstance(value, np.ndarray) else value

    def decode_example(self, value, token_per_repo_id=None):
        return read_wave(value["path"] if value["bytes"] is None else value["bytes"])


class Vibration(Modality):
    """Vibrations of one length."""

    name = "vibration"
    roles = (
        ColumnRole(
            *("vibration", "vibrations", "must hold vibrations or paths", ("vibration", "file", "path")),
            lambda feature: isinstance(feature, Audio) or is_string(feature),
            "Column of the vibrations or of their paths.",
        ),
    )
    model_inputs = ("input_values", "attention_mask")
    opens_files = True
    processor_class = "AutoFeatureExtractor"
    processor_argument = "feature_extractor"
    suffixes = frozenset({".wav"})

    def features(self, *, decode=True):
        return {"vibration": Recording(decode=decode)}

    def synthetic_examples(self, count, chance, *, length=16, pair=False):
        times = np.arange(SAMPLES, dtype=np.float32) / RATE
        return {
            "vibration": [np.sin(2 * np.pi * chance.uniform(200, 2000) * times) / 2 for _ in range(count)]
        }

    def save_tiny_checkpoint(self, folder):
        config = Wav2Vec2Config(
            **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
            **{"conv_dim": (8, 8), "conv_kernel": (10, 4), "conv_stride": (5, 4), "classifier_proj_size": 8},
            **{"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "vocab_size": 8},
            **{"mask_time_prob": 0.0, "layerdrop": 0.0},
        )
        Wav2Vec2ForSequenceClassification(config).eval().save_pretrained(folder)
        Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)

    def pipeline_input(self, row):
        return row["vibration"]

    def read_example(self, cells):
        return read_wave(cells["vibration"]), None

    def batch_inputs(self, processor):
        def prepare(vibrations):
            return dict(processor(list(vibrations), sampling_rate=RATE, padding=True, return_tensors="pt"))

        return prepare

    def demo_values(self, example, path):
        file = path.with_suffix(".wav")
        file.write_bytes(wave_bytes(example))
        return {"vibration": str(file)}


register(
    Task(
        *("vibration-classification", "Vibration Classification", Vibration()),
        *("AutoModelForAudioClassification", ("ForSequenceClassification",)),
        served_as="audio-classification",
    )
)

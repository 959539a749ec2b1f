"""Recordings of made-up speech with transcripts, and tiny checkpoints of both families."""

import csv
import random

import numpy as np
import soundfile
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

RATE = 16_000
WORDS = {"ja": 300.0, "nee": 600.0, "wel": 1200.0}


def write_speech(folder, count=24, seconds=0.6):
    """Write recordings of tones, one for each word, and a table of them.

    Returns:
        Path of the table.
    """
    chance, noise = random.Random(0), np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "utterances.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["audio", "sentence", "speaker"])
        for index in range(count):
            words = [chance.choice(list(WORDS)) for _ in range(1 + index % 2)]
            times = np.arange(int(RATE * seconds / len(words))) / RATE
            sound = np.concatenate([0.5 * np.sin(2 * np.pi * WORDS[word] * times) for word in words])
            sound += 0.01 * noise.standard_normal(len(sound))
            soundfile.write(folder / f"{index:02d}.wav", sound.astype(np.float32), RATE)
            writer.writerow([f"{index:02d}.wav", " ".join(words), f"speaker {index % 6}"])
    return folder / "utterances.csv"


def save_tiny_wav2vec2(folder):
    """Write a tiny Wav2Vec2 without a head and without a tokenizer."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 8, 4),
        conv_stride=(10, 8, 4),
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        mask_time_prob=0.0,
    )
    Wav2Vec2Model(config).eval().save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)
    return folder

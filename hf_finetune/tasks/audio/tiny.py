"""Tiny audio classifier with random weights."""

from pathlib import Path

from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForAudioClassification

__all__ = ["save_tiny_whisper"]


def save_tiny_whisper(folder: Path) -> None:
    """Write a tiny Whisper encoder with a window of one second, and its feature extractor.

    Args:
        folder: Folder to write to.
    """
    config = WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        num_mel_bins=16,
        max_source_positions=50,
        classifier_proj_size=8,
        vocab_size=16,
        max_target_positions=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        init_std=0.2,  # with a smaller one, gradients would be as small as rounding errors
        suppress_tokens=None,
        begin_suppress_tokens=None,
        num_labels=2,
    )
    WhisperForAudioClassification(config).eval().save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16, chunk_length=1).save_pretrained(folder)

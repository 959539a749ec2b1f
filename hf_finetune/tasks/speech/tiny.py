"""Tiny speech recognition model with random weights."""

from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

__all__ = ["save_tiny_speech_model"]

_END, _SPECIAL = "<|endoftext|>", ("<|startoftranscript|>", "<|transcribe|>", "<|notimestamps|>")
_LONGEST = 64
"""Largest number of tokens of a transcript."""


def save_tiny_speech_model(folder: Path) -> None:
    """Write a tiny Whisper of one language with a window of one second, and its tokenizer of single bytes.

    Args:
        folder: Folder to write to.
    """
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*alphabet, _END])}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[], pad_token=_END, model_max_length=_LONGEST)
    tokenizer.add_special_tokens({"additional_special_tokens": list(_SPECIAL)})
    tokenizer.set_prefix_tokens()
    end, (start, _, no_timestamps) = vocabulary[_END], map(tokenizer.convert_tokens_to_ids, _SPECIAL)
    config = WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        num_mel_bins=16,
        max_source_positions=50,
        vocab_size=len(tokenizer),
        max_target_positions=_LONGEST,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        init_std=0.2,  # with a smaller one, gradients would be as small as rounding errors
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
        is_multilingual=False,
        no_timestamps_token_id=no_timestamps,
        max_length=_LONGEST,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16, chunk_length=1).save_pretrained(folder)

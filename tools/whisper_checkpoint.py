"""Write a Whisper checkpoint for transformers from a model file of CTranslate2, its weights mapped strictly by name."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from archives import AssetError
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

__all__ = ["save_whisper", "translate"]

END = "<|endoftext|>"
MEL_BANDS = 80
MAX_TARGET_LENGTH = 448
"""Longest output of the decoder (tokens), as of all of OpenAI's checkpoints."""
FEED_FORWARD_FACTOR = 4
MAX_POSITION_ERROR = 1e-3
"""Largest difference of the encoder's positions from sines and cosines, which half precision rounds."""

Tensors = Mapping[str, np.ndarray]


def save_whisper(tensors: Tensors, settings: Mapping[str, Any], tokenizer: str, folder: Path) -> None:
    """Write weights, config, generation settings, tokenizer and feature extractor.

    Args:
        tensors: Tensors of the model file.
        settings: Content of the config.json beside it: suppressed tokens, alignment heads, languages.
        tokenizer: Content of tokenizer.json.
        folder: Where to write, an existing folder.

    Raises:
        AssetError: If weights are missing, left over or of another shape.
    """
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), END)
    written = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special)
    written.save_pretrained(folder)
    _declare_class(folder / "tokenizer_config.json", "WhisperTokenizer")
    config = _config(tensors, written)
    model = WhisperForConditionalGeneration(config)
    weights = translate(tensors, config)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise AssetError(f"The weights must fit Whisper's: {error}") from error
    _check_positions(weights["model.encoder.embed_positions.weight"])
    model.generation_config = GenerationConfig(**_generation(settings, written))
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=MEL_BANDS).save_pretrained(folder)


def translate(tensors: Tensors, config: WhisperConfig) -> dict[str, torch.Tensor]:
    """Return the weights under the names of transformers.

    Args:
        tensors: Tensors of the model file.
        config: Config of the model.

    Raises:
        AssetError: If a tensor is missing or left over.
    """
    names = dict(_names(config))
    weights, used = {}, set()
    for new, (old, part, parts) in names.items():
        if old not in tensors:
            raise AssetError(f"The model file must contain {old}.")
        used.add(old)
        rows = len(tensors[old]) // parts
        values = tensors[old][part * rows : (part + 1) * rows].astype(np.float32)
        if new.endswith("k_proj.bias"):
            if np.abs(values).max() != 0:
                raise AssetError(f"{old} must be 0 for the keys, which have no bias in Whisper.")
            continue
        weights[new] = torch.from_numpy(values)
    weights["proj_out.weight"] = weights["model.decoder.embed_tokens.weight"]
    left = [name for name, tensor in tensors.items() if name not in used and tensor.size > 1]
    if left:
        raise AssetError(f"The model file contains weights without a place in the model: {', '.join(left)}.")
    return weights


def _names(config: WhisperConfig) -> Iterator[tuple[str, tuple[str, int, int]]]:
    """Yield each name of transformers with the name in the model file, and which part of how many of its rows."""
    for number in (1, 2):
        yield from _layer(f"model.encoder.conv{number}", f"encoder/conv{number}")
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        yield f"model.{side}.embed_positions.weight", (f"{side}/position_encodings/encodings", 0, 1)
        yield from _norm(f"model.{side}.layer_norm", f"{side}/layer_norm")
        for number in range(layers):
            new, old = f"model.{side}.layers.{number}", f"{side}/layer_{number}"
            yield from _norm(f"{new}.self_attn_layer_norm", f"{old}/self_attention/layer_norm")
            yield from _attention(f"{new}.self_attn", f"{old}/self_attention", [("q", "k", "v")])
            if side == "decoder":
                yield from _norm(f"{new}.encoder_attn_layer_norm", f"{old}/attention/layer_norm")
                yield from _attention(f"{new}.encoder_attn", f"{old}/attention", [("q",), ("k", "v")])
            yield from _norm(f"{new}.final_layer_norm", f"{old}/ffn/layer_norm")
            yield from _layer(f"{new}.fc1", f"{old}/ffn/linear_0")
            yield from _layer(f"{new}.fc2", f"{old}/ffn/linear_1")
    yield "model.decoder.embed_tokens.weight", ("decoder/embeddings/weight", 0, 1)


def _layer(new: str, old: str, part: int = 0, parts: int = 1) -> Iterator[tuple[str, tuple[str, int, int]]]:
    for name in ("weight", "bias"):
        yield f"{new}.{name}", (f"{old}/{name}", part, parts)


def _norm(new: str, old: str) -> Iterator[tuple[str, tuple[str, int, int]]]:
    yield f"{new}.weight", (f"{old}/gamma", 0, 1)
    yield f"{new}.bias", (f"{old}/beta", 0, 1)


def _attention(
    new: str, old: str, joined: Sequence[Sequence[str]]
) -> Iterator[tuple[str, tuple[str, int, int]]]:
    """Yield the names of an attention, whose projections are joined in the model file.

    Args:
        new: Name of the attention in transformers.
        old: Its name in the model file.
        joined: Projections in each layer of the model file; the layer after them is the output.
    """
    for number, projections in enumerate(joined):
        for part, name in enumerate(projections):
            yield from _layer(f"{new}.{name}_proj", f"{old}/linear_{number}", part, len(projections))
    yield from _layer(f"{new}.out_proj", f"{old}/linear_{len(joined)}")


def _config(tensors: Tensors, tokenizer: PreTrainedTokenizerFast) -> WhisperConfig:
    vocabulary, size = tensors["decoder/embeddings/weight"].shape
    end = tokenizer.convert_tokens_to_ids(END)
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=size,
        encoder_layers=_layer_count(tensors, "encoder"),
        decoder_layers=_layer_count(tensors, "decoder"),
        encoder_attention_heads=int(tensors["encoder/num_heads"]),
        decoder_attention_heads=int(tensors["decoder/num_heads"]),
        encoder_ffn_dim=FEED_FORWARD_FACTOR * size,
        decoder_ffn_dim=FEED_FORWARD_FACTOR * size,
        num_mel_bins=MEL_BANDS,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )


def _layer_count(tensors: Tensors, side: str) -> int:
    return sum(name.startswith(f"{side}/layer_") and name.endswith("/ffn/linear_0/bias") for name in tensors)


def _generation(settings: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the settings of the decoding, as OpenAI's checkpoints have them."""
    find = tokenizer.convert_tokens_to_ids
    end, languages = find(END), set(settings["lang_ids"])
    is_multilingual = tokenizer.convert_ids_to_tokens(min(languages)) == "<|en|>" and len(tokenizer) > 51864
    generation = {
        **{"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "max_length": MAX_TARGET_LENGTH},
        "decoder_start_token_id": find("<|startoftranscript|>"),
        "no_timestamps_token_id": find("<|notimestamps|>"),
        "prev_sot_token_id": find("<|startofprev|>"),
        "max_initial_timestamp_index": 50,
        "return_timestamps": False,
        "is_multilingual": is_multilingual,
        "suppress_tokens": settings["suppress_ids"],
        "begin_suppress_tokens": settings["suppress_ids_begin"],
        "alignment_heads": settings["alignment_heads"],
    }
    if is_multilingual:
        names = tokenizer.get_vocab().items()
        generation["lang_to_id"] = {name: number for name, number in names if number in languages}
        generation["task_to_id"] = {task: find(f"<|{task}|>") for task in ("transcribe", "translate")}
    return generation


def _declare_class(path: Path, name: str) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "tokenizer_class": name}, indent=2) + "\n", encoding="utf-8")


def _check_positions(positions: torch.Tensor) -> None:
    """Check that the encoder's positions are sines and cosines, as in Whisper.

    Source: Radford et al. 2022, and Vaswani et al. 2017, with the sines in the first half of the features.
    """
    count, size = positions.shape
    rates = torch.exp(-np.log(10_000) / (size // 2 - 1) * torch.arange(size // 2))
    angles = torch.arange(count)[:, None] * rates
    expected = torch.cat([angles.sin(), angles.cos()], dim=1)
    if (positions - expected).abs().max() > MAX_POSITION_ERROR:
        raise AssetError("The encoder's positions must be sines and cosines.")

"""Vocabulary of characters for a checkpoint that reads speech but has never written text, such as Wav2Vec2."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transformers
from transformers.utils import cached_file

from hf_finetune.errors import InputError, Problem

__all__ = ["characters_of", "check_family", "lacks_decoder", "lacks_vocabulary", "save_with_characters"]

PADDING, UNKNOWN, SPACE = "[PAD]", "[UNK]", "|"
"""The padding token is the blank of CTC too."""
_TOKENIZER_FILES = ("tokenizer_config.json", "vocab.json", "tokenizer.json")
_WEIGHT_FILES = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


def lacks_vocabulary(path: str, revision: str | None) -> bool:
    """Return whether transformers can build a CTC model from a checkpoint, which has no tokenizer.

    Args:
        path: A Hub id, or a folder.
        revision: Branch, tag or commit on the Hub.
    """
    if not lacks_decoder(path, revision):
        return False
    return not any(_file(path, name, revision) for name in _TOKENIZER_FILES)


def lacks_decoder(path: str, revision: str | None = None) -> bool:
    """Return whether transformers builds a CTC model from a checkpoint.

    Args:
        path: A Hub id, or a folder.
        revision: Branch, tag or commit on the Hub.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(path, revision=revision)
    except (OSError, ValueError, KeyError):  # reported where the checkpoint is loaded for use
        return False
    return type(config) in transformers.AutoModelForCTC._model_mapping


def check_family(config: Any, tokenizer: Any) -> None:
    """Check that a checkpoint is a Whisper, or is trained by CTC with a tokenizer of characters.

    Args:
        config: Config of the model.
        tokenizer: Its tokenizer.

    Raises:
        InputError: If it is of another family.
    """
    is_ctc = isinstance(tokenizer, transformers.Wav2Vec2CTCTokenizer)
    if not is_ctc and not isinstance(config, transformers.WhisperConfig):
        rule = "must be a Whisper checkpoint, or one for CTC with a tokenizer of characters"
        raise InputError(Problem("model.path", rule, f"a {config.model_type!r} model"))


def characters_of(transcripts: Iterable[str]) -> list[str]:
    """Return the characters of transcripts but white space, in their order in Unicode.

    Args:
        transcripts: Texts.
    """
    return sorted({character for text in transcripts for character in text if not character.isspace()})


def save_with_characters(folder: Path, path: str, revision: str | None, transcripts: Iterable[str]) -> int:
    """Write a checkpoint with the weights of another one, and a tokenizer of the characters of transcripts.

    Args:
        folder: Folder to write.
        path: A Hub id, or a folder.
        revision: Branch, tag or commit on the Hub.
        transcripts: Transcripts of the training split.

    Returns:
        Number of characters.
    """
    characters = [character for character in characters_of(transcripts) if character != SPACE]
    vocabulary = {token: index for index, token in enumerate([PADDING, UNKNOWN, SPACE, *characters])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    names = {"pad_token": PADDING, "unk_token": UNKNOWN, "word_delimiter_token": SPACE}
    tokenizer = transformers.Wav2Vec2CTCTokenizer(
        str(folder / "vocab.json"), bos_token=None, eos_token=None, do_lower_case=False, **names
    )
    tokenizer.save_pretrained(folder)
    transformers.AutoFeatureExtractor.from_pretrained(path, revision=revision).save_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(path, revision=revision)
    config.vocab_size, config.pad_token_id = len(vocabulary), vocabulary[PADDING]
    config.save_pretrained(folder)
    for name in _WEIGHT_FILES:
        if (file := _file(path, name, revision)) is not None:
            _link_weights(Path(file), folder)
            break
    return len(characters)


def _link_weights(file: Path, folder: Path) -> None:
    """Link the file of the weights; the files that an index lists are linked too."""
    names = [file.name]
    if file.suffix == ".json":
        names += set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values())
    for name in names:
        source = (file.parent / name).resolve()
        try:
            (folder / name).symlink_to(source)
        except OSError:  # a file system without links
            shutil.copy(source, folder / name)


def _file(path: str, name: str, revision: str | None) -> str | None:
    found: str | None = cached_file(
        path,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return found

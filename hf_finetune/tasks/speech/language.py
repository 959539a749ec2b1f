"""The language of a speech recognition checkpoint."""

from typing import Any

from transformers import GenerationConfig

from hf_finetune.errors import InputError, Problem, join_words, suggestion

__all__ = ["set_language"]

PLACE, ENGLISH = "data.language", "en"


def set_language(tokenizer: Any, config: Any, language: str | None) -> None:
    """Set the language in a tokenizer, which begins each transcript with the tokens of its language and task.

    Args:
        tokenizer: Tokenizer of the checkpoint.
        config: Config of the model.
        language: ``data.language`` of the recipe.

    Raises:
        InputError: If the checkpoint has several languages and none is set, or it does not have the language. A
            checkpoint without a choice accepts English.
    """
    names = _languages(config)
    if not names:
        if language is not None and _code(language.lower(), {ENGLISH}) is None:
            rule = "must not be set for a checkpoint without a choice of languages"
            raise InputError(Problem(PLACE, rule, repr(language), "Remove it."))
        return
    if language is None:
        example = join_words([name for name in ("en", "nl", "es") if name in names])
        rule = "must be set for a checkpoint of several languages"
        raise InputError(Problem(PLACE, rule, "null", f"Write the spoken language, such as {example}."))
    code = _code(language.lower(), names)
    if code is None:
        rule = "must be a language of the checkpoint"
        raise InputError(Problem(PLACE, rule, repr(language), suggestion(language, sorted(names))))
    tokenizer.set_prefix_tokens(language=code, task="transcribe")
    tokenizer.language = code


def _languages(config: Any) -> set[str]:
    """Return the codes of the languages of a checkpoint, such as ``nl``; empty if it has a single one."""
    try:
        revision = getattr(config, "_commit_hash", None)
        generation = GenerationConfig.from_pretrained(config.name_or_path, revision=revision)
    except OSError:  # it has no file of generation settings
        return set()
    languages = getattr(generation, "lang_to_id", None) or {}
    is_multilingual = getattr(generation, "is_multilingual", bool(languages))
    return {token.strip("<|>") for token in languages} if is_multilingual else set()


def _code(language: str, codes: set[str]) -> str | None:
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    code = TO_LANGUAGE_CODE.get(language, language)
    return code if code in codes else None

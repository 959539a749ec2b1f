"""Code that comes with a checkpoint: the files that it names, and the error if the user has not allowed them to run.

The permission is the argument ``trust_remote_code``, False by default. Only the command line
(``--trust-remote-code``) and the caller of a public function set it; no input file can. docs/security.md lists the
code that it allows.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers.models.auto.tokenization_auto import tokenizer_class_from_name
from transformers.utils import cached_file

from hf_finetune.errors import InputError, Problem, join_words
from hf_finetune.files import read_json_object
from hf_finetune.models.classifier_head import MODEL_TYPE

__all__ = [
    "FLAG",
    "check_declared",
    "check_settings",
    "check_tokenizer",
    "list_remote_code",
    "remote_code_error",
]

FLAG = "--trust-remote-code"
"""Command-line option that allows code of a checkpoint, a metric or an exported program to run."""
SETTINGS_FILES = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
"""Files of a checkpoint whose ``auto_map`` names classes in Python files."""
KERNEL_SETTINGS = ("attn_implementation", "experts_implementation")
"""Suffixes of the names of settings that can refer to a compiled kernel on the Hub, as ``OWNER/NAME``."""
TIMM_ARGUMENTS = ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""Arguments of ``timm.create_model`` that make it read files outside the checkpoint, or use the network."""
MAX_LISTED = 6
"""Largest number of files in an error message."""


def list_remote_code(path: str | Path, revision: str | None = None) -> tuple[str, ...]:
    """Return the code that transformers would run from a checkpoint, as ``FILE (CLASS, named in FILE)``.

    Kernels of the Hub are included. The head of this package is not: this package loads such a checkpoint with its own
    copy of the file.

    Args:
        path: A folder or a Hub id, from which only the settings are fetched.
        revision: Branch, tag or commit on the Hub.
    """
    described: dict[str, None] = {}
    for name in SETTINGS_FILES:
        settings = _read_settings(path, name, revision)
        if settings.get("model_type") == MODEL_TYPE:
            continue
        for reference in _references(settings.get("auto_map")):
            repository, _, target = reference.rpartition("--")
            module, _, class_name = target.rpartition(".")
            file = f"{module.replace('.', '/')}.py"
            origin = f" of {repository!r}" if repository else ""
            described[f"{file}{origin} ({class_name}, named in {name})"] = None
        for kernel in _kernels(settings):
            described[f"the kernel {kernel!r} of the Hub (named in {name})"] = None
    return tuple(described)


def check_settings(content: Mapping[str, Any], trust_remote_code: bool = False) -> None:
    """Check that a config makes transformers and timm read nothing but the checkpoint.

    Args:
        content: Content of config.json.
        trust_remote_code: Whether the user allows code to run, including kernels.

    Raises:
        ValueError: If the config names a kernel that may not run, or makes timm load another checkpoint.
    """
    kernels = list(_kernels(content))
    if kernels and not trust_remote_code:
        raise ValueError(
            f"it names the kernel {kernels[0]!r}, which would be downloaded from the Hub and run."
        )
    arguments = content.get("model_args")
    loads = [name for name in TIMM_ARGUMENTS if isinstance(arguments, dict) and name in arguments]
    if loads:
        raise ValueError(
            f"its model_args contain {loads[0]!r}, which would make timm load another checkpoint."
        )
    if ":" in str(content.get("architecture", "")):
        raise ValueError(
            f"its architecture {content['architecture']!r} is an address, not a timm model name."
        )


def _kernels(content: Any) -> Iterator[str]:
    """Yield the kernels of the Hub that settings name, including those in nested configs."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, Mapping):
            yield from _kernels(value)
        named = value.values() if isinstance(value, Mapping) else [value]
        if str(key).removesuffix("_internal").endswith(KERNEL_SETTINGS):
            yield from (kernel for kernel in named if isinstance(kernel, str) and "/" in kernel)


def remote_code_error(place: str, path: str | Path, revision: str | None = None) -> InputError | None:
    """Return the error for a checkpoint that needs its own code to load; None if it names no code.

    Args:
        place: Field that holds the checkpoint, such as ``model.path``.
        path: A folder or a Hub id.
        revision: Branch, tag or commit on the Hub.
    """
    code = list_remote_code(path, revision)
    if not code:
        return None
    rule = f"must not need custom code unless {FLAG} is given"
    return InputError(Problem(place, rule, repr(str(path)), _would_run(code, path)))


def check_tokenizer(
    place: str, path: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> None:
    """Check that a checkpoint's tokenizer class is one of transformers, or that its code is allowed to run.

    transformers 5.24 silently replaces an unknown class by a generic tokenizer if code may not run, which could
    tokenize texts differently than in the checkpoint's training.

    Args:
        place: Field that holds the checkpoint, such as ``model.path``.
        path: A folder or a Hub id.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Whether the user allows code to run.

    Raises:
        InputError: If the class is unknown, the checkpoint names code for it, and code may not run.
    """
    if trust_remote_code:
        return
    settings = _read_settings(path, "tokenizer_config.json", revision)
    name = settings.get("tokenizer_class")
    if not isinstance(name, str) or not settings.get("auto_map"):
        return
    known = (tokenizer_class_from_name(candidate) for candidate in (name, f"{name.removesuffix('Fast')}Fast"))
    if not any(known) and (code_error := remote_code_error(place, path, revision)):
        raise code_error


def check_declared(
    declared: bool, trust_remote_code: bool, path: str | Path, revision: str | None = None
) -> None:
    """Check that the user allows the code that a recipe declares it needs.

    Args:
        declared: The recipe's ``model.trust_remote_code``, which declares the need and grants no permission.
        trust_remote_code: Whether the user allows code to run.
        path: The recipe's checkpoint.
        revision: Branch, tag or commit on the Hub.

    Raises:
        InputError: If code is declared and not allowed; the message lists the files that would run.
    """
    if not declared or trust_remote_code:
        return
    code = list_remote_code(path, revision)
    repair = _would_run(code, path) if code else f"{str(path)!r} needs no custom code: remove the field."
    rule = f"must be combined with {FLAG}, which permits the code to run"
    raise InputError(Problem("model.trust_remote_code", rule, "", repair))


def _would_run(code: tuple[str, ...], path: str | Path) -> str:
    source = str(Path(path).absolute()) if Path(path).is_dir() else f"https://hf.co/{path}"
    return f"It would run {join_words(code, MAX_LISTED)}, from {source}. Read the code first."


def _read_settings(path: str | Path, name: str, revision: str | None) -> dict[str, Any]:
    """Return the content of a settings file; an empty mapping if it is missing or cannot be read."""
    if Path(path).is_dir():
        return read_json_object(Path(path) / name)
    try:
        cached = cached_file(str(path), name, revision=revision)
    except (OSError, ValueError):
        return {}
    return read_json_object(Path(cached)) if cached else {}


def _references(auto_map: Any) -> Iterator[str]:
    """Yield the class references in an ``auto_map``; a tokenizer has a list of two, one of which may be null."""
    entries = list(auto_map.values()) if isinstance(auto_map, dict) else [auto_map]
    for entry in entries:
        for reference in entry if isinstance(entry, list | tuple) else [entry]:
            if isinstance(reference, str):
                yield reference

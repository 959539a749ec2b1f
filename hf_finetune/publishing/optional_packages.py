"""Checks for optional packages, which only some commands need."""

from importlib.util import find_spec

from hf_finetune.errors import InputError, Problem, join_quoted

__all__ = ["EXTRAS", "require_extra"]

EXTRAS = {"demo": ("gradio",), "onnx": ("onnx", "onnxscript", "onnxruntime")}
"""Modules that ``require_extra`` looks for, by extra of pyproject.toml."""


def require_extra(extra: str, place: str) -> None:
    """Check that the packages of an extra are installed, before anything is computed.

    Args:
        extra: Key of ``EXTRAS``.
        place: Command or option that needs the packages, for the message: ``--format onnx``.

    Raises:
        InputError: If a package is missing.
    """
    missing = [module for module in EXTRAS[extra] if find_spec(module) is None]
    if missing:
        rule = f"needs packages that are not installed: {join_quoted(missing)}"
        raise InputError(Problem(place, rule, "", f"Run pip install 'hf-finetune[{extra}]'."))

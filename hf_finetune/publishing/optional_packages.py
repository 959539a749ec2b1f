"""Packages that only some commands need, and what to do when they are missing."""

from importlib.util import find_spec

from hf_finetune.data.formatting import quoted
from hf_finetune.errors import InputError, Problem

__all__ = ["EXTRAS", "need_extra"]

EXTRAS = {"demo": ("gradio",), "onnx": ("onnx", "onnxscript", "onnxruntime")}
"""Modules of each extra of pyproject.toml that is asked for here."""


def need_extra(extra: str, place: str) -> None:
    """Check that the packages of an extra are there, before anything is computed.

    Args:
        extra: A key of ``EXTRAS``.
        place: What needs them, for the message: ``--format onnx``.

    Raises:
        InputError: If one is missing.
    """
    missing = [module for module in EXTRAS[extra] if find_spec(module) is None]
    if missing:
        repair = f"Install what is missing: pip install 'hf-finetune[{extra}]'."
        raise InputError(Problem(place, "must have its packages", f"no {quoted(missing)}", repair))

"""Modules of other packages that are imported at their first use, because importing them takes long."""

from importlib import import_module
from typing import Any

__all__ = ["LazyModule"]


class LazyModule:
    """Stand-in for a module that is imported when one of its attributes is needed.

    Args:
        name: Name of the module.
    """

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)

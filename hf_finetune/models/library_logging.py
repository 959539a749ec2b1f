"""Suppress log messages and progress bars of other libraries."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging

__all__ = ["quiet_datasets", "quiet_libraries"]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide progress bars and messages below ERROR of transformers and datasets within the block.

    This package reports the relevant parts itself. A level that the user set with ``TRANSFORMERS_VERBOSITY`` or
    ``DATASETS_VERBOSITY`` is respected. All settings are restored afterwards.
    """
    level, shows_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        transformers_logging.set_verbosity(max(level, logging.ERROR))
        transformers_logging.disable_progress_bar()
    try:
        with quiet_datasets():
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if shows_bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Silence datasets within the block if it is imported; restore its settings afterwards."""
    if "datasets" not in sys.modules or "DATASETS_VERBOSITY" in os.environ:
        yield
        return
    import datasets
    from datasets.utils import logging as datasets_logging

    level, shows_bars = datasets_logging.get_verbosity(), datasets.is_progress_bar_enabled()
    datasets_logging.set_verbosity(logging.CRITICAL)  # datasets logs even the errors that it raises
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets_logging.set_verbosity(level)
        if shows_bars:
            datasets.enable_progress_bars()

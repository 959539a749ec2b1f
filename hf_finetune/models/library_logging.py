"""Suppress log messages and progress bars of other libraries."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
from datasets.utils import logging as datasets_logging
from transformers.utils import logging as transformers_logging

__all__ = ["quiet_libraries"]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence transformers and datasets below errors within the block: load reports, notices, progress bars.

    This package reports the relevant parts itself. A level that the user set with ``TRANSFORMERS_VERBOSITY`` or
    ``DATASETS_VERBOSITY`` is respected. All settings are restored afterwards.
    """
    transformers_level, datasets_level = (
        transformers_logging.get_verbosity(),
        datasets_logging.get_verbosity(),
    )
    transformers_bars, datasets_bars = (
        transformers_logging.is_progress_bar_enabled(),
        datasets.is_progress_bar_enabled(),
    )
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        transformers_logging.set_verbosity(max(transformers_level, logging.ERROR))
        transformers_logging.disable_progress_bar()
    if "DATASETS_VERBOSITY" not in os.environ:
        datasets_logging.set_verbosity(logging.CRITICAL)  # datasets logs even the errors that it raises
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(transformers_level)
        datasets_logging.set_verbosity(datasets_level)
        if transformers_bars:
            transformers_logging.enable_progress_bar()
        if datasets_bars:
            datasets.enable_progress_bars()

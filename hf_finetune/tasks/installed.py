"""Tasks and label types of installed packages."""

from functools import cache

from hf_finetune.fields.registry import installed_entries
from hf_finetune.targets import TARGETS
from hf_finetune.tasks import register

__all__ = ["register_installed"]


@cache
def register_installed() -> None:
    """Register the tasks and label types that installed packages declare as entry points; only the first call does.

    Raises:
        ImportError: If one of them cannot be imported.
    """
    tasks, targets = (
        list(installed_entries("hf_finetune.tasks")),
        list(installed_entries("hf_finetune.targets")),
    )
    for task in tasks:
        register(task)
    for target in targets:
        TARGETS.add(target())

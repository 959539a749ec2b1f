"""Rules for tasks whose models have no head of the labels, such as masked language models."""

from collections.abc import Iterator, Mapping
from typing import Any

from hf_finetune.errors import Problem, short_repr
from hf_finetune.fields.raw_content import as_mapping
from hf_finetune.recipe.balance import BalanceSpec
from hf_finetune.recipe.head import HeadSpec
from hf_finetune.recipe.method_rules import CLASS_BALANCE, RULES
from hf_finetune.tasks import TASKS

__all__ = ["label_head_problems"]


def label_head_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems of fields that need a head of the labels, if the task has none.

    These are the fields of the head itself, and the methods that read the labels of an example or replace their loss.

    Args:
        recipe: Recipe as plain mappings and lists, any part of which may be missing or of the wrong type.
    """
    for name, spec in as_mapping(recipe.get("tasks")).items():
        task = as_mapping(spec).get("task")
        if _has_no_label_head(task):
            rule = "must be a task whose models have a head of the labels"
            yield Problem(f"tasks.{name}.task", rule, short_repr(task), "Train it with a recipe of its own.")
    task = recipe.get("task")
    if not _has_no_label_head(task):
        return
    rule = f"must not be set when the task is {task}, whose models have no head of the labels"
    head = as_mapping(recipe.get("model")).get("head")
    if head is not None and not _is_default(head, HeadSpec.model_fields):
        yield Problem("model.head", rule, short_repr(head))
    stages = recipe.get("stages")
    listed = (
        [(f"stages[{index}]", stage) for index, stage in enumerate(stages or ())] if _is_list(stages) else []
    )
    for place, stage in [*listed, ("strategy", recipe.get("strategy"))]:
        for method in RULES:
            if method is CLASS_BALANCE or method.needs_standard_loss:
                for field, value in method.used(as_mapping(stage)).items():
                    if not _is_default(value, BalanceSpec.model_fields):
                        yield Problem(f"{place}.{field}", rule, short_repr(value))


def _has_no_label_head(task: Any) -> bool:
    return isinstance(task, str) and task in TASKS and not TASKS[task].has_label_head


def _is_default(value: Any, fields: Mapping[str, Any]) -> bool:
    """Return whether the fields of a part, if it is one, have their default values, as in a written recipe."""
    return isinstance(value, Mapping) and all(
        name in fields and entry == fields[name].default for name, entry in value.items()
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)

"""Recipe fields that are defined by the modalities, and the rules for fields of other modalities than the task's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, create_model

from hf_finetune.errors import Problem, short_repr
from hf_finetune.fields.base import Part
from hf_finetune.fields.raw_content import as_mapping
from hf_finetune.fields.registry import RegisteredName
from hf_finetune.fields.types import NonEmptyText
from hf_finetune.targets import TARGETS
from hf_finetune.tasks import MODALITIES, TASKS, Modality
from hf_finetune.tasks.installed import register_installed

__all__ = ["AugmentFields", "DataFields", "RoleFields", "TaskName", "modality_problems"]


def _combine_fields(name: str, parts: Sequence[type[Part]]) -> type[Part]:
    """Return a class with the fields of several parts, in their order; pydantic lists those of the last base first."""
    bases = tuple(part for part in dict.fromkeys(reversed(parts)) if part is not Part)
    return type(name, bases, {"__module__": __name__, "__doc__": "Fields of all modalities."})


register_installed()
MODALITIES.close("the fields of recipes exist already; register it before the schema of recipes is imported")

TaskName = Annotated[str, RegisteredName(TASKS)]

if TYPE_CHECKING:

    class _AnyField(Part):
        def __init__(self, **fields: Any): ...

        def __getattr__(self, name: str) -> Any: ...

    class DataFields(_AnyField):  # noqa: D101
        pass

    class AugmentFields(_AnyField):  # noqa: D101
        pass

    class RoleFields(_AnyField):  # noqa: D101
        pass

else:
    DataFields = _combine_fields("DataFields", [modality.data_fields for modality in MODALITIES.values()])
    AugmentFields = _combine_fields(
        "AugmentFields", [modality.augment_fields for modality in MODALITIES.values()]
    )
    RoleFields = create_model(
        "RoleFields",
        __base__=Part,
        __module__=__name__,
        **{
            role.name: (NonEmptyText | None, Field(default=None, description=role.description))
            for modality in MODALITIES.values()
            for role in (*modality.roles, *modality.row_roles)
        },
    )


def _role_names(modality: Modality) -> list[str]:
    return [*modality.columns, *(role.name for role in modality.row_roles)]


def modality_problems(task: Any, data: Mapping[str, Any], speed: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems of fields that do not apply to the modality of the task.

    Args:
        task: ``task`` of the recipe.
        data: ``data`` of the recipe, as a plain mapping; any value may be of the wrong type.
        speed: ``speed`` of the recipe, as a plain mapping.
    """
    if not isinstance(task, str) or task not in TASKS:
        return
    modality = TASKS[task].modality
    other_modalities = [candidate for candidate in MODALITIES.values() if candidate is not modality]
    rule = f"must not be set when the task is {task}"
    for other_modality in other_modalities:
        columns = as_mapping(data.get("columns"))
        for name in _role_names(other_modality):
            if name not in _role_names(modality) and columns.get(name) is not None:
                yield Problem(f"data.columns.{name}", rule, short_repr(columns[name]))
        for name, field in other_modality.data_fields.model_fields.items():
            unset: tuple[Any, ...] = (None, field.default, [] if field.default == () else None)
            if name not in modality.data_fields.model_fields and data.get(name) not in unset:
                yield Problem(f"data.{name}", rule, short_repr(data[name]))
    preset_or_fields = data.get("augment")
    augment = (
        {"preset": preset_or_fields} if isinstance(preset_or_fields, str) else as_mapping(preset_or_fields)
    )
    for other_modality in other_modalities:
        repair = f"It applies to {other_modality.plural}; for {modality.plural}, use {modality.augment_description}."
        for name, field in other_modality.augment_fields.model_fields.items():
            if name in modality.augment_fields.model_fields:
                continue
            if augment.get(name) and augment[name] not in ("none", field.default):
                place = (
                    "data.augment"
                    if name == other_modality.augment_fields.shorthand
                    else f"data.augment.{name}"
                )
                yield Problem(place, rule, short_repr(augment[name]), repair)
    yield from modality.field_problems(augment)
    target = data.get("target")
    if isinstance(target, str) and target in TARGETS and not TASKS[task].accepts(target):
        accepted = [name for name in TARGETS if TASKS[task].accepts(name)]
        yield Problem("data.target", f"must be {' or '.join(accepted)} when the task is {task}", repr(target))
    if speed.get("memory_format") == "channels_last" and not modality.is_spatial:
        repair = "It is a memory format for images."
        yield Problem("speed.memory_format", rule, "'channels_last'", repair)

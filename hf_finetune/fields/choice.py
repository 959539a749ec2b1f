"""Base class of discriminated unions of recipe fields: one field selects the class that has the other fields.

A *union* is a direct subclass of ``Choice``, and the type of a field of a recipe. Its *options* are its subclasses, one
per value of the discriminator. For example, ``ScheduleSpec`` is a union with the discriminator ``name``, and
``StepSchedule`` is its option for ``name: step``.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Self, get_args

from pydantic import Discriminator, GetCoreSchemaHandler, Tag, model_validator
from pydantic_core import CoreSchema

from hf_finetune.fields.base import PER_GROUP, PLAIN, Part, leaf_parts
from hf_finetune.fields.types import as_tuple

__all__ = ["Choice", "clause", "is_tag", "option_at", "options_of"]


class Choice(Part):
    """Base class of unions.

    Subclass ``Choice`` once for the union, and the union once per option, with the fields of that option. A field of
    type ``ScheduleSpec`` accepts every option of the union, and ``ScheduleSpec(name="step")`` creates a
    ``StepSchedule``. The union has the default of the discriminator; the docstring of an option describes the option.
    """

    discriminator: ClassVar[str]
    """Field whose value selects the option."""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Describe the option by its docstring, move the union's fields to the end, and add the option to the union."""
        discriminator = cls.model_fields[cls.discriminator]
        discriminator.description = discriminator.description or " ".join(str(cls.__doc__).split())
        common = list(cls.union().model_fields)
        for name in common[common.index(cls.discriminator) + 1 :]:
            cls.model_fields[name] = cls.model_fields.pop(name)
        cls.model_rebuild(force=True)
        cls.union().model_rebuild(force=True)

    def __new__(cls, *args: Any, **fields: Any) -> Self:
        """Create an instance of the option that the discriminator selects."""
        return super().__new__(cls.option_of(fields) if cls.options() else cls)

    @classmethod
    def options(cls) -> dict[str, type[Self]]:
        """Return the options of a union by value of the discriminator; empty for an option."""
        return {_value(option): option for option in cls.__subclasses__()}

    @classmethod
    def option_of(cls, value: Any) -> type[Self]:
        """Return the option for a name, a mapping of fields or an instance.

        For an unknown name, it is the option of the nearest name, so that pydantic reports the error there; if no name
        is near, the option with most of the fields.
        """
        if isinstance(value, cls):
            return type(value)
        options, discriminator = cls.options(), cls.model_fields[cls.discriminator]
        fields = value if isinstance(value, Mapping) else {cls.discriminator: value}
        default = "" if discriminator.is_required() else discriminator.default
        if nearest := get_close_matches(str(fields.get(cls.discriminator, default)), options, n=1):
            return options[nearest[0]]
        return max(options.values(), key=lambda option: len(option.model_fields.keys() & fields.keys()))

    @classmethod
    def union(cls) -> "type[Choice]":
        """Return the union of an option, or the union itself."""
        return cls.__mro__[cls.__mro__.index(Choice) - 1]  # the direct subclass of Choice

    @classmethod
    def options_with_field(cls, field: str) -> list[str]:
        """Return the names of the options that have a field."""
        return [name for name, option in cls.union().options().items() if field in option.model_fields]

    @classmethod
    def meaning(cls) -> str:
        """Return the description of the discriminator and of each option."""
        cases = [
            f"{name} = {clause(str(option.model_fields[cls.discriminator].description))}"
            for name, option in cls.union().options().items()
        ]
        field = cls.union().model_fields[cls.discriminator]
        return f"{str(field.description).removesuffix('.')}: {'; '.join(cases)}."

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema of the discriminated union for a union, and the usual schema for an option."""
        if len(options := cls.options()) < 2:  # a union needs two options
            return handler(source)
        tagged: list[Any] = [Annotated[option, Tag(_tag(option))] for option in options.values()]
        discriminator = Discriminator(lambda value: _tag(cls.option_of(value)))
        return handler.generate_schema(Annotated[reduce(or_, tagged), discriminator])

    @model_validator(mode="before")
    @classmethod
    def _drop_default_fields_of_other_options(cls, value: Any) -> Any:
        """Drop fields of other options with default values; add the discriminator unless it is required.

        Recipes of older runs list the fields of all options with their defaults, and stay valid.
        """
        if not isinstance(value, Mapping):
            return value
        defaults = {
            field: info.default
            for option in cls.union().options().values()
            for field, info in option.model_fields.items()
            if field not in cls.model_fields
        }
        kept_fields = {
            field: entry
            for field, entry in value.items()
            if field not in defaults or as_tuple(entry) != defaults[field]
        }
        is_required = cls.union().model_fields[cls.discriminator].is_required()
        return kept_fields if is_required else {cls.discriminator: _value(cls), **kept_fields}


def _value(option: type[Choice]) -> str:
    """Return the value of the discriminator that selects an option: the only value of its ``Literal`` type."""
    value: str = get_args(option.model_fields[option.discriminator].annotation)[0]
    return value


def _tag(option: type[Part]) -> str:
    return f"({option.__name__})"


def clause(sentence: str) -> str:
    """Return a sentence as a clause: without the capital and the period."""
    return sentence[:1].lower() + sentence[1:].removesuffix(".")


def options_of(part: type[Part]) -> list[type[Part]]:
    """Return the options of a union; for any other part, the part itself."""
    return list(part.options().values() if issubclass(part, Choice) else ()) or [part]


def option_at(tag: str | int) -> type[Choice] | None:
    """Return the option of an internal tag in a pydantic error location; None for other items."""
    return next((part for part in leaf_parts() if issubclass(part, Choice) and _tag(part) == tag), None)


def is_tag(item: str | int) -> bool:
    """Return whether an item of a pydantic error location is an internal tag, and not a field or an index."""
    return item in (PLAIN, PER_GROUP) or option_at(item) is not None

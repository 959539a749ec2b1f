"""Base class of the parts of a recipe that have one class per value of one of their fields."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Self, get_args

from pydantic import Discriminator, GetCoreSchemaHandler, Tag, model_validator
from pydantic_core import CoreSchema

from hf_finetune.fields.base import PER_GROUP, PLAIN, Part, parts
from hf_finetune.fields.types import as_tuple

__all__ = ["Choice", "alternatives", "clause", "is_tag", "option_at"]


class Choice(Part):
    """Part with one class per value of a field, such as ``name: cosine``; each has its own fields.

    Their base class stands for all of them. As the type of a field, it is a discriminated union; and
    ``ScheduleSpec(name="step")`` returns a ``StepSchedule``. The base class has the default of the discriminator. The
    docstring of a class describes its value.
    """

    discriminator: ClassVar[str]
    """Field whose value selects the class."""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Describe the value by the docstring, put the own fields after it, and add the class to the union."""
        discriminator = cls.model_fields[cls.discriminator]
        discriminator.description = discriminator.description or " ".join(str(cls.__doc__).split())
        common = list(cls.base().model_fields)
        for name in common[common.index(cls.discriminator) + 1 :]:
            cls.model_fields[name] = cls.model_fields.pop(name)
        cls.model_rebuild(force=True)
        cls.base().model_rebuild(force=True)

    def __new__(cls, *args: Any, **fields: Any) -> Self:
        """Create a part of the class that the fields name."""
        return super().__new__(cls.option_of(fields) if cls.options() else cls)

    @classmethod
    def options(cls) -> dict[str, type[Self]]:
        """Return the class of each value of the discriminator; empty for such a class itself."""
        return {_value(option): option for option in cls.__subclasses__()}

    @classmethod
    def option_of(cls, value: Any) -> type[Self]:
        """Return the class that a name, fields or a part mean.

        For an unknown name, it is that of the nearest name; if no name is near, the class with most of the fields.
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
    def base(cls) -> "type[Choice]":
        """Return the class that stands for this one and its alternatives."""
        return cls.__mro__[cls.__mro__.index(Choice) - 1]

    @classmethod
    def owners(cls, field: str) -> list[str]:
        """Return the values of the discriminator for which a field exists."""
        return [name for name, option in cls.base().options().items() if field in option.model_fields]

    @classmethod
    def meaning(cls) -> str:
        """Return the description of the discriminator, with that of each value."""
        cases = [
            f"{name} = {clause(str(option.model_fields[cls.discriminator].description))}"
            for name, option in cls.base().options().items()
        ]
        field = cls.base().model_fields[cls.discriminator]
        return f"{str(field.description).removesuffix('.')}: {'; '.join(cases)}."

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema of a discriminated union for a base class, and its own schema for any other class."""
        if len(options := cls.options()) < 2:  # a union needs two classes
            return handler(source)
        tagged: list[Any] = [Annotated[option, Tag(_tag(option))] for option in options.values()]
        discriminator = Discriminator(lambda value: _tag(cls.option_of(value)))
        return handler.generate_schema(Annotated[reduce(or_, tagged), discriminator])

    @model_validator(mode="before")
    @classmethod
    def _leave_out_unused(cls, value: Any) -> Any:
        """Leave out fields of other classes with default values; add the discriminator unless it is required."""
        if not isinstance(value, Mapping):
            return value
        unused = {
            field: info.default
            for option in cls.base().options().values()
            for field, info in option.model_fields.items()
            if field not in cls.model_fields
        }
        own = {
            field: entry
            for field, entry in value.items()
            if field not in unused or as_tuple(entry) != unused[field]
        }
        is_required = cls.base().model_fields[cls.discriminator].is_required()
        return own if is_required else {cls.discriminator: _value(cls), **own}


def _value(option: type[Choice]) -> str:
    """Return the value of the discriminator that selects a class."""
    value: str = get_args(option.model_fields[option.discriminator].annotation)[0]
    return value


def _tag(option: type[Part]) -> str:
    return f"({option.__name__})"


def clause(sentence: str) -> str:
    """Return a sentence as a clause: without the capital and the period."""
    return sentence[:1].lower() + sentence[1:].removesuffix(".")


def alternatives(part: type[Part]) -> list[type[Part]]:
    """Return the classes of a choice; for any other part, the part itself."""
    return list(part.options().values() if issubclass(part, Choice) else ()) or [part]


def option_at(tag: str | int) -> type[Choice] | None:
    """Return the class of a choice that a tag in the location of an error stands for; None for any other step."""
    return next((part for part in parts() if issubclass(part, Choice) and _tag(part) == tag), None)


def is_tag(step: str | int) -> bool:
    """Return whether a step in the location of an error is the internal tag of a form or class, and not a field."""
    return step in (PLAIN, PER_GROUP) or option_at(step) is not None

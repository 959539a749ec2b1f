"""Rules between the fields of ``domain_adaptation``, and between these and other fields of a recipe."""

from collections.abc import Iterator, Mapping
from typing import Any

from hf_finetune.errors import Problem, shown
from hf_finetune.fields.raw_content import changed_fields, mapping
from hf_finetune.recipe.domain import DomainSpec

__all__ = ["OF_DOMAIN", "domain_rule_problems"]

BEFORE, DURING = ("continue_pretraining",), ("coral", "dann")
OF_DOMAIN = {
    DURING: ("weight", "stages"),
    BEFORE: ("epochs", "max_steps", "lr", "batch_size", "mask", "source"),
}
"""Fields of ``domain_adaptation`` that only some methods use, by these methods."""
PLACE = "domain_adaptation"


def domain_rule_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems between fields of ``domain_adaptation``, and between these and other fields of a recipe.

    Args:
        recipe: Recipe as plain mappings and lists, any part of which may be missing or of the wrong type.
    """
    spec = mapping(recipe.get(PLACE))
    method = spec.get("method")
    if method not in (*BEFORE, *DURING):
        return
    for owners, fields in OF_DOMAIN.items():
        unused = changed_fields(spec, DomainSpec, fields) if method not in owners else {}
        for field, value in unused.items():
            rule = f"must be left out unless method is {' or '.join(owners)}"
            yield Problem(f"{PLACE}.{field}", rule, shown(value))
    if spec.get("epochs") is not None and spec.get("max_steps") is not None:
        rule = "must have either epochs (passes over the inputs) or max_steps (optimizer steps)"
        yield Problem(PLACE, rule, f"epochs {spec['epochs']!r} and max_steps {spec['max_steps']!r}")
    if method in BEFORE and mapping(recipe.get("model")).get("adapter") is not None:
        rule = f"must be left out when domain_adaptation.method is {method}"
        repair = (
            "An adapter requires the checkpoint's original weights. Remove the adapter, or use coral or dann."
        )
        yield Problem("model.adapter", rule, "", repair)
    if method in DURING and mapping(recipe.get("speed")).get("compile") is True:
        rule = f"must not be true when domain_adaptation.method is {method}"
        repair = "The method reads features inside the forward pass. Set it to false."
        yield Problem("speed.compile", rule, "True", repair)

"""Defaults by architecture, of training depth and learning rates; notes on given rates that are far from them."""

from collections.abc import Sequence
from dataclasses import dataclass

from hf_finetune.errors import InputError
from hf_finetune.planning.layers import Layout
from hf_finetune.planning.selectors import AUTO, LAST, select
from hf_finetune.recipe.head_fit import solver_of
from hf_finetune.recipe.rules import is_adamw
from hf_finetune.recipe.stage_fields import RatesSpec, StageSpec

__all__ = [
    "PARAMETER_EFFICIENT_RATES",
    "WARN_FACTOR",
    "Defaults",
    "fill_learning_rates",
    "fill_selectors",
    "rate_notes",
]

WARN_FACTOR = 10.0
"""Factor between a given learning rate and the default above which a note points it out."""
TOLERANCE = 1 + 1e-9


@dataclass(frozen=True)
class Defaults:
    """Fine-tuning defaults of an architecture, for AdamW with about 32 examples per optimizer step.

    Attributes:
        family: Display name of the architectures.
        lr: Peak learning rate of a stage that trains layers of the backbone.
        layer_decay: Factor on ``lr`` per layer group from the head towards the input, in (0, 1].
        lr_source: Source of ``lr``: measured here, stated by a source, scaled from one, or a convention.
        decay_source: Source of ``layer_decay``, likewise.
        head_lr: Peak learning rate of a stage that trains the head alone.
        train: Selector that replaces ``train: auto``, for the part of the backbone that is worth training; ``all`` or
            ``last:N``.
        pooling: Pooling of tokens or positions into the vector that the head reads.
        model_types: Values of ``model_type`` in transformers configs.
        timm: Regular expression matched at the beginning of timm model names; empty for none.
        narrowest: Minimum hidden size for which the defaults apply; None for any.
        widest: Maximum hidden size for which the defaults apply; None for any.
    """

    family: str
    lr: float
    layer_decay: float
    lr_source: str
    decay_source: str
    head_lr: float = 1e-3
    train: str = "all"
    pooling: str = "own"
    model_types: tuple[str, ...] = ()
    timm: str = ""
    narrowest: int | None = None
    widest: int | None = None


@dataclass(frozen=True)
class AdapterRate:
    """Peak learning rate of a stage that trains a few parameters of the backbone, for all architectures.

    Attributes:
        part: Parameters that are trained in addition to the head.
        lr: Peak learning rate, with AdamW.
        source: Source of the learning rate.
    """

    part: str
    lr: float
    source: str


PARAMETER_EFFICIENT_RATES = {
    "lora": AdapterRate(
        "a LoRA adapter",
        5e-4,
        "stated: Hu et al. 2022, table 9 (RoBERTa-base: 4e-4 or 5e-4, with batch size 16 or 32)",
    ),
    "dora": AdapterRate(
        "a DoRA adapter",
        3e-4,
        "scaled: two thirds of LoRA's rate, as the authors have for LLaMA-7B (Liu et al. 2024; NVlabs/DoRA, "
        "commonsense_reasoning/README.md: 2e-4 where LoRA has 3e-4)",
    ),
    "ia3": AdapterRate(
        "an IA3 adapter",
        3e-3,
        "stated for Adafactor: Liu et al. 2022, T-Few (r-three/t-few, configs/ia3.json and src/utils/Config.py); "
        "with AdamW: convention",
    ),
    "small": AdapterRate(
        "norms or biases",
        1e-3,
        "stated for biases, with batch size 8: Ben Zaken et al. 2022, BitFit (benzakenelad/BitFit, run_glue.py); "
        "for norms: convention",
    ),
}
"""Learning rates by kind of adapter; ``small`` is for norms and biases."""


@dataclass(frozen=True)
class _StageDefault:
    """Default peak learning rate and layer decay of one stage, and the words that describe where they apply."""

    lr: float
    layer_decay: float
    words: str


def fill_selectors(
    stages: Sequence[StageSpec], layout: Layout, defaults: Defaults
) -> tuple[tuple[StageSpec, ...], tuple[str, ...]]:
    """Replace ``train: auto`` by the model's adapter, or if it has none, by the default of its architecture.

    Args:
        stages: Stages of a recipe.
        layout: Parameters and layer groups of the model; there may be fewer groups than the N of ``last:N``.
        defaults: Defaults of its architecture.

    Returns:
        The stages, and a sentence on those that were changed.
    """
    auto_stages = [index for index, spec in enumerate(stages) if spec.train == AUTO]
    if not auto_stages:
        return tuple(stages), ()
    selector, source_note = layout.adapter, "the model's adapter"
    if not selector:
        last = LAST.fullmatch(defaults.train)
        is_all = last is not None and int(last[1]) >= layout.backbone_group_count
        selector, source_note = "all" if is_all else defaults.train, f"default of {defaults.family}"
    filled = tuple(
        spec.model_copy(update={"train": selector}) if spec.train == AUTO else spec for spec in stages
    )
    return filled, (f"stages[{', '.join(map(str, auto_stages))}].train is {selector}: {source_note}.",)


def fill_learning_rates(
    stages: Sequence[StageSpec], layout: Layout, defaults: Defaults
) -> tuple[tuple[StageSpec, ...], tuple[str, ...]]:
    """Set the learning rates and layer decays that a recipe leaves open to the defaults of the architecture.

    If the recipe sets the rate of a stage, the default of its layer decay is 1.

    Args:
        stages: Stages of a recipe.
        layout: Parameters and layer groups of the model.
        defaults: Defaults of the model's architecture.

    Returns:
        The stages, and a sentence for each rate that was set, with the stages that have it. A stage whose selector
        matches nothing, which the plan rejects later, is unchanged.
    """
    filled: list[StageSpec] = []
    places: dict[str, list[int]] = {}
    for index, spec in enumerate(stages):
        changes: dict[str, float] = {} if spec.layer_decay is not None else {"layer_decay": 1.0}
        if spec.lr is None and not solver_of(spec):
            default_rate = _stage_default(spec, layout, defaults)
            if default_rate is None:
                filled.append(spec)
                continue
            changes["lr"] = default_rate.lr
            and_decay = ""
            if spec.layer_decay is None:
                changes["layer_decay"] = default_rate.layer_decay
                and_decay = (
                    f", layer_decay {default_rate.layer_decay:g}" if default_rate.layer_decay != 1 else ""
                )
            places.setdefault(f"{default_rate.lr:g}{and_decay}: default {default_rate.words}", []).append(
                index
            )
        filled.append(spec.model_copy(update=changes) if changes else spec)
    notes = (
        f"stages[{', '.join(map(str, indices))}].lr is {sentence}." for sentence, indices in places.items()
    )
    return tuple(filled), tuple(notes)


def rate_notes(
    stages: Sequence[StageSpec], layout: Layout, defaults: Defaults, place: str = ""
) -> tuple[str, ...]:
    """Return a sentence for each given rate whose ratio to the default exceeds ``WARN_FACTOR`` in either direction.

    Only rates of AdamW are compared: those of other optimizers have another scale.

    Args:
        stages: Stages with their learning rates.
        layout: Parameters and layer groups of the model.
        defaults: Defaults of the model's architecture.
        place: Location of the rates, if it is not in the stages; empty for ``stages[i].lr``.
    """
    notes = []
    for index, spec in enumerate(stages):
        if spec.lr is None or solver_of(spec) or not is_adamw(spec.optimizer.name):
            continue
        default_rate = _stage_default(spec, layout, defaults)
        if default_rate is None:
            continue
        where = place or f"stages[{index}].lr"
        if isinstance(spec.lr, RatesSpec):
            backbone = spec.lr.backbone
            top = backbone[1] if isinstance(backbone, tuple) else backbone
            head_default = _StageDefault(defaults.head_lr, 1.0, f"of {defaults.family} for the head")
            notes += [
                _unusual_rate_note(f"{where}.head", spec.lr.head, head_default),
                _unusual_rate_note(f"{where}.backbone", top, default_rate),
            ]
        else:
            notes.append(_unusual_rate_note(where, spec.lr, default_rate))
    return tuple(dict.fromkeys(filter(None, notes)))


def _unusual_rate_note(place: str, rate: float, default_rate: _StageDefault) -> str:
    """Return a sentence on a rate that is far from the default; empty if it is not."""
    factor = rate / default_rate.lr
    if factor * TOLERANCE >= 1 / WARN_FACTOR and factor <= WARN_FACTOR * TOLERANCE:
        return ""
    times = f"{_format_factor(factor)} times" if factor > 1 else f"1/{_format_factor(1 / factor)} of"
    return (
        f"{place} is {rate:g}, {times} the default {default_rate.words} ({default_rate.lr:g}). "
        "Remove lr, or choose a value closer to the default, unless this is intended."
    )


def _format_factor(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 100 else f"{factor:.3g}"


def _stage_default(spec: StageSpec, layout: Layout, defaults: Defaults) -> _StageDefault | None:
    """Return the default rate of a stage, by the parameters it trains; None if its selector matches nothing."""
    try:
        chosen = set(select(layout, spec.train))
    except InputError:
        return None
    below = [
        parameter
        for parameter in layout.parameters
        if parameter.name in chosen and (parameter.is_adapter or parameter.group < layout.head_group)
    ]
    of_family = f"of {defaults.family} for a stage that trains"
    if not below:
        return _StageDefault(defaults.head_lr, 1.0, f"{of_family} the head alone")
    if all(parameter.is_adapter for parameter in below):
        part = PARAMETER_EFFICIENT_RATES[layout.adapter]
    elif all(parameter.is_norm or parameter.is_bias for parameter in below):
        part = PARAMETER_EFFICIENT_RATES["small"]
    else:
        return _StageDefault(defaults.lr, defaults.layer_decay, f"{of_family} the backbone")
    return _StageDefault(part.lr, 1.0, f"for a stage that trains {part.part}")

"""Optional training methods of a stage: class balance, mixup, R-Drop, EMA, distillation and others, one file each."""

from collections.abc import Sequence

from hf_finetune.methods.base import Method, StageContext
from hf_finetune.methods.carried_optimizer import CarriedOptimizer
from hf_finetune.methods.class_balance import ClassBalance
from hf_finetune.methods.distillation import Teacher
from hf_finetune.methods.domain_alignment import DomainAlignment
from hf_finetune.methods.ema import AveragedWeights
from hf_finetune.methods.mixup import BatchMixer
from hf_finetune.methods.proximal import GradientNoise, ProximalSteps
from hf_finetune.methods.pruning_masks import PruningMasks
from hf_finetune.methods.r_drop import RDrop
from hf_finetune.methods.task_mixing import TaskMixture
from hf_finetune.planning.stages import StagePlan
from hf_finetune.recipe.schema import Recipe
from hf_finetune.recipe.stage_fields import StageSpec

__all__ = ["METHODS", "Method", "StageContext", "build_methods", "cache_blocker"]

METHODS: tuple[type[Method], ...] = (
    CarriedOptimizer,
    Teacher,
    ClassBalance,
    TaskMixture,
    DomainAlignment,
    GradientNoise,
    ProximalSteps,
    AveragedWeights,
    BatchMixer,
    RDrop,
    PruningMasks,
)
"""All methods, in the order in which their hooks are called."""


def build_methods(context: StageContext, loaded: Sequence[Method] = ()) -> list[Method]:
    """Return the methods of a stage, in the order of their hooks.

    Args:
        context: Stage, model and labels.
        loaded: Methods of the stage that the run has built from files.
    """
    methods: dict[type[Method], Method | None] = dict.fromkeys(METHODS)
    methods |= {type(method): method for method in loaded}
    built = (method or kind.build(context) for kind, method in methods.items())
    return [method for method in built if method is not None]


def cache_blocker(recipe: Recipe, spec: StageSpec, plan: StagePlan) -> str:
    """Return the reason why a stage cannot cache the outputs of its frozen layers; empty if it can.

    Args:
        recipe: Recipe of the run.
        spec: Stage of the recipe.
        plan: Plan of the stage.
    """
    used = (kind for kind in METHODS if kind.is_used(recipe, spec, plan))
    return next(filter(None, (kind.rules.cache_blocker for kind in used)), "")

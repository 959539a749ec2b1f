"""The teachers that stages learn from, checked against what they are to teach."""

from typing import Any

import torch

from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.predictor import Classifier, load_classifier
from hf_finetune.methods.distillation import Teacher
from hf_finetune.recipe import StageSpec
from hf_finetune.runs.prepare import Ready

__all__ = ["load_teachers"]


def load_teachers(ready: Ready) -> list[Teacher | None]:
    """Load the teacher of each stage; None for a stage without one.

    Raises:
        InputError: If a teacher cannot be loaded, knows other classes, or takes other inputs than the model.
    """
    if ready.recipe.evaluation.folds is not None and any(stage.teacher for stage in ready.recipe.stages):
        rule = "must be left out where a stage has a teacher"
        repair = "It has learned from examples that a fold holds back."
        raise InputError(Problem("evaluation.folds", rule, str(ready.recipe.evaluation.folds), repair))
    return [
        _load(stage, f"stages[{index}].teacher", ready) for index, stage in enumerate(ready.recipe.stages)
    ]


def _load(stage: StageSpec, place: str, ready: Ready) -> Teacher | None:
    spec = stage.teacher
    if spec is None:
        return None
    task: Any = ready.task.name
    classifier = load_classifier(spec.path, task=task, trust_remote_code=ready.trust_remote_code)
    names, wanted = classifier.label_names, ready.data.label_names
    if classifier.target != ready.data.target:
        rule = f"must be a model for {ready.data.target} data"
        raise InputError(Problem(place, rule, f"one for {classifier.target}"))
    if ready.data.target == "regression":
        order = [0]
    elif set(names) != set(wanted):
        rule = "must know exactly the classes of the data"
        raise InputError(Problem(place, rule, f"one for {', '.join(map(repr, names[:10]))}"))
    else:
        order = [names.index(name) for name in wanted]
    if not _takes_the_same(classifier, ready):
        found = "one that is fed otherwise"
        repair = "Both get the same batch: image size and normalisation, or the tokenizer, must be the same."
        raise InputError(Problem(place, "must take the model's own inputs", found, repair))
    return Teacher(classifier.pipe.model, order, spec.temperature, spec.weight)


def _takes_the_same(classifier: Classifier, ready: Ready) -> bool:
    """Tell whether both models are fed alike, from their tokenizers or from what becomes of an image."""
    pipe: Any = classifier.pipe
    if ready.task.modality == "text":
        return pipe.tokenizer.get_vocab() == ready.processor.get_vocab()
    one, other = (ready.task.dummy(each)["pixel_values"] for each in (pipe.image_processor, ready.processor))
    return one.shape == other.shape and torch.equal(one, other)

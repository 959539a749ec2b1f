"""Teacher models of the stages, checked against the model and its data."""

from typing import Any

from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.predictor import Classifier, load_classifier
from hf_finetune.methods import Method
from hf_finetune.methods.distillation import Teacher
from hf_finetune.recipe.teacher import TeacherSpec
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.targets import TARGETS

__all__ = ["load_teachers"]


def load_teachers(prepared: PreparedRun) -> dict[int, Method]:
    """Load the teachers of the stages, by the index of the stage.

    Raises:
        InputError: If a teacher cannot be loaded, has other classes or another label type, or takes other inputs than
            the model; or if a run with a teacher is cross-validated.
    """
    if prepared.recipe.evaluation.folds is not None and any(
        stage.teacher for stage in prepared.recipe.stages
    ):
        rule = "must be left out when a stage has a teacher"
        repair = "The teacher was trained on examples that a fold holds out."
        raise InputError(Problem("evaluation.folds", rule, str(prepared.recipe.evaluation.folds), repair))
    return {
        index: _load(stage.teacher, f"stages[{index}].teacher", prepared)
        for index, stage in enumerate(prepared.recipe.stages)
        if stage.teacher is not None
    }


def _load(spec: TeacherSpec, place: str, prepared: PreparedRun) -> Teacher:
    task: Any = prepared.task.name
    classifier = load_classifier(spec.path, task=task, trust_remote_code=prepared.trust_remote_code)
    names, wanted = classifier.label_names, prepared.data.label_names
    if classifier.target != prepared.data.target:
        rule = f"must be a model for {prepared.data.target} data"
        raise InputError(Problem(place, rule, f"a model for {classifier.target}"))
    if not TARGETS[prepared.data.target].has_classes:
        order = [0]
    elif set(names) != set(wanted):
        rule = "must have the same classes as the data"
        raise InputError(Problem(place, rule, f"classes {', '.join(map(repr, names[:10]))}"))
    else:
        order = [names.index(name) for name in wanted]
    if not _takes_the_same(classifier, prepared):
        value = "different preprocessing"
        repair = "Choose a teacher with the same tokenizer, or the same image size and normalization."
        raise InputError(Problem(place, "must use the same preprocessing as the model", value, repair))
    return Teacher(classifier.pipe.model, order, spec.temperature, spec.weight)


def _takes_the_same(classifier: Classifier, prepared: PreparedRun) -> bool:
    """Return whether teacher and model have the same vocabulary, or preprocess an image to the same pixels."""
    processor = prepared.task.modality.processor_of(classifier.pipe)
    return prepared.task.modality.same_inputs(processor, prepared.processor)

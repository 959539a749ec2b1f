"""Load and check the inputs of training: the pretrained model, the examples, teachers and the target domain."""

from dataclasses import dataclass, replace
from typing import Any

from accelerate import PartialState

from hf_finetune.data.model_inputs import prepare_inputs
from hf_finetune.distributed import main_process_first
from hf_finetune.errors import InputError, Problem, collect_problems
from hf_finetune.evaluation.classifier import load_classifier
from hf_finetune.methods import Method
from hf_finetune.methods.distillation import Teacher
from hf_finetune.models.build import BuiltModel
from hf_finetune.models.find_head import head_names
from hf_finetune.recipe.teacher import TeacherSpec
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.cross_validation import check_folds
from hf_finetune.runs.domain_adaptation import Pretraining, load_alignments, prepare_pretraining
from hf_finetune.runs.forward_check import check_forward, padding_notes
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.targets import TARGETS
from hf_finetune.tasks import Inputs
from hf_finetune.training.manifest import Manifest

__all__ = ["RunStart", "load_start", "load_teachers"]


@dataclass(frozen=True)
class RunStart:
    """Inputs of the first stage, each checked against the others.

    Attributes:
        built: Pretrained model with its new head.
        inputs: Examples as model inputs.
        methods: For each stage, the methods that need files: a teacher, inputs of the target domain.
        pretraining: Training before the first stage, or None.
    """

    built: BuiltModel
    inputs: Inputs
    methods: list[list[Method]]
    pretraining: Pretraining | None


def load_start(prepared: PreparedRun, before: Manifest | None, state: PartialState) -> RunStart:
    """Load the inputs of the first stage, and check a forward pass.

    Args:
        prepared: Checked run.
        before: Manifest of the run that is resumed; None for a new run.
        state: State of the process: its rank, the number of processes, and the device.

    Returns:
        The inputs of the first stage.

    Raises:
        InputError: With the problems of all inputs together.
    """
    recipe, problems = prepared.recipe, list[Problem]()
    methods: list[list[Method]] = [[] for _ in recipe.stages]
    pretraining = None
    built = load_pretrained(prepared)
    inputs = prepare_inputs(prepared.task, prepared.data, prepared.processor, recipe.data, recipe.seed)
    problems += _untrained_head_problems(built, prepared)
    with collect_problems(problems):
        check_forward(built.model, prepared, inputs)
        built = replace(built, notes=(*built.notes, *padding_notes(built.model, prepared)))
    for load in (load_teachers, load_alignments):
        with collect_problems(problems):
            for index, method in load(prepared).items():
                methods[index].append(method)
    with collect_problems(problems):
        pretraining = prepare_pretraining(prepared, built.model, before, state)
    with collect_problems(problems), main_process_first(state):
        check_folds(recipe)
    if problems:
        raise InputError(problems)
    return RunStart(built, inputs, methods, pretraining)


def _untrained_head_problems(built: BuiltModel, prepared: PreparedRun) -> list[Problem]:
    """Return the problem of a new head that no stage trains."""
    trained = {name for plan in prepared.plan.stages for name in plan.trainable}
    if not built.has_new_head or trained & set(head_names(built.model)):
        return []
    selectors = ", ".join(repr(plan.train) for plan in prepared.plan.stages)
    repair = "Add head to a stage, such as train: [head, 'layers[1:]']."
    return [Problem("stages", "must train the head, whose weights are random", selectors, repair)]


def load_teachers(prepared: PreparedRun) -> dict[int, Method]:
    """Load the teachers of the stages, by the index of the stage.

    Args:
        prepared: Checked run.

    Returns:
        The teacher of each stage that has one.

    Raises:
        InputError: If a teacher cannot be loaded, has other classes or another label type, or takes other inputs than
            the model; or if a run with a teacher is cross-validated.
    """
    if prepared.recipe.evaluation.folds is not None and any(spec.teacher for spec in prepared.recipe.stages):
        rule = "must not be set if a stage has a teacher"
        repair = "The teacher was trained on examples that a fold holds out."
        raise InputError(Problem("evaluation.folds", rule, str(prepared.recipe.evaluation.folds), repair))
    return {
        index: _load_teacher(spec.teacher, f"stages[{index}].teacher", prepared)
        for index, spec in enumerate(prepared.recipe.stages)
        if spec.teacher is not None
    }


def _load_teacher(spec: TeacherSpec, place: str, prepared: PreparedRun) -> Teacher:
    task: Any = prepared.task.name
    classifier = load_classifier(spec.path, task=task, trust_remote_code=prepared.trust_remote_code)
    teacher_classes, student_classes = classifier.label_names, prepared.data.label_names
    if classifier.target != prepared.data.target:
        rule = f"must be a model for {prepared.data.target} data"
        raise InputError(Problem(place, rule, f"a model for {classifier.target}"))
    if not TARGETS[prepared.data.target].has_classes:
        order = list(range(len(student_classes)))
    elif set(teacher_classes) != set(student_classes):
        rule = "must have the same classes as the data"
        raise InputError(Problem(place, rule, f"classes {', '.join(map(repr, teacher_classes[:10]))}"))
    else:
        order = [teacher_classes.index(name) for name in student_classes]
    modality = prepared.task.modality
    if not modality.same_preprocessing(modality.get_processor(classifier.pipe), prepared.processor):
        value = "different preprocessing"
        repair = "Choose a teacher with the same tokenizer, or the same image size and normalization."
        raise InputError(Problem(place, "must use the same preprocessing as the model", value, repair))
    return Teacher(classifier.pipe.model, order, spec.temperature, spec.weight)

"""The inputs of the first stage: the pretrained model, the examples, teachers and the target domain, all tried out."""

from dataclasses import dataclass, replace

from accelerate import PartialState

from hf_finetune.data.model_inputs import prepare_inputs
from hf_finetune.distributed import main_process_first
from hf_finetune.errors import InputError, Problem, collect_problems
from hf_finetune.methods import Method
from hf_finetune.models.build import BuiltModel
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.cross_validation import check_folds
from hf_finetune.runs.domain_adaptation import Pretraining, load_alignments, prepare_pretraining
from hf_finetune.runs.forward_check import padding_notes, try_forward
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.runs.teachers import load_teachers
from hf_finetune.tasks import Inputs
from hf_finetune.training.manifest import Manifest

__all__ = ["RunStart", "load_start"]


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
    """Load the inputs of the first stage, and try a forward pass.

    Args:
        prepared: Checked run.
        before: Manifest of the run that is resumed; None for a new run.
        state: The processes.

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
    with collect_problems(problems):
        try_forward(built.model, prepared, inputs)
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

"""The defences of several tasks in one model."""

from mutation import Mutation
from mutation_removals import counts_numbers, nothing

__all__ = ["OF_TASKS"]

MIXING = "hf_finetune.methods.task_mixing"
TASKS = "tests/unit/test_several_tasks.py::test_"

OF_TASKS = (
    Mutation(
        "A step without examples of a task leaves its head alone",
        f"{MIXING}:FreezeIdleHeads.on_pre_optimizer_step",
        "nothing",
        nothing,
        (f"{TASKS}a_step_without_examples_of_a_task_leaves_its_head_alone_in_spite_of_decay_and_momentum",),
    ),
    Mutation(
        "A step of several tasks is divided by its examples",
        f"{MIXING}:Mix.count_labels",
        "the numbers that their labels are made of",
        counts_numbers,
        (f"{TASKS}a_step_counts_examples_however_many_numbers_a_label_is_made_of",),
    ),
    Mutation(
        "Every epoch mixes the tasks anew",
        f"{MIXING}:TaskSampler.set_epoch",
        "nothing",
        nothing,
        (f"{TASKS}seed_and_epoch_decide_what_is_drawn_and_nothing_else",),
    ),
    Mutation(
        "Every task's examples are varied by the epoch",
        "hf_finetune.data.joint_tasks:MixedExamples.set_epoch",
        "nothing",
        nothing,
        (f"{TASKS}the_epoch_reaches_the_examples_of_every_task",),
    ),
)

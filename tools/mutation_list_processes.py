"""The defences that several processes need. Their tests launch processes, which take the defence away themselves."""

from mutation import Mutation
from mutation_removals import as_it_is, mean_loss, nothing, the_trainers, without_a_context

__all__ = ["OF_PROCESSES"]

TRAINER = "hf_finetune.training.trainer:StagedTrainer"
PROCESSES = "tests/distributed/test_processes.py::test_"
INTERRUPTED = "tests/distributed/test_interrupted.py::test_"
SHARDED = "tests/distributed/test_fsdp.py::test_"

BALANCING = "tests/unit/test_methods_class_balance.py::test_"

OF_PROCESSES = (
    Mutation(
        "The loss with weights is a sum over the labels of the whole batch",
        "hf_finetune.methods.class_balance:balanced_loss",
        "a mean over the forward pass",
        mean_loss,
        (
            f"{BALANCING}parts_of_a_batch_add_up_to_it[weights-single_label]",
            f"{BALANCING}the_gradient_does_not_depend_on_the_accumulation[bert-weights]",
        ),
    ),
    Mutation(
        "Each epoch draws other examples of each class",
        "hf_finetune.methods.class_balance:BalancedSampler.set_epoch",
        "nothing",
        nothing,
        (
            f"{BALANCING}draws_depend_on_seed_and_epoch_only",
            f"{BALANCING}over_the_epochs_every_example_has_its_turn",
        ),
    ),
    Mutation(
        "The rest of an epoch that was interrupted is drawn as it was",
        "hf_finetune.training.trainer:tell_epochs",
        "nothing",
        nothing,
        (
            f"{INTERRUPTED}two_processes_go_on_bit_for_bit_in_the_middle_of_a_later_epoch",
            "tests/distributed/test_kit.py::"
            "test_two_processes_go_on_bit_for_bit_in_the_middle_of_an_epoch_that_is_drawn",
        ),
    ),
    Mutation(
        "Each example of an epoch is trained on once",
        f"{TRAINER}.get_train_dataloader",
        "the Trainer's own",
        the_trainers("get_train_dataloader"),
        (
            f"{PROCESSES}each_process_trains_on_its_share",
            f"{PROCESSES}loss_and_gradient_norm_do_not_depend_on_the_number_of_processes",
        ),
    ),
    Mutation(
        "The labels of a step are counted exactly, amounts of -100 too, fillers not",
        f"{TRAINER}._get_num_items_in_batch",
        "the Trainer's own",
        the_trainers("_get_num_items_in_batch"),
        ("tests/unit/test_data_distributed_sampling.py::test_the_trainer_counts_amounts_exactly",),
    ),
    Mutation(
        "FSDP divides the model on the CPU too",
        f"{TRAINER}.create_accelerator_and_postprocess",
        "the Trainer's own",
        the_trainers("create_accelerator_and_postprocess"),
        (f"{SHARDED}the_model_is_divided",),
    ),
    Mutation(
        "All processes evaluate with the BatchNorm statistics that are saved",
        "hf_finetune.data.distributed_sampling:SharedBuffers.on_epoch_end",
        "nothing",
        nothing,
        (f"{PROCESSES}every_process_evaluates_with_the_same_statistics",),
    ),
    Mutation(
        "The validation loss counts each example once",
        "hf_finetune.training.stage:with_loss",
        "the Trainer's own, the mean of the batches' means",
        as_it_is,
        (f"{PROCESSES}validation_judges_the_weights_that_are_saved",),
    ),
    Mutation(
        "A process that has lost another says so in plain words",
        "hf_finetune.distributed:detect_lost_process",
        "what gloo says",
        without_a_context,
        (f"{INTERRUPTED}a_process_that_dies_ends_the_others_and_they_say_so",),
    ),
    Mutation(
        "A step sees as many examples on another number of processes",
        "hf_finetune.runs.changes:spread_recipe",
        "each process takes the recipe's batches",
        as_it_is,
        (f"{INTERRUPTED}two_processes_go_on_where_one_was",),
    ),
)

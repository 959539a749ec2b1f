"""The defences of the package, how each is taken away, and the tests that must then fail."""

from mutation import Mutation
from mutation_list_domain import OF_DOMAIN
from mutation_list_kept import OF_KEPT
from mutation_list_processes import OF_PROCESSES
from mutation_list_regular import OF_REGULAR
from mutation_list_security import OF_SECURITY
from mutation_list_tasks import OF_TASKS
from mutation_removals import (
    accept_loss_arguments,
    always,
    beside_the_base_model,
    count_every_share,
    follow_the_mode,
    freeze_nothing_quietly,
    keep_the_checkpoints_labels,
    mean_loss,
    newest_by_name,
    not_ours,
    nothing,
    one_folder,
    one_rate,
    only_the_first_rate,
    only_with_parameters,
    remember_the_phase,
    same_seed,
    skip_single_selectors,
    swallow_divergence,
    the_trainers,
    unseeded,
    wrapper_names,
    write_in_place,
)

__all__ = ["MUTATIONS"]


TRAINER = "hf_finetune.training.trainer"
STAGE = "hf_finetune.training.stage"
FREEZING = "hf_finetune.training.freezing"
CALLBACKS = "hf_finetune.training.callbacks"
THAWING = "hf_finetune.training.freezing_callback"
BUILD = "hf_finetune.models.build"
LAYOUT = "hf_finetune.models.layout"
UNIT = "tests/unit/"
INVARIANT = f"{UNIT}test_invariants.py::test_what_a_stage_says_is_trained_is_trained_and_nothing_else_moves"
GRADIENT = f"{UNIT}test_invariants.py::test_the_gradient_of_every_stage_is_that_of_its_whole_batch"
PREFIX = f"{UNIT}test_invariants.py::test_what_stands_before_the_first_trained_layer_gives_the_same_each_time"
TRAP = f"{UNIT}test_traps_freezing.py::test_trap_"
TRAP_TRAINING = f"{UNIT}test_traps_training.py::test_trap_"
TRAP_MODELS = f"{UNIT}test_traps_models.py::test_trap_"
MODELS_BUILD = f"{UNIT}test_models_build.py::test_"
STAGING = f"{UNIT}test_training_callbacks.py::test_"

MUTATIONS = (
    Mutation(
        "The optimiser holds the planned groups, with their rates and decay",
        f"{TRAINER}:StagedTrainer.create_optimizer",
        "the Trainer's own",
        the_trainers("create_optimizer"),
        (
            f"{INVARIANT}[bert]",
            f"{UNIT}test_training_trainer.py::test_the_optimizer_holds_exactly_what_is_trained_as_planned"
            "[bert-all-0.5]",
        ),
    ),
    Mutation(
        "Checkpoints are saved under the names that they are reloaded by",
        f"{TRAINER}:StagedTrainer._save",
        "the Trainer's own",
        the_trainers("_save"),
        (f"{TRAP_MODELS}14_the_best_checkpoint_is_really_restored[vit]",),
    ),
    Mutation(
        "A checkpoint is sealed once it is whole",
        f"{TRAINER}:StagedTrainer._save_checkpoint",
        "the Trainer's own",
        the_trainers("_save_checkpoint"),
        (f"{UNIT}test_training_trainer.py::test_the_checkpoints_of_the_trainer_are_sealed",),
    ),
    Mutation(
        "Head and backbone follow schedules of their own",
        f"{TRAINER}:StagedTrainer.create_scheduler",
        "the Trainer's own",
        the_trainers("create_scheduler"),
        (f"{UNIT}test_training_trainer.py::test_each_group_has_its_schedule_behind_the_warmup_of_the_stage",),
    ),
    Mutation(
        "A loss that is left to the model is averaged over the micro-batches",
        f"{TRAINER}:StagedTrainer.__init__",
        "`model_accepts_loss_kwargs` stays true, as the Trainer finds it",
        accept_loss_arguments,
        (f"{TRAP_TRAINING}11_a_loss_that_is_left_to_the_model_is_averaged[bert]",),
    ),
    Mutation(
        "The loss is divided by the labels of the whole batch",
        "hf_finetune.targets.losses:loss_for",
        "the mean over the micro-batch",
        mean_loss,
        (
            f"{GRADIENT}[vit]",
            f"{TRAP_TRAINING}11_the_gradient_does_not_grow_with_the_accumulation[bert]",
            f"{TRAP_TRAINING}12_a_loss_function_is_divided_by_the_labels_of_the_whole_batch",
            "tests/distributed/test_gradients.py::"
            "test_the_gradient_of_every_stage_does_not_depend_on_the_number_of_processes[bert]",
        ),
    ),
    Mutation(
        "Labels that are shares of classes count as one label",
        "hf_finetune.targets.losses:loss_for",
        "a label for each class",
        count_every_share,
        (f"{TRAP_TRAINING}13_mixed_labels_leave_the_kind_of_task_alone[vit]",),
    ),
    Mutation(
        "Activations of a frozen prefix are not checkpointed",
        f"{TRAINER}:StagedTrainer._spare_the_frozen_prefix",
        "nothing",
        nothing,
        (f"{TRAP_TRAINING}24_checkpointed_activations_do_not_reach_into_a_frozen_prefix",),
    ),
    Mutation(
        "The compiler is empty when a stage begins",
        "torch.compiler:reset",
        "nothing, when a stage calls it",
        not_ours(STAGE),
        (f"{TRAP_TRAINING}25_each_stage_begins_with_an_empty_compiler",),
    ),
    Mutation(
        "Frozen modules stay in eval mode whatever calls `train()`",
        f"{FREEZING}:_StaysInEval.__call__",
        "the module's own `train`",
        follow_the_mode,
        (
            f"{INVARIANT}[timm/test_resnet]",
            f"{TRAP}07_the_statistics_of_a_frozen_batch_norm_stand",
            f"{TRAP}08_a_frozen_prefix_gives_the_same_each_time",
        ),
    ),
    Mutation(
        "Dropout before the first trained layer is off",
        f"{FREEZING}:frozen_modules",
        "only modules with parameters are kept in eval mode",
        only_with_parameters,
        (f"{PREFIX}[bert]", f"{TRAP}08_a_frozen_prefix_gives_the_same_each_time"),
    ),
    Mutation(
        "A stage that trains what an earlier one froze puts it in training mode again",
        f"{FREEZING}:unfreeze_modes",
        "nothing",
        nothing,
        (f"{INVARIANT}[timm/test_resnet]",),
    ),
    Mutation(
        "A model follows `train()` again when its stage is over",
        f"{FREEZING}:unfreeze_modes",
        "nothing, when a stage calls it",
        not_ours(STAGE),
        (f"{UNIT}test_training_stage.py::test_a_model_follows_train_again_when_its_stage_is_over",),
    ),
    Mutation(
        "Pruned weights stay 0",
        "hf_finetune.methods.pruning_masks:apply_pruning_masks",
        "nothing",
        nothing,
        (f"{UNIT}test_methods_pruning_masks.py::test_pruned_weights_stay_zero_and_the_others_move",),
    ),
    Mutation(
        "Freezing everything is an error",
        f"{FREEZING}:freeze_all_but",
        "an empty list is passed over",
        freeze_nothing_quietly,
        (f"{TRAP}06_a_stage_always_trains_something_and_has_no_empty_group",),
    ),
    Mutation(
        "A model is frozen before the optimiser is made",
        f"{THAWING}:FreezingCallback.on_init_end",
        "nothing",
        nothing,
        (f"{TRAP}04_a_stage_is_frozen_before_its_optimizer_is_made",),
    ),
    Mutation(
        "A model of `model_init` is frozen too",
        f"{THAWING}:FreezingCallback._enter",
        "nothing, for a single selector",
        skip_single_selectors,
        (f"{TRAP}05_a_model_that_is_made_anew_for_each_trial_is_frozen_too",),
    ),
    Mutation(
        "Phases change at the epochs that were said",
        f"{THAWING}:FreezingCallback.on_epoch_begin",
        "nothing",
        nothing,
        (f"{TRAP}01_layers_that_thaw_later_are_trained",),
    ),
    Mutation(
        "The phase follows from the epoch, also behind a resume",
        f"{THAWING}:FreezingCallback._enter",
        "the callback counts its own calls",
        remember_the_phase,
        (f"{TRAP_TRAINING}16_the_phase_follows_from_the_epoch_and_not_from_memory",),
    ),
    Mutation(
        "An optimiser that lacks what a phase trains is an error",
        f"{THAWING}:_check_optimizer",
        "nothing",
        nothing,
        (
            f"{STAGING}an_optimizer_that_lacks_what_a_later_phase_trains_is_an_error",
            f"{STAGING}a_callback_that_comes_after_the_optimizer_is_an_error",
        ),
    ),
    Mutation(
        "A loss that is no number ends the stage",
        f"{CALLBACKS}:LogCallback.on_log",
        "the error is swallowed",
        swallow_divergence,
        (f"{STAGING}a_loss_that_is_no_number_ends_the_training_before_it_is_saved[nan]",),
    ),
    Mutation(
        "A diverged model is not saved",
        f"{CALLBACKS}:LogCallback.on_epoch_end",
        "nothing",
        nothing,
        (f"{STAGING}a_loss_that_is_no_number_ends_the_training_before_it_is_saved[nan]",),
    ),
    Mutation(
        "The log holds the rate of every group",
        f"{CALLBACKS}:LogCallback.on_pre_optimizer_step",
        "that of the first group for all",
        only_the_first_rate,
        (f"{TRAP_TRAINING}18_the_log_holds_the_rate_of_every_group",),
    ),
    Mutation(
        "Ctrl-C finishes the step and saves",
        f"{CALLBACKS}:InterruptCallback.on_train_begin",
        "nothing",
        nothing,
        (f"{STAGING}the_first_interrupt_finishes_the_step_and_saves[2]",),
    ),
    Mutation(
        "The signals go back to whoever had them",
        f"{CALLBACKS}:InterruptCallback.restore",
        "nothing",
        nothing,
        (f"{STAGING}the_first_interrupt_finishes_the_step_and_saves[2]",),
    ),
    Mutation(
        "Every stage has a folder of its own",
        f"{STAGE}:stage_folder",
        "one folder for all",
        one_folder,
        (f"{TRAP_TRAINING}15_a_stage_does_not_see_the_checkpoints_of_another",),
    ),
    Mutation(
        "A half-written checkpoint is passed over",
        "hf_finetune.training.checkpoints:last_checkpoint",
        "the highest number wins",
        newest_by_name,
        (f"{UNIT}test_training_checkpoints.py::test_a_checkpoint_without_its_seal_is_skipped_and_removed",),
    ),
    Mutation(
        "A file is whole or not there",
        "hf_finetune.files:replacing",
        "the file is written in its place",
        write_in_place,
        (f"{UNIT}test_training_stage.py::test_weights_that_cannot_be_written_leave_the_old_ones",),
    ),
    Mutation(
        "The order of the examples follows from the stage's seed",
        f"{STAGE}:TrainingArguments",
        "one seed for all",
        same_seed,
        (f"{UNIT}test_training_stage.py::test_the_order_of_the_examples_follows_from_the_seed",),
    ),
    Mutation(
        "Augmentation follows from seed, epoch and example",
        "hf_finetune.tasks.seeded_augmentation:SeededExamples.__getitem__",
        "the global generator goes on",
        unseeded,
        (
            f"{UNIT}test_data_seeded_augmentation.py::test_an_example_is_the_same_in_any_order_and_at_any_time",
            f"{TRAP_MODELS}23_the_processor_of_a_timm_model_is_saved_and_never_augments",
        ),
    ),
    Mutation(
        "Weight decay spares norms and biases",
        "hf_finetune.planning.layers:Parameter.decays",
        "everything decays",
        lambda original: property(lambda self: True, lambda self, value: None),
        (f"{TRAP_MODELS}19_weight_decay_spares_what_timm_and_the_field_spare[timm/test_resnet]",),
    ),
    Mutation(
        "Weight decay spares what timm's `no_weight_decay` and the field name",
        f"{LAYOUT}:_no_weight_decay",
        "nothing is spared by name",
        lambda original: lambda model, names: set(),
        (f"{TRAP_MODELS}19_weight_decay_spares_what_timm_and_the_field_spare[timm/test_vit]",),
    ),
    Mutation(
        "Rates fall towards the input",
        "hf_finetune.planning.groups:plan_groups",
        "one rate for all",
        one_rate,
        (f"{INVARIANT}[vit]",),
    ),
    Mutation(
        "The head of a timm model is found",
        "hf_finetune.models.find_head:find_head",
        "what the base model does not hold",
        beside_the_base_model,
        (f"{TRAP_MODELS}20_the_head_of_a_timm_model_is_found[timm/test_resnet]",),
    ),
    Mutation(
        "A timm head has the size of the labels",
        f"{BUILD}:read_config",
        "the checkpoint's number of labels",
        keep_the_checkpoints_labels,
        (f"{TRAP_MODELS}21_the_head_has_the_size_of_the_labels",),
    ),
    Mutation(
        "The new head follows from the seed",
        f"{BUILD}:set_seed",
        "nothing",
        nothing,
        (f"{MODELS_BUILD}a_new_head_follows_from_the_seed",),
    ),
    Mutation(
        "A head for other labels is made anew",
        f"{BUILD}:_initialise",
        "nothing",
        nothing,
        (f"{MODELS_BUILD}the_head_for_as_many_other_labels_is_replaced[bert]",),
    ),
    Mutation(
        "Every weight of a checkpoint is accounted for",
        f"{BUILD}:_account_for_weights",
        "nothing",
        nothing,
        (
            f"{MODELS_BUILD}a_missing_backbone_weight_is_an_error_unless_it_is_allowed",
            f"{MODELS_BUILD}a_weight_that_belongs_to_no_layer_is_an_error",
            f"{MODELS_BUILD}a_backbone_weight_of_another_shape_is_an_error",
        ),
    ),
    Mutation(
        "A saved timm config loads in timm",
        "hf_finetune.models.export:_mend_timm_config",
        "nothing",
        nothing,
        (f"{TRAP_MODELS}22_a_timm_model_loads_in_both_libraries",),
    ),
    Mutation(
        "What is published has the names of the Hub",
        "hf_finetune.models.export:export_model",
        "the names in memory",
        wrapper_names,
        (f"{TRAP_MODELS}14_the_best_checkpoint_is_really_restored[vit]",),
    ),
    Mutation(
        "A run is judged by its own examples where its data has changed",
        "hf_finetune.evaluation.run_data:_same_inputs",
        "a split that is cut again counts as the run's own",
        always,
        (f"{UNIT}test_evaluation_run_data.py::test_rows_that_a_limit_left_out_are_no_test_examples",),
    ),
    *OF_KEPT,
    *OF_DOMAIN,
    *OF_PROCESSES,
    *OF_REGULAR,
    *OF_SECURITY,
    *OF_TASKS,
)

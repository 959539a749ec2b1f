"""The defences of what is kept: the state of an interrupted run, and what a frozen prefix gave."""

from mutation import Mutation
from mutation_removals import (
    always,
    early_stopping_begins_anew,
    keep_the_tokens,
    no_changes,
    no_objection,
    nothing,
    the_trainers,
)

__all__ = ["OF_KEPT"]

TRAINER = "hf_finetune.training.trainer"
UNIT = "tests/unit/"
CHANGES = "tests/integration/test_allow_changes.py::test_"
RESUMED = "tests/integration/test_run_resumed.py::test_"
CACHE = "tests/integration/test_prefix_cache.py::test_"
START = "tests/integration/test_stage_start.py::test_"
HEADS = "tests/integration/test_other_heads.py::test_"
CUT = f"{UNIT}test_cache_cut_point.py::test_"

OF_KEPT = (
    Mutation(
        "A run goes on with the recipe, data and checkpoint that it began with",
        "hf_finetune.runs.changes:find_changes",
        "whatever it is given",
        no_changes,
        (
            f"{CHANGES}every_changed_field_is_named_with_both_values",
            f"{CHANGES}other_data_and_another_checkpoint_are_named",
        ),
    ),
    Mutation(
        "A run that is allowed to change takes the rates of its new recipe",
        f"{TRAINER}:StagedTrainer._load_optimizer_and_scheduler",
        "the Trainer's own",
        the_trainers("_load_optimizer_and_scheduler"),
        (f"{CHANGES}the_first_step_after_it_takes_the_new_rate",),
    ),
    Mutation(
        "A random state of another form is named with its checkpoint",
        f"{TRAINER}:StagedTrainer._load_rng_state",
        "the Trainer's own",
        the_trainers("_load_rng_state"),
        (
            "tests/integration/test_security_resume.py::"
            "test_state_of_another_form_is_told_with_its_checkpoint[rng_state.pth-state3]",
        ),
    ),
    Mutation(
        "The weights with which a stage begins are one of its checkpoints",
        f"{TRAINER}:StagedTrainer._evaluate",
        "the Trainer's own",
        the_trainers("_evaluate"),
        (f"{START}the_start_goes_on_where_training_makes_the_model_worse",),
    ),
    Mutation(
        "Ties are broken by the loss, which decides while the metric is undefined",
        f"{TRAINER}:StagedTrainer._determine_best_metric",
        "the Trainer's own",
        the_trainers("_determine_best_metric"),
        (
            f"{UNIT}test_planning_best_epoch.py::test_a_metric_that_is_undefined_is_told_at_once_and_the_loss_decides",
        ),
    ),
    Mutation(
        "Early stopping counts on behind a resume",
        "hf_finetune.training.resume:ResumableEarlyStopping.check_metric_value",
        "the stock callback's",
        early_stopping_begins_anew,
        (f"{RESUMED}early_stopping_counts_on_after_an_interruption[stop0]",),
    ),
    Mutation(
        "The best checkpoint of a run that was moved is found",
        "hf_finetune.training.resume:MovedCheckpoint.on_train_begin",
        "nothing",
        nothing,
        (f"{RESUMED}a_run_that_was_moved_goes_on_where_it_is",),
    ),
    Mutation(
        "Texts of about one length make a batch",
        f"{TRAINER}:StagedTrainer._get_train_sampler",
        "the Trainer's own",
        the_trainers("_get_train_sampler"),
        (
            f"{UNIT}test_data_distributed_sampling.py::test_a_trainer_with_lengths_makes_batches_of_about_one_length",
        ),
    ),
    Mutation(
        "A resumed stage computes in the way in which it began",
        "hf_finetune.training.execution:_read",
        "nothing",
        nothing,
        (f"{UNIT}test_training_execution.py::test_a_resumed_stage_computes_as_it_began",),
    ),
    Mutation(
        "A fast way whose numbers are others is not taken",
        "hf_finetune.performance.autotune:_objection",
        "no objection",
        no_objection,
        (
            f"{UNIT}test_performance_autotune.py::test_a_model_that_bf16_ruins_is_not_computed_in_bf16[10000.0-True]",
        ),
    ),
    Mutation(
        "What a frozen prefix gave is put in its place",
        f"{TRAINER}:StagedTrainer.compute_loss",
        "the Trainer's own",
        the_trainers("compute_loss"),
        (f"{CACHE}without_augmentation_images_give_the_same_bits",),
    ),
    Mutation(
        "A prefix is left out only where that is proved to change nothing",
        "hf_finetune.cache.replay:verify",
        "nothing",
        nothing,
        (
            f"{CUT}a_prefix_that_cannot_be_left_out_is_refused_with_the_reason[dropout-the frozen prefix draws "
            "random numbers]",
            f"{CUT}a_cut_that_gives_something_else_is_refused",
        ),
    ),
    Mutation(
        "What was kept is read only as it was written",
        "hf_finetune.cache.store:_is_whole",
        "no sums are compared",
        always,
        (
            f"{CACHE}what_is_kept_is_read_again_and_what_is_damaged_is_made_anew",
            f"{UNIT}test_cache_store.py::test_a_damaged_file_is_seen[changed-0.bin]",
        ),
    ),
    Mutation(
        "The tokens of a varied text are those that its kept rows were made of",
        "hf_finetune.cache.cached_examples:CachedExamples.set_epoch",
        "the first version's",
        keep_the_tokens,
        (f"{HEADS}as_many_versions_of_texts_as_epochs_give_the_same_results_as_no_cache",),
    ),
    Mutation(
        "A head that an architecture has no place for is refused",
        "hf_finetune.models.head_spec:head_problem",
        "nothing",
        nothing,
        (
            f"{UNIT}test_models_head_spec.py::test_what_an_architecture_has_no_place_for_is_refused_with_the_reason"
            "[convnext-mean]",
        ),
    ),
)

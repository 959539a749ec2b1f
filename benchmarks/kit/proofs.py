"""Source and tests of each option: of its numbers, of a resumed run, and on two processes."""

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["PROOFS", "Proof", "proofs_table"]

KIT = ("integration/test_kit_resumed.py", "distributed/test_kit.py")
REGULAR = ("integration/test_regularize_resumed.py", "distributed/test_launch_regularize.py")
DROPPING = ("integration/test_dropping_resumed.py", "distributed/test_launch_dropping.py")
STOPPING = ("integration/test_run_resumed.py", "distributed/test_launch_dropping.py")
HEADS = ("integration/test_other_heads.py", "distributed/test_launch_heads.py")
VARIED = ("integration/test_varied_resumed.py", "distributed/test_launch_varied.py")
FITTED = ("integration/test_features.py", "distributed/test_launch_features.py")
TASKS = ("integration/test_multitask.py", "distributed/test_launch_multitask.py")
DOMAIN = ("integration/test_domain.py", "distributed/test_launch_domain.py")


@dataclass(frozen=True)
class Proof:
    """Source and tests of an option.

    Attributes:
        option: The option, as in a recipe.
        source: Paper or implementation.
        test: Test that compares it with values computed by hand or by the source: ``FILE::TEST`` in ``tests``.
        runs: Test files in ``tests`` of a run that is interrupted and resumed, and of a run on two processes.
        word: Word by which these files select the option.
    """

    option: str
    source: str
    test: str
    runs: tuple[str, str]
    word: str


def _of(options: dict[str, tuple[str, str]], title: str, file: str, runs: tuple[str, str]) -> Iterator[Proof]:
    """Yield the options of one kind, from the source and the test of each word."""
    for word, (source, test) in options.items():
        yield Proof(title.replace("*", word), source, f"{file}::test_{test}", runs, word)


UNIT = "unit/test_"
OF_TORCHVISION = "the_presets_of_torchvision_crop_and_mirror_as_torchvision_does"
PROOFS = (
    *_of(
        {
            "class_weights": (
                "King & Zeng 2001; scikit-learn's `balanced`",
                "class_weights_are_those_of_scikit_learn",
            ),
            "effective_number": ("Cui et al. 2019", "effective_numbers_by_hand"),
            "sampler": (
                "Kang et al. 2020, class-balanced sampling",
                "every_class_is_drawn_equally_often_and_its_examples_in_turn",
            ),
            "focal": ("Lin et al. 2017", "the_focal_loss_by_hand"),
            "weights": ("King & Zeng 2001", "own_weights_are_taken_as_they_are"),
            "logit_adjustment": ("Menon et al. 2021", "logit_adjustment_by_hand"),
        },
        *("balance: *", UNIT + "methods_class_balance.py", KIT),
    ),
    *_of(
        {
            "l1": ("Beck & Teboulle 2009, proximal step", "the_soft_threshold_by_hand"),
            "l2_sp": ("Li, Grandvalet & Davoine 2018", "the_pull_back_by_hand"),
            "gradient_noise": ("Neelakantan et al. 2015", "the_noise_of_a_stage_by_hand"),
        },
        *("regularize: {*}", UNIT + "methods_proximal.py", REGULAR),
    ),
    *_of(
        {"r_drop": ("Liang et al. 2021", "the_divergence_equals_that_of_the_authors_code")},
        *("regularize: {*}", UNIT + "methods_r_drop.py", REGULAR),
    ),
    *_of(
        {"ema": ("Polyak & Juditsky 1992; torch's averaged model", "the_average_is_torchs")},
        *("regularize: {*}", UNIT + "methods_ema.py", REGULAR),
    ),
    *_of(
        {
            "mixup": ("Zhang et al. 2018", "mixup_blends_images_and_labels_in_one_share"),
            "cutmix": ("Yun et al. 2019", "cutmix_covers_a_part_and_gives_the_label_its_share"),
        },
        *("regularize: {*}", UNIT + "methods_mixup.py", REGULAR),
    ),
    *_of(
        {
            "weight_decay": (
                "Loshchilov & Hutter 2019; torch's AdamW",
                "the_optimizer_contains_exactly_the_planned_parameters",
            ),
            "label_smoothing": (
                "Szegedy et al. 2016; torch's cross-entropy",
                "the_loss_of_classes_is_cross_entropy",
            ),
        },
        *("*", UNIT + "training_trainer.py", REGULAR),
    ),
    *_of(
        {
            "dropout": ("Srivastava et al. 2014", "dropout_reaches_the_model"),
            "drop_path": (
                "Huang et al. 2016",
                "stochastic_depth_reaches_the_model_and_grows_to_the_last_block",
            ),
        },
        *("model: {*}", UNIT + "models_build.py", DROPPING),
    ),
    *_of(
        {
            "early_stopping": (
                "Prechelt 1998; transformers' callback",
                "evaluations_without_improvement_are_counted_as_transformers_does",
            )
        },
        *("*", UNIT + "training_resume.py", STOPPING),
    ),
    *_of(
        {
            "exponential": ("torch's ExponentialLR", "exponential_is_that_of_torch"),
            "step": ("torch's StepLR", "step_by_hand"),
            "cosine_with_restarts": ("Loshchilov & Hutter 2017", "the_factors_are_those_of_transformers"),
            "one_cycle": ("Smith & Topin 2019", "one_cycle_is_that_of_torch"),
            "warmup_stable_decay": ("Hu et al. 2024, MiniCPM", "warmup_stable_decay_is_that_of_transformers"),
            "slanted_triangular": ("Howard & Ruder 2018, ULMFiT", "slanted_triangular_by_hand"),
            "polynomial": ("Chen et al. 2018, DeepLab", "the_polynomial_is_exact"),
            "constant": ("transformers", "the_factors_are_those_of_transformers"),
            "cosine": ("Loshchilov & Hutter 2017", "the_factors_are_those_of_transformers"),
        },
        *("schedule: *", UNIT + "planning_schedules.py", KIT),
    ),
    *_of(
        {
            "mlp": ("Rumelhart et al. 1986", "a_hidden_layer_by_hand"),
            "cosine": ("Gidaris & Komodakis 2018", "a_cosine_by_hand"),
        },
        *("head: *", UNIT + "models_classifier_head.py", VARIED),
    ),
    *_of(
        {
            "cls": ("Devlin et al. 2019", "the_first_token_that_is_no_padding"),
            "mean": (
                "Reimers & Gurevych 2019",
                "the_mean_leaves_padding_out_and_attention_begins_as_the_mean",
            ),
            "attention": ("Ilse et al. 2018", "weights_of_attention_by_hand"),
        },
        *("head: {pool: *}", UNIT + "models_classifier_head.py", VARIED),
    ),
    *_of(
        {
            "seeds": ("Keras' ImageDataGenerator", "the_matrix_of_keras"),
            "trivial": ("Mueller & Hutter 2021; torchvision", OF_TORCHVISION),
            "randaugment": ("Cubuk et al. 2020; torchvision", OF_TORCHVISION),
            "erase": ("Zhong et al. 2020", "a_part_is_erased_to_the_mean"),
            "transforms": (
                "torchvision and timm, by name",
                "a_list_of_transforms_gets_the_models_size_where_it_names_none",
            ),
        },
        *("augment: *", UNIT + "data_augment.py", VARIED),
    ),
    *_of(
        {
            "mask": (
                "Devlin et al. 2019",
                "masked_are_the_tokens_whose_number_is_below_the_probability",
            ),
            "drop": (
                "Bowman et al. 2016; Dai & Le 2015",
                "a_word_is_dropped_with_all_its_tokens_and_their_features",
            ),
        },
        *("augment: {*}", UNIT + "data_text_augment.py", HEADS),
    ),
    *_of(
        {
            "logistic_regression": (
                "Kumar et al. 2022, LP-FT; scikit-learn",
                "a_logistic_regression_by_hand",
            ),
            "ridge": ("Hoerl & Kennard 1970; scikit-learn", "a_ridge_regression_by_hand"),
        },
        *("fit: *", UNIT + "training_linear_fit.py", FITTED),
    ),
    *_of(
        {
            "mixing": ("Raffel et al. 2020, T5", "an_epoch_is_shared_as_computed_by_hand"),
            "uncertainty": (
                "Kendall, Gal & Cipolla 2018",
                "the_loss_with_learnt_weights_and_its_gradient_are_those_of_kendall",
            ),
        },
        *("task: multi-task, *", UNIT + "several_tasks.py", TASKS),
    ),
    *_of(
        {
            "coral": ("Sun & Saenko 2016", "coral_of_two_by_two_features_by_hand"),
            "dann": ("Ganin et al. 2016", "a_reversed_gradient_is_that_of_autograd_with_another_sign"),
        },
        *("domain_adaptation: *", UNIT + "methods_domain_alignment.py", DOMAIN),
    ),
    Proof(
        "domain_adaptation: continue_pretraining",
        "Devlin et al. 2019 and Gururangan et al. 2020; Xie et al. 2022, SimMIM",
        "unit/test_data_masking.py::test_the_loss_of_pixels_is_that_of_simmim",
        DOMAIN,
        "continue_pretraining",
    ),
    Proof(
        "evaluation: {slices}",
        "Efron & Tibshirani 1993, for the intervals",
        "unit/test_evaluation_slices.py::test_each_slice_has_its_metrics_its_interval_and_its_number_of_examples",
        ("integration/test_multitask_kit.py", "distributed/test_launch_features.py"),
        "slices",
    ),
)
COLUMNS = ("option", "source", "numerical test", "resume test", "two-process test")


def proofs_table() -> str:
    """Return the options as a table with links to the tests."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for proof in PROOFS:
        files = (proof.test.partition("::")[0], *proof.runs)
        cells = [f"`{proof.option}`", proof.source, *map(_link, files)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _link(file: str) -> str:
    return f"[{file.rpartition('test_')[2].removesuffix('.py')}](../tests/{file})"

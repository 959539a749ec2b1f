"""The defences of adapting to another domain."""

from mutation import Mutation
from mutation_removals import as_it_is, nothing

__all__ = ["OF_DOMAIN"]

ALIGNING = "hf_finetune.methods.domain_alignment"
ALIGNED = "tests/unit/test_methods_domain_alignment.py::test_"
PAIRED = "tests/unit/test_data_paired_domains.py::test_"

OF_DOMAIN = (
    Mutation(
        "The gradient of the domain classifier is reversed on its way into the model",
        f"{ALIGNING}:reverse_gradient",
        "the features as they are",
        as_it_is,
        (
            f"{ALIGNED}a_reversed_gradient_is_that_of_autograd_with_another_sign",
            f"{ALIGNED}the_gradient_below_the_head_is_the_reversed_one_of_the_judge",
        ),
    ),
    Mutation(
        "The domain classifier goes on from a checkpoint",
        f"{ALIGNING}:DomainAlignment.load",
        "nothing",
        nothing,
        (f"{ALIGNED}the_judge_goes_on_from_a_checkpoint_bit_for_bit",),
    ),
    Mutation(
        "In fp16 the domain classifier learns at its own scale",
        f"{ALIGNING}:DomainAlignment.on_pre_optimizer_step",
        "nothing",
        nothing,
        (f"{ALIGNED}in_fp16_the_judge_learns_at_its_own_scale_and_rests_when_the_model_does",),
    ),
    Mutation(
        "Each epoch sets other inputs of the other domain beside the examples",
        "hf_finetune.data.paired_domains:PairedExamples.set_epoch",
        "nothing",
        nothing,
        (
            f"{PAIRED}the_input_depends_on_seed_epoch_and_example_and_on_nothing_else",
            f"{PAIRED}the_epoch_reaches_the_examples_of_both_domains",
        ),
    ),
    Mutation(
        "Each epoch masks other parts",
        "hf_finetune.data.masking:MaskedExamples.set_epoch",
        "nothing",
        nothing,
        (
            "tests/unit/test_data_masking.py::test_masks_depend_on_seed_epoch_and_example_only",
            "tests/unit/test_data_masking.py::"
            "test_so_many_patches_are_masked_others_in_each_epoch_and_the_image_varies_too",
        ),
    ),
    Mutation(
        "The classifier takes over what was learned on masked inputs",
        "hf_finetune.models.masked_models:load_backbone",
        "nothing",
        nothing,
        (
            "tests/unit/test_models_masked_models.py::test_an_image_classifier_takes_over_all_but_its_head[vit]",
        ),
    ),
)

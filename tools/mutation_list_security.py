"""The defences against code and paths in foreign files."""

from mutation import Mutation
from mutation_removals import nothing

__all__ = ["OF_SECURITY"]

CODE = "tests/unit/test_security_code.py::test_"
FILES = "tests/unit/test_security_files.py::test_"

OF_SECURITY = (
    Mutation(
        "A recipe declares that it needs code and grants nothing",
        "hf_finetune.runs.checkpoint:check_declared",
        "nothing",
        nothing,
        (f"{CODE}a_recipe_declares_that_it_needs_code_and_grants_nothing",),
    ),
    Mutation(
        "A run directory does not grant itself the permission to run code",
        "hf_finetune.evaluation.evaluate_run:check_declared",
        "nothing",
        nothing,
        (f"{CODE}a_run_cannot_grant_itself_the_permission",),
    ),
    Mutation(
        "A tokenizer whose code may not run is not replaced in silence",
        "hf_finetune.models.build:check_tokenizer",
        "nothing",
        nothing,
        (f"{CODE}code_of_a_tokenizer_runs_only_when_allowed",),
    ),
    Mutation(
        "A link out of a checkpoint is not copied into a Space",
        "hf_finetune.publishing.space:_check_link",
        "nothing",
        nothing,
        (f"{FILES}a_link_out_of_a_checkpoint_is_not_published",),
    ),
)

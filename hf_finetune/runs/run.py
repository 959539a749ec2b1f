"""Run of a recipe, from its checks to a saved and evaluated model."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback

from hf_finetune.distributed import detect_lost_process, start_processes, wait_for_all
from hf_finetune.errors import InputError, Problem
from hf_finetune.methods.proximal import pretrained_weights
from hf_finetune.models.library_logging import quiet_libraries
from hf_finetune.publishing.publish_after_run import publish_run
from hf_finetune.recipe.schema import Recipe
from hf_finetune.runs.caching import cache_settings, decode_images
from hf_finetune.runs.changes import adapt_to_processes
from hf_finetune.runs.cross_validation import cross_validate, recipe_for_folds
from hf_finetune.runs.finish import save_and_evaluate, write_results
from hf_finetune.runs.folder import check_folder, choose_folder, lock_and_read_manifest, open_folder
from hf_finetune.runs.pooling_choice import choose_pooling
from hf_finetune.runs.prepare import prepare_run
from hf_finetune.runs.prepared import PreparedRun, with_input_notes
from hf_finetune.runs.pretraining import continue_pretraining
from hf_finetune.runs.run_result import RunResult
from hf_finetune.runs.stages import train_stages
from hf_finetune.runs.start import load_start
from hf_finetune.runs.time_limit import limit_run
from hf_finetune.training.run_lock import RunLock

__all__ = ["RunResult", "run"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Options:
    """Options of a run in addition to its recipe; see ``run``."""

    resume: bool
    allow_changes: bool
    callbacks: Sequence[TrainerCallback]
    progress: Callable[[int], None] | None
    trust_remote_code: bool
    started: float | None


def run(
    recipe: Recipe,
    output_dir: str | Path | None = None,
    *,
    resume: bool = False,
    allow_changes: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    progress: Callable[[int], None] | None = None,
    trust_remote_code: bool = False,
    started: float | None = None,
) -> RunResult:
    """Fine-tune stage by stage, save the model, and evaluate the saved model on the test split.

    Under ``accelerate launch`` every process calls this; the main process writes.

    Args:
        recipe: Recipe of the run.
        output_dir: Run directory, empty or new unless the run is resumed. None creates ``runs/TASK-DATE``.
        resume: Continue the run in ``output_dir`` at the last checkpoint of its current stage.
        allow_changes: Resume with a recipe, data or checkpoint that has changed; the manifest records the changes.
        callbacks: Further callbacks for the Trainer of each stage.
        progress: Callback that receives the number of test examples predicted so far.
        trust_remote_code: Whether code of checkpoints and metrics may run; a recipe cannot allow it.
        started: Time from which ``limit`` counts, as ``time.perf_counter`` returns it; None for that of the call.

    Returns:
        The finished run.

    Raises:
        InputError: If recipe, data, checkpoint or run directory cannot be used; a new run has then written nothing.
        DivergedError: If the loss, the gradient norm or the validation logits of a stage are not finite.
        LostProcessError: If another process of the launch has ended or hangs.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint is saved.

    Example:
        >>> from hf_finetune import load_recipe, run
        >>> result = run(load_recipe("reviews.yaml", ["stages.1.epochs=1", "seed=1"]), "runs/seed-1")
        >>> sorted(result.metrics["test"])[:2]
        ['accuracy', 'balanced_accuracy']
    """
    state = start_processes()
    options = _Options(resume, allow_changes, callbacks, progress, trust_remote_code, started)
    with detect_lost_process(state), quiet_libraries():
        result = _run(recipe, output_dir, options, state)
    if recipe.publish is None or not state.is_main_process:
        return result
    problems, command = publish_run(recipe.publish, result.folder)
    return replace(result, unpublished=problems, publish_later=command)


def _run(recipe: Recipe, output_dir: str | Path | None, options: _Options, state: PartialState) -> RunResult:
    """Run a recipe in its folder, and release the lock of the folder at the end."""
    if options.allow_changes and not options.resume:
        raise InputError(Problem("allow_changes (--allow-changes)", "requires resume (--resume)"))
    folder = choose_folder(output_dir, recipe, options.resume, state)
    lock = RunLock(folder)
    try:
        return _run_in_folder(recipe, folder, lock, options, state)
    finally:
        lock.release()


def _run_in_folder(
    recipe: Recipe, folder: Path, lock: RunLock, options: _Options, state: PartialState
) -> RunResult:
    """Prepare the run, train all stages, evaluate the model and write the results.

    The lock is taken by ``lock_and_read_manifest`` if the run is resumed, else by ``open_folder``.
    """
    start_time = perf_counter()
    earlier_manifest = lock_and_read_manifest(folder, lock, state) if options.resume else None
    if earlier_manifest is None:
        check_folder(folder)
    adapt = (
        partial(adapt_to_processes, manifest=earlier_manifest, processes=state.num_processes)
        if earlier_manifest
        else None
    )
    prepared = prepare_run(recipe, state, adapt, trust_remote_code=options.trust_remote_code)
    prepared = choose_pooling(
        prepared, recipe.strategy.name if recipe.strategy else None, earlier_manifest, state
    )
    start = load_start(prepared, earlier_manifest, state)
    prepared = with_input_notes(prepared, start.inputs)
    prepared, limit = limit_run(prepared, start, folder, earlier_manifest, state, options.started)
    stages = zip(prepared.recipe.stages, prepared.plan.stages, strict=True)
    caches = [cache_settings(prepared, spec, plan) for spec, plan in stages]
    manifest = open_folder(
        folder, lock, prepared, earlier_manifest, state, allow_changes=options.allow_changes
    )
    for note in (*prepared.notes, *start.built.notes, *filter(None, [prepared.plan.layout.note])):
        logger.info(note)
    start = replace(start, inputs=decode_images(start.inputs, prepared, caches))
    # before continued pretraining: L2-SP pulls towards the weights of the checkpoint
    checkpoint_weights = pretrained_weights(start.built.model, prepared.recipe.stages, prepared.plan)
    manifest = continue_pretraining(
        start.pretraining, prepared, manifest, folder, state, options.callbacks, limit
    )
    start = replace(start, pretraining=None)  # frees its model
    manifest = train_stages(
        prepared,
        start,
        checkpoint_weights,
        caches,
        manifest=manifest,
        folder=folder,
        state=state,
        callbacks=options.callbacks,
        limit=limit,
    )
    metrics: dict[str, Any] = {}
    if state.is_main_process:
        metrics = save_and_evaluate(prepared, start.inputs, manifest, folder, state, options.progress)
    wait_for_all(state)
    if prepared.recipe.evaluation.folds is not None:
        metrics["cross_validation"] = _cross_validate(prepared, folder, options, state)
    if state.is_main_process:
        metrics["wall_seconds"] = round(perf_counter() - start_time, 3)
        write_results(prepared, metrics, replace(manifest, state="done"), folder, state)
    if limit is not None:
        limit.clock.save()
    wait_for_all(state)
    return RunResult(folder, metrics, prepared.metric_names)


def _cross_validate(
    prepared: PreparedRun, folder: Path, options: _Options, state: PartialState
) -> dict[str, Any]:
    """Run the recipe once for each fold, and return the mean and standard deviation of each metric."""

    def train_fold(fold_recipe: Recipe, fold_folder: Path, resume: bool) -> RunResult:
        return _run(
            fold_recipe, fold_folder, replace(options, resume=resume, progress=None, started=None), state
        )

    return cross_validate(recipe_for_folds(prepared), folder, train_fold, state)

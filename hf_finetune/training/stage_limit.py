"""Time limit of a stage: its steps are laid out for the time, and it ends early if they turn out slower."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from accelerate import PartialState
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_finetune.distributed import broadcast_from_main
from hf_finetune.files import atomic_file, read_json_object
from hf_finetune.methods.base import Method
from hf_finetune.planning.stages import PlannedStage, steps_per_epoch
from hf_finetune.planning.time_limit import StageTimes, limit_steps, steps_that_fit
from hf_finetune.training.callbacks import any_process

__all__ = ["DeadlineCallback", "StageLimit"]

logger = logging.getLogger(__name__)

DECISION_FILE = "limit.json"
"""File in a stage folder that records the number of steps that fit and the measured times."""
REHEARSAL_SHARE = 0.03
"""Fraction of a stage's time after which the rehearsal takes no further steps."""


class StageLimit:
    """Time limit of a stage.

    Args:
        left: Function that returns the seconds left for the stage; negative after its end.
        build_methods: Function that builds the methods of the stage anew, for a copy of its model.

    Attributes:
        times: Measured times of the stage; zeros if it is resumed and was not measured.
        planned_steps: Number of steps before the stage was laid out for fewer; None if all of them fit.
        stopped: Whether the stage ended early because the time was over.
    """

    def __init__(
        self, left: Callable[[], float], build_methods: Callable[[PreTrainedModel], Sequence[Method]]
    ):
        self.left, self.build_methods = left, build_methods
        self.times = StageTimes(0.0, 0.0, 0.0, 0.0)
        self.planned_steps: int | None = None
        self.stopped = False
        self.steps = 0

    def ends_at(self, step: int) -> bool:
        """Return whether a stage that is resumed takes no further step, because its time is over.

        Args:
            step: Number of steps that it has taken.
        """
        over: bool = broadcast_from_main(PartialState(), lambda: self.left() < self._last_step())
        self.stopped = over and step < self.steps
        return self.stopped

    def _last_step(self) -> float:
        """Return the seconds of a step and of all that follows it."""
        return self.times.step + self.times.evaluation + self.times.end

    def lay_out(
        self,
        stage: PlannedStage,
        examples: int,
        folder: Path,
        rehearse: Callable[[float], StageTimes] | None,
    ) -> PlannedStage:
        """Return the stage, laid out for the steps that fit; a resumed stage has the steps of its first start.

        Args:
            stage: Stage with its plan.
            examples: Number of training examples.
            folder: Folder of the stage, in which the decision is recorded.
            rehearse: Function that returns the times of the stage; its argument is the time after which it takes no
                further steps (seconds). None if the stage has taken steps before.
        """
        state, spec = PartialState(), stage.spec
        decision = broadcast_from_main(state, lambda: read_json_object(folder / DECISION_FILE))
        per_epoch = steps_per_epoch(examples, spec.batch_size, spec.accumulation, state.num_processes)
        self.steps = stage.plan.steps or 0
        if not decision and rehearse is not None:
            has_time = broadcast_from_main(state, lambda: self.left() > 0)
            times = rehearse(REHEARSAL_SHARE * self.left()) if has_time else self.times
            decision = broadcast_from_main(
                state, lambda: self._decide(times, per_epoch, folder / DECISION_FILE)
            )
        if decision:
            self.times = StageTimes(**decision["times"])
        if not decision or decision["steps"] >= self.steps:
            return stage
        self.planned_steps, self.steps = self.steps, decision["steps"]
        logger.info(
            f"Stage {spec.name}: {self.steps:,} of {self.planned_steps:,} steps fit in the time limit, "
            f"{self.times.step:.2g} s each; the schedule ends at the last one."
        )
        return limit_steps(stage, self.steps, per_epoch)

    def _decide(self, times: StageTimes, per_epoch: int, file: Path) -> dict[str, Any]:
        """Record and return the number of steps, which is at most the planned one, and the times."""
        left = self.left()
        steps = min(self.steps, steps_that_fit(left, times, per_epoch)) if left > 0 else 1
        decision = {"steps": steps, "planned_steps": self.steps, "times": asdict(times)}
        with atomic_file(file) as temporary:
            temporary.write_text(json.dumps(decision), encoding="utf-8")
        return decision

    def result(self) -> dict[str, Any] | None:
        """Return the entry of the stage's result; None if the limit has not changed the stage."""
        if self.planned_steps is None and not self.stopped:
            return None
        planned = self.steps if self.planned_steps is None else self.planned_steps
        return {"planned_steps": planned, "fitting_steps": self.steps, "stopped": self.stopped}


class DeadlineCallback(TrainerCallback):
    """Callback that ends a stage when the time left suffices only for its evaluation.

    Args:
        limit: Limit of the stage.
        now: Clock (seconds).
    """

    def __init__(self, limit: StageLimit, now: Callable[[], float] = perf_counter):
        self.limit, self.now = limit, now
        self.evaluation, self.epoch_end = limit.times.evaluation, 0.0

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop after this step if the time suffices for no further one; the Trainer then evaluates the model."""
        if args.world_size == 1 or state.global_step % args.logging_steps == 0:
            self._stop_if_late(self.limit.times.step + self.evaluation, args, state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop after this evaluation if no time is left for a step and another evaluation."""
        self.epoch_end = self.now()
        self._stop_if_late(self.limit.times.step + 2 * self.evaluation, args, state, control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the evaluation and the checkpoint."""
        if self.epoch_end:
            self.evaluation, self.epoch_end = self.now() - self.epoch_end, 0.0

    def _stop_if_late(
        self, needed: float, args: TrainingArguments, state: TrainerState, control: TrainerControl
    ) -> None:
        if state.global_step >= state.max_steps or self.limit.stopped:
            return
        if any_process(self.limit.left() < needed + self.limit.times.end, args):
            self.limit.stopped = control.should_training_stop = True
            logger.info(
                f"The time of the stage is over after {state.global_step:,} of {state.max_steps:,} steps."
            )

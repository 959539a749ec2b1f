"""The processes that ``accelerate launch`` started, or the one that there is."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, is_deepspeed_available
from torch import distributed, nn

from hf_finetune.errors import InputError, Problem

__all__ = [
    "LostProcessError",
    "all_gather_objects",
    "backend",
    "broadcast_from_main",
    "computes_on_cpu",
    "count_workers",
    "detect_lost_process",
    "ending_processes",
    "is_sharded",
    "local_processes",
    "main_process_first",
    "start_processes",
    "uses_deepspeed",
    "wait_for_all",
]

# One step of training, or the writing of a checkpoint, takes less; a process that is stuck ends all after this.
TIMEOUT_SECONDS = 600
# The first process alone reads the data and evaluates on the test split. The others wait for as long as it takes.
PATIENCE = timedelta(days=7)
# What gloo and NCCL say when another process is gone or silent.
LOST = (
    "closed by peer",
    "reset by peer",
    "Broken pipe",
    "Timed out",
    "timed out",
    "Connection refused",
    "abort",
)

# DeepSpeed's setting without which no process ever holds whole weights; in spite of its name they stay fp32.
GATHERS = "stage3_gather_16bit_weights_on_model_save"

_patient_group: Any = None


class LostProcessError(RuntimeError):
    """Another process of the launch has ended, or is stuck."""


def start_processes() -> PartialState:
    """Join the processes of a launch. Without an accelerator they compute on the CPU, and still know each other.

    accelerate 1.15 takes several processes for one each unless both of them, ``PartialState`` and the Trainer's own
    state, are told that it is the CPU that is used.

    Raises:
        InputError: If FSDP or DeepSpeed are asked for in a way that this package cannot use.
    """
    global _patient_group
    if uses_deepspeed():
        _check_deepspeed()
    if _asked_for("ACCELERATE_USE_FSDP"):
        _check_fsdp()
        # Each process loads all weights and takes its share: the other way leaves out BatchNorm's buffers
        # (accelerate 1.15). Checkpoints hold whole weights, so that any number of processes can go on from them.
        os.environ.update(FSDP_CPU_RAM_EFFICIENT_LOADING="false", FSDP_STATE_DICT_TYPE="FULL_STATE_DICT")
    timeout = timedelta(seconds=float(os.environ.get("HF_FINETUNE_TIMEOUT", TIMEOUT_SECONDS)))
    if torch.accelerator.is_available():
        state = PartialState(timeout=timeout)
    elif uses_deepspeed():
        # accelerate 1.15 leaves DeepSpeed out, in silence, where it is told that it is the CPU that is used
        os.environ["ACCELERATE_USE_CPU"] = "false"
        state = PartialState(backend=backend(), timeout=timeout)
    else:
        os.environ["ACCELERATE_USE_CPU"] = "true"
        state = PartialState(cpu=True, timeout=timeout)
    if state.num_processes > 1 and _patient_group is None:
        _patient_group = distributed.new_group(backend="gloo", timeout=PATIENCE)
    return state


@contextmanager
def ending_processes() -> Iterator[None]:
    """Take leave of the other processes at the end of a program, be it done or interrupted.

    Otherwise a process that is still ending its threads may be aborted, which the launcher takes for a failure.
    """
    try:
        yield
    except KeyboardInterrupt:  # all of them stop then; after any other error the rest may be gone, or wait
        _leave()
        raise
    else:
        _leave()


def _leave() -> None:
    global _patient_group
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
        _patient_group = None


def backend() -> str | None:
    """Name what processes speak through where accelerate would not find it: under DeepSpeed on the CPU."""
    return "gloo" if uses_deepspeed() and not torch.accelerator.is_available() else None


def computes_on_cpu() -> bool:
    """Say whether the Trainer is to be told that it is the CPU that is used. DeepSpeed is not used where it is told."""
    return not (torch.accelerator.is_available() or uses_deepspeed())


def is_sharded() -> bool:
    """Say whether each process is to hold a part of the model only: under FSDP or DeepSpeed, as accelerate tells."""
    return _asked_for("ACCELERATE_USE_FSDP") or uses_deepspeed()


def uses_deepspeed() -> bool:
    """Say whether the launcher was given ``--use_deepspeed``."""
    return _asked_for("ACCELERATE_USE_DEEPSPEED")


def _asked_for(name: str) -> bool:
    return os.environ.get(name, "false").lower() == "true"


def _check_deepspeed() -> None:
    """Refuse what would take the rates out of the recipe's hands, or the weights. An optimizer may be in the config."""
    if not is_deepspeed_available():
        repair = "Install it (python -m pip install deepspeed), or launch without it."
        raise InputError(Problem("--use_deepspeed", "must have DeepSpeed installed", "", repair))
    path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    config = json.loads(Path(path).read_text(encoding="utf-8")) if path != "none" else {}
    if "scheduler" in config:
        repair = "Take 'scheduler' out of it."
        rule = "must leave the schedule to the recipe, which has rates for each layer"
        raise InputError(Problem(path, rule, "", repair))
    zero = config.get("zero_optimization", {})
    if zero.get("stage") == 3 and not zero.get(GATHERS):
        rule = "must let ZeRO-3 gather the weights when they are saved"
        raise InputError(Problem(path, rule, "", f"Set zero_optimization.{GATHERS} to true."))


def _check_fsdp() -> None:
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        rule, repair = "must be that of FSDP 2", "Add it to accelerate launch, or to its config file."
        raise InputError(Problem("--fsdp_version", rule, version, repair))


def prepare_sharding(model: nn.Module) -> None:
    """Let FSDP divide this model, on the CPU too. Call it right before an ``Accelerator`` is made.

    accelerate 1.15 looks at the settings of FSDP for processes with an accelerator only; on the CPU it takes
    ``--use_fsdp`` and trains with DDP, in silence. FSDP itself works with gloo. And where accelerate is to wrap layers
    without being told their classes, it takes BERT's embeddings for a layer and then divides the word embeddings in
    them a second time, and looks for classes that timm's models do not have: both fail.
    """
    if not _asked_for("ACCELERATE_USE_FSDP"):
        return
    state = PartialState()
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU
    by_class = os.environ.get("FSDP_AUTO_WRAP_POLICY", "").upper() == "TRANSFORMER_BASED_WRAP"
    if by_class and "FSDP_TRANSFORMER_CLS_TO_WRAP" not in os.environ:
        layers = layer_classes(model)
        if layers:
            os.environ["FSDP_TRANSFORMER_CLS_TO_WRAP"] = ",".join(layers)
        else:
            os.environ["FSDP_AUTO_WRAP_POLICY"] = "NO_WRAP"


def layer_classes(model: nn.Module) -> list[str]:
    """Name the classes of a model's layers, by which FSDP divides it; none that holds the word embeddings."""
    # A model that embeds no words, such as one for images, raises one or the other here (transformers 5.23).
    try:
        embeddings = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        embeddings = None
    named = getattr(model, "_no_split_modules", None) or ()
    found = [module for module in model.modules() if type(module).__name__ in named and module is not model]
    holders = {type(module).__name__ for module in found if embeddings in list(module.modules())}
    return sorted({type(module).__name__ for module in found} - holders)


def count_workers(workers: int | str, state: PartialState) -> int:
    """Give the number of data loader processes of each process.

    Args:
        workers: That number, or ``auto``: as many as the cores allow beside a GPU, at most 8. On a CPU none: they
            would take the cores from the model.
        state: The processes.
    """
    if isinstance(workers, int):
        return workers
    if state.device.type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // local_processes(state) - 1))


def wait_for_all(state: PartialState) -> None:
    """Wait until every process is here, also while one of them works alone for long."""
    if state.num_processes > 1:
        distributed.barrier(group=_patient_group)


def broadcast_from_main(state: PartialState, find: Callable[[], Any]) -> Any:
    """Give every process what the first one finds, however long it takes."""
    found = [find() if state.is_main_process else None]
    if state.num_processes > 1:
        distributed.broadcast_object_list(found, src=0, group=_patient_group)
    return found[0]


def all_gather_objects(state: PartialState, value: Any) -> list[Any]:
    """Give every process the values of all of them, once the last one is here."""
    values = [value]
    if state.num_processes > 1:
        values = [None] * state.num_processes
        distributed.all_gather_object(values, value, group=_patient_group)
    return values


def local_processes(state: PartialState) -> int:
    """Count the processes on this machine, which share its disk."""
    if state.num_processes == 1:
        return 1
    return int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes))


@contextmanager
def main_process_first(state: PartialState) -> Iterator[None]:
    """Let the first process do something, and then the others, who find it done. An error does not keep them."""
    if not state.is_main_process:
        wait_for_all(state)
    try:
        yield
    finally:
        if state.is_main_process:
            wait_for_all(state)


@contextmanager
def detect_lost_process(state: PartialState) -> Iterator[None]:
    """Say in plain words that another process is gone, where gloo and NCCL tell of sockets.

    The launcher asks the rest to end at once (SIGTERM); from here on this one ends by its error, which is then read.

    Raises:
        LostProcessError: If that is so.
    """
    try:
        yield
    except (RuntimeError, distributed.DistError) as error:
        if state.num_processes == 1 or not any(word in str(error) for word in LOST):
            raise
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise LostProcessError(
            f"Process {state.process_index} of {state.num_processes} has lost another one, which ended or is stuck; "
            "what that one says is the cause. What was saved before is kept; a run goes on with --resume."
        ) from error

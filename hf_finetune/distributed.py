"""Setup and communication of the processes that ``accelerate launch`` started, or of a single process."""

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
    "broadcast_from_main",
    "computes_on_cpu",
    "deepspeed_cpu_backend",
    "destroying_process_group",
    "detect_lost_process",
    "is_sharded",
    "local_processes",
    "main_process_first",
    "resolve_workers",
    "start_processes",
    "uses_deepspeed",
    "wait_for_all",
]

# A training step, or writing a checkpoint, takes less; if a process is stuck, all of them end after this time.
TIMEOUT_SECONDS = 600
# Only the main process reads the data and evaluates on the test split. The others wait for as long as it takes.
LONG_TIMEOUT = timedelta(days=7)
# Parts of the error messages of gloo and NCCL if another process has ended or does not respond.
CONNECTION_ERRORS = (
    "closed by peer",
    "reset by peer",
    "Broken pipe",
    "Timed out",
    "timed out",
    "Connection refused",
    "abort",
)

# DeepSpeed setting without which no process has the full weights; despite its name, the gathered weights are fp32.
ZERO3_GATHER_SETTING = "stage3_gather_16bit_weights_on_model_save"

_long_timeout_group: Any = None


class LostProcessError(RuntimeError):
    """Raised if another process of the launch has ended or is stuck."""


def start_processes() -> PartialState:
    """Initialize the process group of a launch and return its state. Without an accelerator, the CPU is used.

    accelerate 1.15 treats each of several processes on the CPU as the only one, unless both ``PartialState`` and the
    Trainer's state are configured to use the CPU.

    Raises:
        InputError: If the configuration of FSDP or DeepSpeed is not supported.
    """
    global _long_timeout_group
    if uses_deepspeed():
        _check_deepspeed()
    if _is_enabled("ACCELERATE_USE_FSDP"):
        _check_fsdp()
        # Each process loads all weights and keeps its shard: RAM-efficient loading does not load BatchNorm buffers
        # (accelerate 1.15). Checkpoints contain the full weights, so that any number of processes can resume from them.
        os.environ.update(FSDP_CPU_RAM_EFFICIENT_LOADING="false", FSDP_STATE_DICT_TYPE="FULL_STATE_DICT")
    timeout = timedelta(seconds=float(os.environ.get("HF_FINETUNE_TIMEOUT", TIMEOUT_SECONDS)))
    if torch.accelerator.is_available():
        state = PartialState(timeout=timeout)
    elif uses_deepspeed():
        # accelerate 1.15 silently ignores DeepSpeed if it is configured to use the CPU
        os.environ["ACCELERATE_USE_CPU"] = "false"
        state = PartialState(backend=deepspeed_cpu_backend(), timeout=timeout)
    else:
        os.environ["ACCELERATE_USE_CPU"] = "true"
        state = PartialState(cpu=True, timeout=timeout)
    if state.num_processes > 1 and _long_timeout_group is None:
        _long_timeout_group = distributed.new_group(backend="gloo", timeout=LONG_TIMEOUT)
    return state


@contextmanager
def destroying_process_group() -> Iterator[None]:
    """Destroy the process group at the end of the block, if it completes or is interrupted with Ctrl-C.

    Otherwise a process that is still ending its threads may be aborted, which the launcher reports as a failure.
    """
    try:
        yield
    except KeyboardInterrupt:
        # All processes stop then. After any other error, the other processes may have ended, or wait.
        _leave()
        raise
    else:
        _leave()


def _leave() -> None:
    global _long_timeout_group
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
        _long_timeout_group = None


def deepspeed_cpu_backend() -> str | None:
    """Return gloo for DeepSpeed on the CPU, where accelerate chooses no backend; otherwise None."""
    return "gloo" if uses_deepspeed() and not torch.accelerator.is_available() else None


def computes_on_cpu() -> bool:
    """Return whether to configure the Trainer to use the CPU; never with DeepSpeed, which would then be ignored."""
    return not (torch.accelerator.is_available() or uses_deepspeed())


def is_sharded() -> bool:
    """Return whether each process has only a shard of the model: with FSDP or DeepSpeed, by accelerate's settings."""
    return _is_enabled("ACCELERATE_USE_FSDP") or uses_deepspeed()


def uses_deepspeed() -> bool:
    """Return whether the launcher was called with ``--use_deepspeed``."""
    return _is_enabled("ACCELERATE_USE_DEEPSPEED")


def _is_enabled(name: str) -> bool:
    return os.environ.get(name, "false").lower() == "true"


def _check_deepspeed() -> None:
    """Check DeepSpeed's installation and config. The config may set an optimizer.

    Raises:
        InputError: If DeepSpeed is not installed, or its config sets the learning-rate schedule or does not gather the
            weights for saving.
    """
    if not is_deepspeed_available():
        repair = "Install it (python -m pip install deepspeed), or launch without it."
        raise InputError(Problem("--use_deepspeed", "requires the package deepspeed", "", repair))
    path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    config = json.loads(Path(path).read_text(encoding="utf-8")) if path != "none" else {}
    if "scheduler" in config:
        repair = "Remove 'scheduler' from it."
        rule = "must not set a scheduler: the recipe sets the learning rates of all layers"
        raise InputError(Problem(path, rule, "", repair))
    zero = config.get("zero_optimization", {})
    if zero.get("stage") == 3 and not zero.get(ZERO3_GATHER_SETTING):
        rule = "does not gather the weights of ZeRO-3, which saving the model requires"
        raise InputError(Problem(path, rule, "", f"Set zero_optimization.{ZERO3_GATHER_SETTING} to true."))


def _check_fsdp() -> None:
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        repair = "accelerate's default is 1: set it in accelerate launch or in its config file."
        raise InputError(Problem("--fsdp_version", "must be 2", version, repair))


def prepare_sharding(model: nn.Module) -> None:
    """Configure FSDP to shard this model, also on the CPU. Call it right before an ``Accelerator`` is created.

    accelerate 1.15 reads the settings of FSDP only for processes with an accelerator; on the CPU it accepts
    ``--use_fsdp`` and silently trains with DDP. FSDP itself works with gloo. If accelerate has to wrap layers and is
    not given their classes, it treats BERT's embeddings as a layer and then shards the word embeddings in them a second
    time, or looks for classes that timm's models do not have: both fail.

    Args:
        model: Model that will be sharded.
    """
    if not _is_enabled("ACCELERATE_USE_FSDP"):
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
    """Return the class names of the layers by which FSDP shards a model, without those that contain word embeddings.

    Args:
        model: Model, not wrapped.
    """
    # A model without word embeddings, such as an image model, raises one of these errors (transformers 5.23).
    try:
        embeddings = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        embeddings = None
    class_names = getattr(model, "_no_split_modules", None) or ()
    layers = [
        module for module in model.modules() if type(module).__name__ in class_names and module is not model
    ]
    holders = {type(module).__name__ for module in layers if embeddings in list(module.modules())}
    return sorted({type(module).__name__ for module in layers} - holders)


def resolve_workers(workers: int | str, state: PartialState) -> int:
    """Return the number of data loader workers of each process.

    Args:
        workers: That number, or ``auto``: with a GPU, one less than the cores per process, from 1 to 8; on a CPU 0,
            since workers would compete with the model for the cores.
        state: Processes of the launch.
    """
    if isinstance(workers, int):
        return workers
    if state.device.type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // local_processes(state) - 1))


def wait_for_all(state: PartialState) -> None:
    """Wait until every process has arrived, even if one of them works alone for a long time."""
    if state.num_processes > 1:
        distributed.barrier(group=_long_timeout_group)


def broadcast_from_main(state: PartialState, function: Callable[[], Any]) -> Any:
    """Run ``function`` on the main process and return its result on every process, however long it takes.

    Args:
        state: State of the process.
        function: Function without arguments, called on the main process only; its result must be picklable.
    """
    result = [function() if state.is_main_process else None]
    if state.num_processes > 1:
        distributed.broadcast_object_list(result, src=0, group=_long_timeout_group)
    return result[0]


def all_gather_objects(state: PartialState, value: Any) -> list[Any]:
    """Return the values of all processes, in the order of their ranks, on every process.

    Args:
        state: State of the process.
        value: Picklable value of this process.
    """
    values = [value]
    if state.num_processes > 1:
        values = [None] * state.num_processes
        distributed.all_gather_object(values, value, group=_long_timeout_group)
    return values


def local_processes(state: PartialState) -> int:
    """Return the number of processes on this machine, which share its disk."""
    if state.num_processes == 1:
        return 1
    return int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes))


@contextmanager
def main_process_first(state: PartialState) -> Iterator[None]:
    """Run the block on the main process first, and then on the others, even if it fails on the main process."""
    if not state.is_main_process:
        wait_for_all(state)
    try:
        yield
    finally:
        if state.is_main_process:
            wait_for_all(state)


@contextmanager
def detect_lost_process(state: PartialState) -> Iterator[None]:
    """Replace the socket errors of gloo and NCCL by a clear message if another process has ended or is stuck.

    The launcher then terminates the remaining processes (SIGTERM). This process ignores the signal, so that it ends
    with its own error and the user sees the message.

    Raises:
        LostProcessError: If another process has ended or is stuck.
    """
    try:
        yield
    except (RuntimeError, distributed.DistError) as error:
        if state.num_processes == 1 or not any(word in str(error) for word in CONNECTION_ERRORS):
            raise
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise LostProcessError(
            f"Process {state.process_index} of {state.num_processes} lost the connection to another process, which "
            "ended or is stuck; see its output for the cause. Files saved before are kept; resume a run with --resume."
        ) from error

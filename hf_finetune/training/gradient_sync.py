"""Check that all processes of a run have the same gradients."""

import torch
from torch import distributed, nn

from hf_finetune.distributed import is_sharded

__all__ = ["unsynced_gradients"]


def unsynced_gradients(model: nn.Module) -> list[str]:
    """Return the names of trained parameters whose gradients, after averaging, differ between the processes.

    A collective call that all processes make. The result is empty on a single process, and where the model is sharded
    (each process holds a part of it).

    Args:
        model: Model without its distributed wrapper, after a backward pass.
    """
    if not distributed.is_initialized() or distributed.get_world_size() < 2 or is_sharded():
        return []
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    sums = [_sums(parameter) for parameter in trained.values()]
    if not sums:
        return []
    lowest = torch.stack(sums)
    highest = lowest.clone()
    distributed.all_reduce(lowest, distributed.ReduceOp.MIN)
    distributed.all_reduce(highest, distributed.ReduceOp.MAX)
    differ = (lowest != highest).any(dim=1).tolist()
    return [name for name, different in zip(trained, differ, strict=True) if different]


def _sums(parameter: nn.Parameter) -> torch.Tensor:
    """Return sum and absolute sum of a gradient, fp32 [2], with nan replaced, as nan is not equal to itself."""
    if parameter.grad is None:
        return torch.zeros(2, dtype=torch.float32, device=parameter.device)
    gradient = parameter.grad.float()
    return torch.stack([gradient.sum(), gradient.abs().sum()]).nan_to_num()

"""Freeze a model except for some parameters, and keep the buffers of frozen modules unchanged."""

from collections.abc import Collection

from torch import nn

from hf_finetune.models.adapters import adapter_dropouts

__all__ = ["freeze_all_but", "frozen_modules", "release_eval_mode"]


def freeze_all_but(model: nn.Module, trainable: Collection[str]) -> None:
    """Make exactly these parameters trainable, and keep every frozen module in eval mode from now on.

    In eval mode a BatchNorm does not update its running statistics, and dropout and stochastic depth are off. The
    Trainer calls ``model.train()`` at every step; frozen modules ignore it.

    Args:
        model: Model to freeze, in place.
        trainable: Names of the parameters to train.

    Raises:
        ValueError: If ``trainable`` is empty or has a name that is not a parameter of the model.
    """
    names = set(trainable)
    parameters = dict(model.named_parameters())
    if not names:
        raise ValueError("trainable must name at least one parameter.")
    if unknown := names - parameters.keys():
        raise ValueError(f"trainable must name parameters of the model. Got {', '.join(sorted(unknown))}.")
    release_eval_mode(model)
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in names)
        if name not in names:
            # optimizers skip parameters whose grad is None; with zeros, weight decay and momentum would move them
            parameter.grad = None
    for module in frozen_modules(model):
        module.eval()
        module.train = _StaysInEval(module)  # type: ignore[method-assign]


def release_eval_mode(model: nn.Module) -> None:
    """Let every module follow ``model.train()`` again; ``requires_grad`` is not changed.

    Args:
        model: Model whose modules ``freeze_all_but`` has kept in eval mode.
    """
    for module in model.modules():
        if isinstance(module.__dict__.get("train"), _StaysInEval):
            del module.__dict__["train"]


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules that must stay in eval mode, derived from ``requires_grad`` of the parameters.

    These are modules whose parameters are all frozen, and modules without parameters (dropout, stochastic depth, an
    activation function) that come before the first trained layer or are children of a frozen module. The dropout of an
    adapter is frozen if and only if the adapter's weights are.

    Modules are assumed to be registered in the order in which ``forward`` calls them.

    Args:
        model: Any model.
    """
    frozen: list[nn.Module] = []
    reached = False
    frozen_above: set[int] = set()
    dropouts = adapter_dropouts(model)
    active_dropout_ids = {
        id(part) for dropout, trained in dropouts.items() if trained for part in dropout.modules()
    }
    frozen_above |= {id(dropout) for dropout, trained in dropouts.items() if not trained}
    for module in model.modules():
        parameters = list(module.parameters())
        trained = any(parameter.requires_grad for parameter in parameters)
        owns_trained = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        reached = reached or owns_trained
        stays_frozen = not trained and (bool(parameters) or id(module) in frozen_above or not reached)
        stays_frozen = stays_frozen and id(module) not in active_dropout_ids
        if stays_frozen:
            frozen.append(module)
            frozen_above.update(id(child) for child in module.children())
    return frozen


class _StaysInEval:
    """Replacement of ``module.train``; a class and not a closure, so that the model can be copied and pickled."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        for child in self.module.children():
            child.train(False)
        self.module.training = False
        return self.module

"""What is put in the place of a defence: each takes what is there and gives what does without it."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

__all__ = [
    "accept_loss_arguments",
    "always",
    "as_it_is",
    "beside_the_base_model",
    "count_every_share",
    "counts_numbers",
    "decay_all",
    "early_stopping_begins_anew",
    "follow_the_mode",
    "freeze_nothing_quietly",
    "keep_the_checkpoints_labels",
    "keep_the_tokens",
    "mean_loss",
    "newest_by_name",
    "no_changes",
    "no_objection",
    "not_ours",
    "nothing",
    "one_folder",
    "one_rate",
    "only_the_first_rate",
    "only_with_parameters",
    "remember_the_phase",
    "same_seed",
    "skip_single_selectors",
    "swallow_divergence",
    "the_trainers",
    "unseeded",
    "without_a_context",
    "wrapper_names",
    "write_in_place",
]


def nothing(original: Any) -> Any:
    """Do nothing instead."""
    return lambda *arguments, **options: None


def counts_numbers(original: Any) -> Any:
    """Count as where each example has one label."""
    from hf_finetune.data.distributed_sampling import count_labels

    return lambda self, batches, gather: count_labels(batches, gather)


def keep_the_tokens(original: Any) -> Any:
    """Show the rows of another version, and the tokens of the first."""

    def set_epoch(self: Any, epoch: int) -> None:
        self.view = epoch % len(self.versions)

    return set_epoch


def the_trainers(name: str) -> Callable[[Any], Any]:
    """Do what the stock Trainer does."""

    def become(original: Any) -> Any:
        from transformers import Trainer

        return getattr(Trainer, name)

    return become


def not_ours(module: str) -> Callable[[Any], Any]:
    """Do nothing when a module of the package calls, and as always when a test does."""

    def become(original: Any) -> Any:
        def instead(*arguments: Any, **options: Any) -> Any:
            caller = sys._getframe(1).f_globals["__name__"]
            return None if caller == module else original(*arguments, **options)

        return instead

    return become


def always(original: Any) -> Any:
    """Say yes."""
    return lambda *arguments, **options: True


def no_objection(original: Any) -> Any:
    """Object to nothing, whatever it is given."""
    return lambda *arguments, **options: ""


def as_it_is(original: Any) -> Any:
    """Give the first argument back."""
    return lambda given, *arguments, **options: given


def without_a_context(original: Any) -> Any:
    """Let everything through."""
    return lambda *arguments: nullcontext()


def no_changes(original: Any) -> Any:
    from hf_finetune.runs.changes import Changes

    return lambda *arguments: Changes({}, data=False, checkpoint=False)


def accept_loss_arguments(original: Any) -> Any:
    def instead(self: Any, **options: Any) -> None:
        original(self, **options)
        self.model_accepts_loss_kwargs = True

    return instead


def mean_loss(original: Any) -> Any:
    def instead(*arguments: Any, **options: Any) -> Any:
        loss = original(*arguments, **options)
        return lambda outputs, labels, num_items_in_batch=None: loss(outputs, labels)

    return instead


def count_every_share(original: Any) -> Any:
    def instead(target: str, label_smoothing: float = 0.0) -> Any:
        loss = original(target, label_smoothing)

        def shares(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
            found = loss(outputs, labels, num_items_in_batch)
            return found / labels.shape[-1] if labels.ndim > 1 else found

        return shares

    return instead


def follow_the_mode(original: Any) -> Any:
    return lambda self, mode=True: type(self.module).train(self.module, mode)


def only_with_parameters(original: Any) -> Any:
    def instead(model: Any) -> Any:
        return [module for module in original(model) if any(True for _ in module.parameters())]

    return instead


def freeze_nothing_quietly(original: Any) -> Any:
    return lambda model, trainable: original(model, trainable) if trainable else None


def skip_single_selectors(original: Any) -> Any:
    return lambda self, model, state: None if self.once else original(self, model, state)


def remember_the_phase(original: Any) -> Any:
    """Count the changes of phase in the callback, as one would write it first."""

    def instead(self: Any, model: Any, state: Any) -> None:
        from types import SimpleNamespace

        self.calls = getattr(self, "calls", -1) + 1
        original(self, model, SimpleNamespace(epoch=float(max(self.calls - 1, 0))))

    return instead


def swallow_divergence(original: Any) -> Any:
    def instead(self: Any, *arguments: Any, **options: Any) -> None:
        from hf_finetune.training.callbacks import DivergedError

        try:
            original(self, *arguments, **options)
        except DivergedError:
            return

    return instead


def only_the_first_rate(original: Any) -> Any:
    def instead(self: Any, args: Any, state: Any, control: Any, **options: Any) -> None:
        original(self, args, state, control, **options)
        self.rates = [self.rates[0]] * len(self.rates)

    return instead


def newest_by_name(original: Any) -> Any:
    def instead(folder: Any) -> Any:
        return max(folder.glob("checkpoint-*"), default=None, key=lambda path: int(path.name.split("-")[1]))

    return instead


def write_in_place(original: Any) -> Any:
    from contextlib import contextmanager

    @contextmanager
    def instead(path: Any) -> Any:
        yield path

    return instead


def one_folder(original: Any) -> Any:
    return lambda run, index, name: run / "stages"


def decay_all(original: Any) -> Any:
    """Let every parameter decay."""

    def instead(*arguments: Any, **options: Any) -> Any:
        return original(*arguments[:4], True)

    return instead


def one_rate(original: Any) -> Any:
    def instead(layout: Any, trainable: Any, lr: float, weight_decay: float, *rest: Any) -> Any:
        return original(layout, trainable, lr, weight_decay)

    return instead


def beside_the_base_model(original: Any) -> Any:
    def instead(model: Any) -> tuple[list[str], bool]:
        backbone = {id(parameter) for parameter in model.base_model.parameters()}
        return [name for name, parameter in model.named_parameters() if id(parameter) not in backbone], True

    return instead


def same_seed(original: Any) -> Any:
    return lambda **options: original(**{**options, "seed": 42, "data_seed": 42})


def unseeded(original: Any) -> Any:
    return lambda self, index: self.dataset[index]


def wrapper_names(original: Any) -> Any:
    def instead(model: Any, processor: Any, folder: Any) -> None:
        model.save_pretrained(folder, save_original_format=False)
        processor.save_pretrained(folder)

    return instead


def early_stopping_begins_anew(original: Any) -> Any:
    from transformers import EarlyStoppingCallback

    return EarlyStoppingCallback.check_metric_value


def keep_the_checkpoints_labels(original: Any) -> Any:
    """Leave the number of classes as the checkpoint has it."""

    def instead(path: str, *arguments: Any, **options: Any) -> Any:
        from transformers import AutoConfig

        config = original(path, *arguments, **options)
        config.num_labels = AutoConfig.from_pretrained(path).num_labels
        return config

    return instead

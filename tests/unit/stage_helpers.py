"""Stages on tiny models: examples, and records of the training from outside the package."""

import inspect

import torch
from torch.nn import functional
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_finetune.methods import StageContext, build_methods
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.stages import PlannedStage, build_plan
from hf_finetune.recipe.speed import SpeedSpec
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.training.checkpoints import stage_folder
from hf_finetune.training.stage import train_stage
from hf_finetune.training.stage_inputs import ExecutionSettings, StageData, StageEvaluation, StageOutput

__all__ = [
    "Examples",
    "StageWatch",
    "Thaw",
    "WholeBatch",
    "collate",
    "differing",
    "freeze_flags",
    "optimizer_names",
    "state_of",
    "stock_trainer",
    "train_stages",
]


class Examples(torch.utils.data.Dataset):
    """Random pixels, or random tokens of one length, with labels of three classes.

    Args:
        model: Model that takes them.
        count: Number of examples.
    """

    def __init__(self, model, count):
        generator = torch.Generator().manual_seed(1)
        if model.main_input_name == "pixel_values":
            smallest = {"InceptionV3": 75}
            size = smallest.get(type(getattr(model, "timm_model", None)).__name__, 32)
            self.inputs = {"pixel_values": torch.randn(count, 3, size, size, generator=generator)}
        else:
            tokens = torch.randint(4, 15, (count, 7), generator=generator)
            self.inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        self.labels = torch.randint(0, 3, (count,), generator=generator)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {**{name: values[index] for name, values in self.inputs.items()}, "labels": self.labels[index]}


def collate(examples):
    return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


def state_of(model):
    """Copy every parameter and every buffer, also those that are not saved."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in tensors}


def differing(one, other):
    """Return the names of the tensors that are not bit-equal in two states."""
    assert one.keys() == other.keys()
    return {name for name, value in one.items() if not torch.equal(value, other[name])}


class StageWatch(TrainerCallback):
    """Record of one stage.

    Attributes:
        before, after: Every parameter and buffer when training began and ended.
        groups: For each group of the optimizer: parameter names, rate and weight decay.
        modes: For each module that computed, the values that ``training`` had in its forward passes.
        norms: Gradient norm of each step.
        moved_by_gradient: Names of the parameters whose gradient was other than 0 in some step.
    """

    def __init__(self, model):
        self.model = model
        self.before, self.after, self.groups, self.modes = {}, {}, [], {}
        self.norms, self.moved_by_gradient = [], set()
        self.hooks = [
            module.register_forward_pre_hook(self._note_mode(name)) for name, module in model.named_modules()
        ]

    def _note_mode(self, name):
        def note(module, inputs):
            self.modes.setdefault(name, set()).add(module.training)

        return note

    def on_train_begin(self, args, state, control, **kwargs):
        self.before = state_of(self.model)
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        self.groups = [
            ([names[id(p)] for p in group["params"]], group["initial_lr"], group["weight_decay"])
            for group in kwargs["optimizer"].param_groups
        ]

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        self.norms.append(torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item())
        self.moved_by_gradient |= {name for name, gradient in gradients.items() if gradient.any()}

    def on_train_end(self, args, state, control, **kwargs):
        self.after = state_of(self.model)
        for hook in self.hooks:
            hook.remove()


class WholeBatch(TrainerCallback):
    """At each optimizer step, compute the gradient of the mean cross-entropy over all of its examples at once.

    Args:
        model: The model, without dropout, its BatchNorms in eval mode: they see a micro-batch only.

    Attributes:
        pairs: For each step: by parameter name the Trainer's gradient, and that of the whole batch.
    """

    def __init__(self, model):
        self.model, self.waiting, self.pairs = model, [], []

    def collate(self, examples):
        """Return a micro-batch, and record its examples."""
        self.waiting += examples
        return collate(examples)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        taken = self._gradients()
        self.model.zero_grad()
        batch, self.waiting = collate(self.waiting), []
        labels = batch.pop("labels")
        functional.cross_entropy(self.model(**batch).logits, labels).backward()
        whole = self._gradients()
        self.pairs.append((taken, whole))
        for name, parameter in self.model.named_parameters():
            parameter.grad = taken.get(name)

    def _gradients(self):
        return {
            name: parameter.grad.clone()
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }


def train_stages(
    model,
    folder,
    selectors,
    *,
    data=None,
    validation=None,
    compute_metrics=None,
    best_metric=None,
    callbacks=(),
    collator=collate,
    speed=None,
    watched=True,
    pretrained=None,
    **changes,
):
    """Train a model in stages of two steps, as a run does.

    Args:
        model: Model.
        folder: Where the stages write.
        selectors: Selector of each stage.
        data: Training examples; eight unless given.
        validation: Validation examples.
        compute_metrics: Metrics on them.
        best_metric: Metric that chooses the checkpoint; higher is better.
        callbacks: Further callbacks of each stage.
        collator: Function that makes a batch.
        speed: Precision, layout and compilation.
        watched: Whether to record each stage, which takes time.
        pretrained: Weights of the checkpoint, for l2_sp.
        changes: Fields of each stage.

    Returns:
        The plan and the record of each stage.
    """
    fields = {"lr": 0.01, "weight_decay": 0.05, "layer_decay": 0.5, "batch_size": 4, "clip": None}
    length = {} if "epochs" in changes else {"max_steps": 2}
    specs = [
        StageSpec(train=selector, name=f"stage-{index}", **{**fields, **length, **changes})
        for index, selector in enumerate(selectors)
    ]
    data = Examples(model, 8) if data is None else data
    plan = build_plan(read_layout(model), specs, len(data))
    seen = []
    for index, (spec, stage_plan) in enumerate(zip(specs, plan.stages, strict=True)):
        seen.append(StageWatch(model))
        stage = PlannedStage(spec, stage_plan, index)
        context = StageContext(
            stage, model, pretrained=pretrained or {}, best_metric=best_metric, greater_is_better=True
        )
        train_stage(
            model,
            stage,
            StageData("single_label", data, collator, validation),
            output=StageOutput(stage_folder(folder, index, spec.name)),
            evaluation=StageEvaluation(4, compute_metrics, best_metric, greater_is_better=True),
            execution=ExecutionSettings(speed or SpeedSpec()),
            methods=build_methods(context),
            callbacks=[*(seen[-1:] if watched else ()), *callbacks],
        )
    return plan.stages, seen


def freeze_flags(model, trainable):
    """Freeze as most tutorials do, by ``requires_grad`` alone."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)


class Thaw(TrainerCallback):
    """The obvious callback: set ``requires_grad`` when the second epoch begins."""

    def on_epoch_begin(self, args, state, control, **kwargs):
        if state.epoch and state.epoch >= 1:
            freeze_flags(kwargs["model"], {name for name, _ in kwargs["model"].named_parameters()})


def stock_trainer(model, folder, callbacks=(), *, data=None, make=Trainer, **options):
    """Return a Trainer: SGD for 2 epochs of two steps, nothing saved.

    Args:
        model: The model; or a function that makes one, which is passed as ``model_init``.
        folder: Its output directory.
        callbacks: Its callbacks.
        data: Training examples; eight unless given.
        make: Class of the Trainer.
        options: Arguments of ``TrainingArguments``, or of the Trainer itself.
    """
    made = (
        {"model_init": model}
        if callable(model) and not isinstance(model, torch.nn.Module)
        else {"model": model}
    )
    own = {
        key: options.pop(key)
        for key in list(options)
        if key in inspect.signature(Trainer.__init__).parameters
    }
    arguments = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 0.05,
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **options,
    }
    return make(
        **made,
        args=TrainingArguments(**arguments),
        train_dataset=Examples(model, 8) if data is None else data,
        callbacks=list(callbacks),
        **own,
    )


def optimizer_names(trainer):
    """Return the names of the parameters in a Trainer's optimizer, by group."""
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in trainer.optimizer.param_groups]

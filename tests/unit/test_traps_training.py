"""Traps 11 to 18, 24 and 25: loss, state that outlives a stage, logs, gradient checkpointing, compilation.

Each test first shows the error of the stock libraries, then that the package's safeguard works. If the first
half fails, the libraries have changed, and the safeguard may no longer be needed.
"""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from removals import ignored_in_a_stage, mean_loss
from stage_helpers import (
    Examples,
    StageWatch,
    WholeBatch,
    collate,
    differing,
    state_of,
    stock_trainer,
    train_stages,
)
from torch._dynamo.utils import counters
from torch.nn import functional
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import get_last_checkpoint

from hf_finetune.models.layout import read_layout
from hf_finetune.planning.groups import plan_groups
from hf_finetune.planning.selectors import select
from hf_finetune.recipe.speed import SpeedSpec
from hf_finetune.targets.losses import loss_for
from hf_finetune.training import arguments
from hf_finetune.training.freezing import freeze_all_but
from hf_finetune.training.freezing_callback import FreezingCallback
from hf_finetune.training.stage import last_checkpoint
from hf_finetune.training.trainer import SingleStageTrainer

RESNET = "timm/test_resnet"
ONE_STEP = {"num_train_epochs": 1, "learning_rate": 1e-9}


def norm_ratio(tiny_model, folder, name, **options):
    """Return the ratio of the stock gradients of 8 examples in 4 micro-batches and in one."""
    norms = []
    for batch_size, accumulation in ((8, 1), (2, 4)):
        model = tiny_model(name)
        watch = StageWatch(model)
        stock_trainer(
            model,
            folder,
            [watch],
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            **ONE_STEP,
            **options,
        ).train()
        norms += watch.norms
    return norms[1] / norms[0]


@pytest.mark.defends("hf_finetune.targets.losses:loss_for", by=mean_loss, ids=["bert"])
@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "deberta-v2", "modernbert"])
def test_trap_11_the_gradient_does_not_grow_with_the_accumulation(tmp_path, tiny_model, name):
    """Heads that take ``**kwargs`` and ignore ``num_items_in_batch`` return a mean, which is summed, not averaged."""
    assert norm_ratio(tiny_model, tmp_path / "stock", name) == pytest.approx(4, rel=1e-3)
    model = tiny_model(name)
    whole = WholeBatch(model)
    options = {"batch_size": 2, "accumulation": 4, "max_steps": 1}
    train_stages(model, tmp_path / "ours", ["all"], collator=whole.collate, callbacks=[whole], **options)
    taken, expected = whole.pairs[0]
    for parameter, gradient in taken.items():
        torch.testing.assert_close(gradient, expected[parameter], rtol=1e-3, atol=1e-6)


def accepting_loss_arguments(original, self, **options):
    """A trainer that passes `num_items_in_batch` to the model."""
    original(self, **options)
    self.model_accepts_loss_kwargs = True


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer.__init__",
    why="A loss computed by the model is averaged over the micro-batches",
    by=accepting_loss_arguments,
    ids=["bert"],
)
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_trap_11_a_loss_that_is_left_to_the_model_is_averaged(tmp_path, tiny_model, name):
    """``SingleStageTrainer`` without its own loss knows that the model's is a mean over the micro-batch."""

    def make(**kwargs):
        layout = read_layout(kwargs["model"])
        return SingleStageTrainer(groups=plan_groups(layout, layout.names(), lr=1e-9), **kwargs)

    assert norm_ratio(tiny_model, tmp_path / "ours", name, make=make) == pytest.approx(1, rel=1e-3)


@pytest.mark.defends("hf_finetune.targets.losses:loss_for", by=mean_loss)
def test_trap_12_a_loss_function_is_divided_by_the_labels_of_the_whole_batch(tmp_path, tiny_model):
    """The Trainer assumes that ``compute_loss_func`` returns a scaled loss: a mean over the micro-batch is inflated."""

    def mean(outputs, labels, num_items_in_batch=None):
        return functional.cross_entropy(outputs["logits"], labels)

    stock, ours = (
        norm_ratio(tiny_model, tmp_path, "vit", compute_loss_func=loss)
        for loss in (mean, loss_for("single_label"))
    )
    assert stock == pytest.approx(4, rel=1e-3)
    assert ours == pytest.approx(1, rel=1e-3)


class Mixed(torch.utils.data.Dataset):
    """Examples of two classes each with probabilities, as mixup makes them."""

    def __init__(self, model, count):
        self.examples = Examples(model, count)
        self.shares = torch.rand(count, 3, generator=torch.Generator().manual_seed(2)).softmax(-1)

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return {**self.examples[index], "labels": self.shares[index]}


def count_probabilities(original, *arguments, **options):
    """Each class probability counts as a label."""
    loss = original(*arguments, **options)

    def divided(outputs, labels, num_items_in_batch=None):
        value = loss(outputs, labels, num_items_in_batch)
        return value / labels.shape[-1] if labels.ndim > 1 else value

    return divided


@pytest.mark.defends(
    "hf_finetune.targets.losses:loss_for",
    why="A label of class probabilities counts as one label",
    by=count_probabilities,
    ids=["vit"],
)
@pytest.mark.parametrize("name", ["vit", "bert", RESNET])
def test_trap_13_mixed_labels_do_not_change_the_problem_type(tmp_path, tiny_model, name):
    """A model that gets probabilities as labels sets its config to ``multi_label_classification``."""
    model = tiny_model(name)
    assert model.config.problem_type is None
    model(**collate([Mixed(model, 2)[0]]))
    assert model.config.problem_type == "multi_label_classification"

    model = tiny_model(name)
    # one example to a micro-batch: BatchNorms would see others in the whole batch
    whole = WholeBatch(model)
    options = {"batch_size": 1, "accumulation": 4, "max_steps": 1}
    data = Mixed(model, 4)
    train_stages(model, tmp_path, ["head"], data=data, collator=whole.collate, callbacks=[whole], **options)
    assert model.config.problem_type is None
    taken, expected = whole.pairs[0]
    for parameter, gradient in taken.items():
        torch.testing.assert_close(gradient, expected[parameter], rtol=1e-3, atol=1e-6)


def one_folder(original, run, index, name):
    """One folder for all stages."""
    return run / "stages"


@pytest.mark.defends(
    "hf_finetune.training.checkpoints:stage_folder", why="Every stage has its own folder", by=one_folder
)
def test_trap_15_a_stage_does_not_see_the_checkpoints_of_another(tmp_path, tiny_model):
    """``global_step`` restarts with each ``train()``: in one folder the newest checkpoint is another stage's."""
    options = {"save_strategy": "steps", "save_steps": 1}
    for steps in (4, 2):
        stock_trainer(tiny_model(RESNET), tmp_path / "stock", max_steps=steps, **options).train()
    assert get_last_checkpoint(str(tmp_path / "stock")).endswith("checkpoint-4")

    class Last(TrainerCallback):
        def __init__(self):
            self.found = []

        def on_train_begin(self, args, state, control, **kwargs):
            self.found.append(last_checkpoint(Path(args.output_dir)))

    last = Last()
    train_stages(tiny_model(RESNET), tmp_path / "ours", ["head", "all"], callbacks=[last])
    assert last.found == [None, None]
    folders = sorted(path.parent.name for path in (tmp_path / "ours").rglob("checkpoint-2"))
    assert folders == ["01-stage-0", "02-stage-1"]


def count_calls(original, self, model, state):
    """The callback counts its own calls."""
    self.calls = getattr(self, "calls", -1) + 1
    original(self, model, SimpleNamespace(epoch=float(max(self.calls - 1, 0))))


@pytest.mark.defends(
    "hf_finetune.training.freezing_callback:FreezingCallback._enter",
    why="The phase follows from the epoch, also after a resume",
    by=count_calls,
)
def test_trap_16_the_phase_follows_from_the_epoch_and_not_from_memory(tmp_path, tiny_model):
    """A callback's state is not restored from the checkpoint, even if it declares how to save it."""

    class Counts(TrainerCallback, ExportableState):
        def __init__(self, epochs=0):
            self.epochs = epochs

        def on_epoch_end(self, args, state, control, **kwargs):
            self.epochs += 1

        def state(self):
            return {"args": {"epochs": self.epochs}, "attributes": {}}

    callback = FreezingCallback({0: "head", 2: "all"})
    whole = tiny_model(RESNET)
    options = {"num_train_epochs": 3, "save_strategy": "epoch"}
    stock_trainer(whole, tmp_path, [callback, Counts()], **options).train()
    for step, epochs_left in ((2, 2), (4, 1)):
        model, counts = tiny_model(RESNET), Counts()
        trainer = stock_trainer(model, tmp_path, [FreezingCallback({0: "head", 2: "all"}), counts], **options)
        trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert counts.epochs == epochs_left
        assert differing(state_of(whole), state_of(model)) == set()


class Scripted:
    """Metrics with given values, evaluation by evaluation."""

    def __init__(self, *values):
        self.values = list(values)

    def __call__(self, prediction):
        return {"accuracy": self.values.pop(0)}


def test_trap_17_the_best_metric_of_a_stage_does_not_affect_the_next(tmp_path, tiny_model):
    """Within one run the dip after a transition ends the training, as if it could not improve."""
    data = Examples(tiny_model(RESNET), 8)
    stock = stock_trainer(
        tiny_model(RESNET),
        tmp_path / "stock",
        [FreezingCallback({0: "head", 1: "all"}), EarlyStoppingCallback(1)],
        num_train_epochs=3,
        eval_dataset=data,
        compute_metrics=Scripted(0.9, 0.5, 0.7),
        metric_for_best_model="accuracy",
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
    )
    stock.train()
    assert (stock.state.epoch, stock.state.best_metric) == (2.0, 0.9)

    class Bests(TrainerCallback):
        def __init__(self):
            self.begin, self.end = [], []

        def on_train_begin(self, args, state, control, **kwargs):
            self.begin.append(state.best_metric)

        def on_train_end(self, args, state, control, **kwargs):
            self.end.append((state.epoch, state.best_metric))

    bests = Bests()
    train_stages(
        tiny_model(RESNET),
        tmp_path / "ours",
        ["head", "all"],
        validation=data,
        compute_metrics=Scripted(0.7, 0.8, 0.9, 0.4, 0.5, 0.7),  # each stage is evaluated at its start, too
        best_metric="accuracy",
        callbacks=[bests],
        epochs=2.0,
        early_stopping=1,
    )
    assert bests.begin == [None, None]
    assert bests.end == [(2.0, 0.9), (2.0, 0.7)]


def first_rate_only(original, self, *arguments, **options):
    """The learning rate of the first group for all groups."""
    original(self, *arguments, **options)
    self.rates = [self.rates[0]] * len(self.rates)


@pytest.mark.defends(
    "hf_finetune.training.callbacks:LogCallback.on_pre_optimizer_step",
    why="The log holds the learning rate of every group",
    by=first_rate_only,
)
def test_trap_18_the_log_contains_the_rate_of_every_group(tmp_path, tiny_model):
    """The Trainer logs the rate of the first group only."""
    model = tiny_model(RESNET)
    groups = [{"params": [p], "lr": 0.1 / (n + 1)} for n, p in enumerate(model.timm_model.fc.parameters())]
    trainer = stock_trainer(model, tmp_path / "stock", optimizers=(torch.optim.SGD(groups), None))
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["learning_rate"] for entry in logged] == pytest.approx([0.1 * n / 4 for n in (4, 3, 2, 1)])
    assert not any(isinstance(value, (list, dict)) for entry in logged for value in entry.values())

    (plan,), _ = train_stages(tiny_model(RESNET), tmp_path / "ours", ["all"], schedule="constant")
    lines = (tmp_path / "ours" / "stages" / "01-stage-0" / "log.jsonl").read_text().splitlines()
    entries = [entry for entry in map(json.loads, lines) if "loss" in entry]
    assert len(entries) == 2 and len(plan.groups) > 3
    assert all(
        entry["learning_rates"] == [[group.layers, pytest.approx(group.lr)] for group in plan.groups]
        for entry in entries
    )


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer._disable_checkpointing_of_frozen_prefix",
    why="Activations of a frozen prefix are not checkpointed",
)
def test_trap_24_checkpointed_activations_do_not_reach_into_a_frozen_prefix(tmp_path, tiny_model):
    """For texts the embeddings' output is made to require a gradient, so a frozen BERT is backpropagated through."""

    def reaches_the_embeddings(make, train):
        model = tiny_model("bert")
        layout = read_layout(model)
        trained = select(layout, train)
        freeze_all_but(model, trained)
        if make is SingleStageTrainer:
            groups = plan_groups(layout, trained, lr=0.01)
            make = partial(SingleStageTrainer, groups=groups, compute_loss_func=loss_for("single_label"))
        options = {"make": make, "activation_checkpointing": True, **ONE_STEP}
        stock_trainer(model, tmp_path, **options).train()
        seen = []
        table = model.bert.embeddings.word_embeddings
        table.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
        model(**collate([Examples(model, 1)[0]]))
        return seen == [True]

    assert reaches_the_embeddings(Trainer, "head")
    assert not reaches_the_embeddings(SingleStageTrainer, "head")
    assert not reaches_the_embeddings(SingleStageTrainer, "last:1")
    assert reaches_the_embeddings(SingleStageTrainer, "all")


class Compiles(TrainerCallback):
    """Count the compilations of each stage."""

    def __init__(self):
        self.graphs = []

    def on_train_begin(self, args, state, control, **kwargs):
        counters.clear()

    def on_train_end(self, args, state, control, **kwargs):
        self.graphs.append(counters["stats"]["unique_graphs"])


@pytest.mark.defends(
    "torch.compiler:reset", why="Each stage begins with an empty compiler cache", by=ignored_in_a_stage
)
@pytest.mark.slow
def test_trap_25_each_stage_begins_with_an_empty_compiler(tmp_path, tiny_model, monkeypatch):
    """Changing the trained parameters recompiles, and after a number of recompilations nothing is compiled any more."""
    monkeypatch.setattr(
        arguments, "TrainingArguments", partial(TrainingArguments, torch_compile_backend="eager")
    )
    stages = ["head", "norms", "all"]
    limits = {"recompile_limit": 2, "fail_on_recompile_limit_hit": True}
    torch.compiler.reset()
    with torch._dynamo.config.patch(**limits):
        model = tiny_model("bert")
        compiled = torch.compile(model, backend="eager")
        layout = read_layout(model)
        with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
            for train in stages:
                freeze_all_but(model, select(layout, train))
                compiled(**collate([Examples(model, 4)[index] for index in range(4)]))
        torch.compiler.reset()
        compiles = Compiles()
        for train in stages:  # each on its own model, as in a run
            model = tiny_model("bert")
            train_stages(
                model, tmp_path / train, [train], speed=SpeedSpec(compile=True), callbacks=[compiles]
            )
        assert len(compiles.graphs) == len(stages) and min(compiles.graphs) > 0
    torch.compiler.reset()

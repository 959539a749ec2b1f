"""The hooks of methods: the Trainer calls each of them, in the order of the methods, and names no method."""

import inspect
from functools import partial

import pytest
import torch
from stage_helpers import Examples, stock_trainer

from hf_finetune.methods import METHODS, build_methods
from hf_finetune.methods.base import CallbackMethod, Method, StageContext, TaskLabels
from hf_finetune.methods.carried_optimizer import CarriedOptimizer
from hf_finetune.methods.distillation import Teacher
from hf_finetune.methods.domain_alignment import DomainAlignment
from hf_finetune.methods.task_mixing import TaskMixture
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.groups import plan_groups
from hf_finetune.planning.selectors import select
from hf_finetune.planning.stages import PlannedStage, build_plan
from hf_finetune.recipe.compress import CompressSpec
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.targets.losses import loss_for
from hf_finetune.training.freezing import freeze_all_but
from hf_finetune.training.stage import train_stage
from hf_finetune.training.trainer import SingleStageTrainer


class Recorder(Method):
    """Method that records its hooks, and adds 1 to the loss."""

    def __init__(self, name, seen):
        self.name, self.seen = name, seen

    def record(self, hook):
        self.seen.append(f"{self.name} {hook}")

    def wrap_loss(self, loss, target):
        self.record(f"wrap_loss {target}")
        return lambda *arguments, **counts: loss(*arguments, **counts) + 1.0

    def on_batches(self, batches, step, process):
        self.record(f"on_batches {step} {process}")
        return batches

    def on_inputs(self, inputs, *, training):
        self.record(f"on_inputs {'training' if training else 'evaluation'}")
        return inputs

    def evaluate(self, evaluation):
        self.record("evaluate")
        output = evaluation()
        return output._replace(metrics={**output.metrics, f"eval_{self.name}": 1.0})

    def save(self, checkpoint):
        self.record(f"save {checkpoint.name}")


@pytest.fixture
def trained(tmp_path, tiny_model):
    """Train two steps with two methods; return the trainer and the hooks."""
    model, seen = tiny_model("bert"), []
    methods = [Recorder("first", seen), Recorder("second", seen)]
    layout = read_layout(model)
    trainable = select(layout, "head")
    freeze_all_but(model, trainable)
    make = partial(
        SingleStageTrainer,
        groups=plan_groups(layout, trainable, lr=0.01, weight_decay=0.0),
        compute_loss_func=loss_for("single_label"),
        target="single_label",
        methods=methods,
    )
    data = Examples(model, 8)
    options = {
        "num_train_epochs": 1,
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "eval_dataset": data,
    }
    trainer = stock_trainer(model, tmp_path / "stage", data=data, make=make, **options)
    trainer.train()
    return trainer, seen


def test_every_hook_is_called_in_the_order_of_the_methods(trained):
    trainer, seen = trained
    assert seen[:2] == ["first wrap_loss single_label", "second wrap_loss single_label"]
    step = ["on_batches {} 0", "on_batches {} 0", "on_inputs training", "on_inputs training"]
    for index in (0, 1):
        begin = seen.index(f"first on_batches {index} 0")
        names = ["first", "second"] * 2
        assert seen[begin : begin + 4] == [
            f"{name} {hook.format(index)}" for name, hook in zip(names, step, strict=True)
        ]
    assert (
        seen.index("second evaluate")
        < seen.index("first evaluate")
        < seen.index("first on_inputs evaluation")
    )
    assert seen.index("first save checkpoint-2") < seen.index("second save checkpoint-2")
    (evaluated,) = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert evaluated["eval_first"] == evaluated["eval_second"] == 1.0


def test_the_loss_has_the_part_of_each_method(trained):
    trainer, _ = trained
    plain = loss_for("single_label")
    logits, labels = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
    assert trainer.compute_loss_func((logits,), labels) == plain((logits,), labels) + 2.0


def test_a_method_without_overrides_changes_nothing(tmp_path):
    method, inputs = Method(), {"labels": torch.zeros(1)}
    loss = loss_for("single_label")
    assert method.callbacks() == () and method.result(None) == {}
    assert method.wrap_loss(loss, "single_label") is loss
    assert method.on_inputs(inputs, training=True) is inputs
    assert method.on_batches([inputs], 0, 0) == [inputs]
    assert method.evaluate(lambda: "evaluation") == "evaluation"
    assert method.prepare(None, [inputs], list, 0) == ([inputs], list)
    assert method.fit_options() == {} and method.base_loss("single_label", 0.0) is None
    assert method.on_optimizer(None, ()) is None and method.sampler(0, None, 4) is None
    method.save(tmp_path)
    method.load(tmp_path)
    with method.active():
        assert list(tmp_path.iterdir()) == []
    callback = CallbackMethod()
    assert callback.callbacks() == (callback,)


def test_methods_are_built_in_the_order_of_the_registry(tiny_model):
    model = tiny_model("vit")
    every = {"l1": 0.1, "ema": 0.9, "mixup": 0.2, "r_drop": 1.0, "gradient_noise": 0.01}
    spec = StageSpec(train="head", epochs=1, lr=0.1, balance="sampler", regularize=every)
    (plan,) = build_plan(read_layout(model), [spec], 8).stages
    labels = TaskLabels("", "single_label", "abc", [0, 1, 2, 2], 4)
    teacher = Teacher(model, [0, 1, 2], 1.0, 0.5)
    pruned = spec.model_copy(update={"compress": CompressSpec(prune=0.5, method="unstructured")})
    context = StageContext(PlannedStage(spec, plan), model, (labels,), earlier=(pruned,))
    built = [type(method) for method in build_methods(context, [teacher])]
    without = {CarriedOptimizer, TaskMixture, DomainAlignment}
    assert built == [kind for kind in METHODS if kind not in without]


def test_trainer_and_stage_have_few_parameters():
    own = [
        name
        for name, parameter in inspect.signature(SingleStageTrainer).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    assert len(own) <= 5
    assert len(inspect.signature(train_stage).parameters) <= 8

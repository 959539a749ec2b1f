"""The Trainer of a stage, on tiny models: optimizer, schedule, loss and checkpoints."""

import pytest
import torch
from stage_helpers import Examples
from torch.nn import functional
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_finetune.errors import InputError
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.groups import plan_groups
from hf_finetune.planning.selectors import select
from hf_finetune.recipe.schedule import ScheduleSpec, SchedulesSpec
from hf_finetune.targets.losses import loss_for
from hf_finetune.training.checkpoints import last_checkpoint
from hf_finetune.training.freezing import freeze_all_but
from hf_finetune.training.optimizers import check_optimizer, optimizer_name
from hf_finetune.training.trainer import SingleStageTrainer


class Watch(TrainerCallback):
    """Record the gradient norm and the rates of each step."""

    def __init__(self):
        self.norms, self.rates = [], []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        self.norms.append(torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients])).item())
        self.rates.append([group["lr"] for group in kwargs["optimizer"].param_groups])


def make_trainer(
    model,
    folder,
    examples,
    *,
    train="all",
    groups=None,
    optimizer_args=None,
    methods=(),
    callbacks=(),
    **options,
):
    """Return the trainer of one stage. ``examples`` is a dataset, or a number of examples to generate."""
    layout = read_layout(model)
    trainable = select(layout, train)
    freeze_all_but(model, trainable)
    settings = {"lr": 0.01, "weight_decay": 0.05, **(groups or {})}
    arguments = {
        "output_dir": str(folder),
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "learning_rate": settings["lr"],
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        **options,
    }
    return SingleStageTrainer(
        groups=plan_groups(layout, trainable, **settings),
        optimizer_args=optimizer_args,
        compute_loss_func=loss_for("single_label"),
        methods=methods,
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=Examples(model, examples) if isinstance(examples, int) else examples,
        callbacks=list(callbacks),
    )


def norms(name, model, folder, count, batch_size, accumulation):
    """Return the gradient norm of one optimizer step. BatchNorms stay in eval mode: they see a micro-batch only."""
    watch = Watch()
    layout = read_layout(model)
    train = [f"/^{parameter.name}$/" for parameter in layout.parameters if not parameter.is_norm]
    trainer = make_trainer(
        model,
        folder,
        count,
        train=train,
        callbacks=[watch],
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=1,
    )
    trainer.train()
    return watch.norms


MODELS = ["bert", "distilbert", "roberta", "deberta-v2", "modernbert", "resnet", "vit", "timm/test_resnet"]


@pytest.mark.parametrize("count", [8, 7], ids=["even", "uneven last micro-batch"])
@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_does_not_depend_on_the_accumulation(tmp_path, tiny_model, name, count):
    """Trap 11: in transformers 5.23, gradients of BERT and others are 4 times as large with accumulation 4."""
    whole = norms(name, tiny_model(name), tmp_path / "whole", count, 8, 1)
    parts = norms(name, tiny_model(name), tmp_path / "parts", count, 2, 4)
    assert len(whole) == len(parts) == 1
    assert whole[0] > 0
    assert parts == pytest.approx(whole, rel=1e-4)


def test_a_last_step_with_fewer_micro_batches_weights_its_examples_equally(tmp_path, tiny_model):
    examples = Examples(tiny_model("bert"), 8)
    watch = Watch()
    trainer = make_trainer(
        tiny_model("bert"),
        tmp_path,
        torch.utils.data.Subset(examples, range(3)),
        callbacks=[watch],
        groups={"lr": 1e-12},
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        num_train_epochs=1,
        train_sampling_strategy="sequential",
    )
    trainer.train()
    expected = []
    for chosen in ([0, 1], [2]):
        model = tiny_model("bert").train()
        batch = {name: values[chosen] for name, values in examples.inputs.items()}
        functional.cross_entropy(model(**batch).logits, examples.labels[chosen]).backward()
        gradients = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        expected.append(torch.stack(gradients).norm().item())
    assert watch.norms == pytest.approx(expected, rel=1e-4)


@pytest.mark.defends("hf_finetune.training.trainer:SingleStageTrainer.create_optimizer", ids=["bert-all-0.5"])
@pytest.mark.parametrize(
    ("train", "layer_decay"), [("head", 1.0), ("last:1", 0.5), ("all", 0.5), ("biases", 1.0)]
)
@pytest.mark.parametrize("name", ["bert", "timm/test_resnet"])
def test_the_optimizer_contains_exactly_the_planned_parameters(
    tmp_path, tiny_model, name, train, layer_decay
):
    """Traps 1, 2, 4 and 19: the stock optimizer misses layers unfrozen later, and decays timm's exceptions."""
    model = tiny_model(name)
    plan = {"lr": 0.02, "weight_decay": 0.05, "layer_decay": layer_decay}
    trainer = make_trainer(model, tmp_path, 4, train=train, groups=plan)
    optimizer = trainer.create_optimizer()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    held = {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(held)
    assert set(held) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    layout = read_layout(model)
    for parameter in layout.parameters:
        if parameter.name in held:
            group = held[parameter.name]
            depth = layout.head_group - parameter.group
            assert group["lr"] == pytest.approx(0.02 * layer_decay**depth, rel=1e-12)
            assert group["weight_decay"] == (0.05 if parameter.decays else 0.0)
    assert trainer.create_optimizer() is optimizer


def test_sgd_has_momentum_by_default(tmp_path, tiny_model):
    for number, (arguments, momentum) in enumerate([({}, 0.9), ({"momentum": 0.0}, 0.0)]):
        trainer = make_trainer(
            tiny_model("bert"), tmp_path / str(number), 4, optim="sgd", optimizer_args=arguments
        )
        assert {group["momentum"] for group in trainer.create_optimizer().param_groups} == {momentum}


def test_arguments_of_the_recipe_reach_the_optimizer(tmp_path, tiny_model):
    trainer = make_trainer(tiny_model("bert"), tmp_path, 4, optimizer_args={"betas": [0.8, 0.9], "eps": 1e-5})
    optimizer = trainer.create_optimizer()
    assert type(optimizer) is torch.optim.AdamW
    assert {(tuple(group["betas"]), group["eps"]) for group in optimizer.param_groups} == {((0.8, 0.9), 1e-5)}


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_the_polynomial_schedule_is_exact_at_every_step(tmp_path, tiny_model, power):
    watch = Watch()
    steps = 7
    trainer = make_trainer(
        tiny_model("bert"),
        tmp_path,
        4,
        groups={"lr": 0.02, "layer_decay": 0.5},
        callbacks=[watch],
        max_steps=steps,
        lr_scheduler_type="polynomial",
        lr_scheduler_kwargs={"lr_end": 0.0, "power": power},
    )
    trainer.train()
    peaks = [group.lr for group in trainer.planned_groups]
    assert len(set(peaks)) == 4
    expected = [[peak * (1 - t / steps) ** power for peak in peaks] for t in range(steps)]
    torch.testing.assert_close(torch.tensor(watch.rates), torch.tensor(expected), rtol=1e-12, atol=0)


TWO = SchedulesSpec(head=ScheduleSpec(name="constant"), backbone=ScheduleSpec(name="cosine"))


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer.create_scheduler",
    why="Head and backbone follow their own schedules",
)
def test_each_group_has_its_schedule_after_the_warmup_of_the_stage(tmp_path, tiny_model):
    watch = Watch()
    trainer = make_trainer(
        tiny_model("bert"),
        tmp_path,
        4,
        groups={"lr": 0.02, "layer_decay": 0.5, "schedule": TWO},
        callbacks=[watch],
        max_steps=7,
        warmup_steps=2,
    )
    trainer.train()
    assert len(trainer.planned_groups) == 8
    assert trainer.planned_groups[0].layers == "head"
    factor = [[group.schedule.rate_factor(t, 7, 2) for group in trainer.planned_groups] for t in range(7)]
    assert watch.rates == [
        [value * group.lr for value, group in zip(values, trainer.planned_groups, strict=True)]
        for values in factor
    ]
    assert [rates[0] for rates in watch.rates] == [0.0, 0.01, *[0.02] * 5]
    assert watch.rates[6][-1] < 0.1 * watch.rates[2][-1]


def test_one_schedule_for_all_groups_is_the_trainers_own(tmp_path, tiny_model):
    one = SchedulesSpec(head=ScheduleSpec(name="cosine"), backbone=ScheduleSpec(name="cosine"))
    rates = []
    for schedule in (one.head, one):
        watch = Watch()
        make_trainer(
            tiny_model("bert"),
            tmp_path,
            4,
            groups={"lr": 0.02, "layer_decay": 0.5, "schedule": schedule},
            callbacks=[watch],
            max_steps=5,
            lr_scheduler_type="cosine",
        ).train()
        rates.append(watch.rates)
    assert rates[0] == rates[1]


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_schedule_for_each_group_resumes_bit_for_bit(tmp_path, tiny_model, step):
    options = {
        "groups": {"lr": 0.02, "layer_decay": 0.5, "schedule": TWO},
        "max_steps": 5,
        "warmup_steps": 2,
        "save_strategy": "steps",
        "save_steps": 1,
        "per_device_train_batch_size": 2,
    }
    whole, watch = tiny_model("bert"), Watch()
    make_trainer(whole, tmp_path / "whole", 6, callbacks=[watch], **options).train()
    stopped = make_trainer(tiny_model("bert"), tmp_path / "run", 6, callbacks=[StopAt(step)], **options)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    model, rest = tiny_model("bert"), Watch()
    resumed = make_trainer(model, tmp_path / "run", 6, callbacks=[rest], **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{step}"))
    assert rest.rates == watch.rates[step:]
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["vit", "deit", "dinov2", "swin", "resnet", "timm/test_resnet", "bert"])
def test_a_checkpoint_reloads_bit_for_bit(tmp_path, tiny_model, name):
    """Trap 14: transformers 5.23 saves ViT's checkpoints under hub names and reloads them with strict=False."""
    model = tiny_model(name)
    trainer = make_trainer(model, tmp_path, 4)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.fill_(number + 1)
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.save_model(str(tmp_path / "checkpoint-1"), _internal_call=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    trainer._load_from_checkpoint(str(tmp_path / "checkpoint-1"))
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["vit", "dinov2", "swin"])
def test_the_stock_trainer_still_reloads_wrong_weights(tmp_path, tiny_model, name):
    """Trap 14: when this fails, transformers is fixed and ``SingleStageTrainer._save`` can be removed."""
    model = tiny_model(name)
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none")
    trainer = Trainer(model=model, args=arguments, train_dataset=Examples(model, 4))
    trainer.save_model(str(tmp_path / "checkpoint-1"), _internal_call=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    trainer._load_from_checkpoint(str(tmp_path / "checkpoint-1"))
    assert any(parameter.abs().sum() == 0 for parameter in model.parameters() if parameter.ndim > 1)


LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, -0.2], [1.0, 1.0, 4.0]])
CLASSES = torch.tensor([0, 2, 1])
HOT = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_classes_is_cross_entropy(smoothing):
    loss = loss_for("single_label", smoothing)
    expected = functional.cross_entropy(LOGITS, CLASSES, label_smoothing=smoothing)
    torch.testing.assert_close(loss((LOGITS,), CLASSES), expected)
    torch.testing.assert_close(loss({"logits": LOGITS}, CLASSES, 6), expected / 2)


def test_the_loss_of_several_labels_is_the_mean_over_all_of_them():
    expected = functional.binary_cross_entropy_with_logits(LOGITS, HOT.float())
    torch.testing.assert_close(loss_for("multi_label")({"logits": LOGITS}, HOT), expected)
    torch.testing.assert_close(loss_for("multi_label")({"logits": LOGITS}, HOT, 18), expected / 2)


def test_the_loss_of_continuous_targets_is_the_mean_squared_error():
    amounts = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    expected = ((LOGITS[:, 0] - amounts.float()) ** 2).mean()
    torch.testing.assert_close(loss_for("regression")({"logits": LOGITS[:, :1]}, amounts), expected)


def test_the_loss_of_half_precision_logits_is_computed_in_fp32():
    loss = loss_for("single_label")({"logits": LOGITS.bfloat16()}, CLASSES)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, functional.cross_entropy(LOGITS.bfloat16().float(), CLASSES))


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "adamw_torch", "adafactor", "rmsprop", "adagrad"])
def test_optimizers_that_accept_groups_are_known(name):
    assert check_optimizer(name, {}, "stages[0].optimizer") == []


def test_optimizer_names_are_the_trainers():
    assert [optimizer_name(name) for name in ("adamw", "sgd", "adafactor")] == [
        "adamw_torch",
        "sgd",
        "adafactor",
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "adamww",
            {},
            "stages[1].optimizer must be an optimizer that the Trainer supports. Got 'adamww'. Nearest: "
            "'adamw'.",
        ),
        (
            "galore_adamw",
            {},
            "stages[1].optimizer must accept parameter groups. Got 'galore_adamw'. "
            "Choose another one, such as adamw: this one builds its own parameter groups.",
        ),
        (
            "sgd",
            {"momentm": 0.5},
            "stages[1].optimizer.args.momentm must be an argument of SGD. Got 0.5. Nearest: 'momentum'.",
        ),
        (
            "adamw",
            {"eps": -1.0},
            "stages[1].optimizer must be an optimizer that can be created with these arguments. Got 'adamw'. "
            "Error: Invalid epsilon value: -1.0",
        ),
    ],
)
def test_other_optimizers_and_arguments_are_refused(name, arguments, message):
    assert str(InputError(check_optimizer(name, arguments, "stages[1].optimizer"))) == message


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer._save_checkpoint", why="A complete checkpoint is sealed"
)
def test_the_checkpoints_of_the_trainer_are_sealed(tmp_path, tiny_model):
    """So that a resume recognizes incomplete ones: see ``training/checkpoints.py``."""
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3, "per_device_train_batch_size": 4}
    make_trainer(tiny_model("bert"), tmp_path, 8, **options).train()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"

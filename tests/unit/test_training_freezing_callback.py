"""The freezing callback with a user's optimizer and schedules, and its error messages."""

import pytest
import torch
from test_training_callbacks import Pictures, Snapshots, StopAt, stock
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_finetune import FreezingCallback, parameter_groups
from hf_finetune.models.layout import head_names, read_layout
from hf_finetune.planning.selectors import select

PHASES = {0: "head", 1: "last:1", 2: "all"}
STEPS = 6  # 8 images in batches of 4, for 3 epochs


def own_optimizer(model, kind=torch.optim.AdamW):
    """Return an optimizer with rates by layer, and a schedule of the head that differs from the backbone's."""
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    groups = parameter_groups(model, lr={"head": 0.01, "backbone": [1e-4, 1e-3]}, weight_decay=0.1)
    optimizer = kind(groups, **options)
    shapes = {"head": lambda step: 1.0, "backbone": lambda step: 1 - step / STEPS}
    return optimizer, LambdaLR(optimizer, [shapes[group["name"]] for group in optimizer.param_groups])


class Rates(TrainerCallback):
    def __init__(self):
        self.rates = []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        groups = kwargs["optimizer"].param_groups
        self.rates.append({group["layers"]: group["lr"] for group in groups})


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adam])
def test_frozen_parameters_stay_bitwise_under_decay_and_momentum_also_after_they_were_trained(
    tmp_path, tiny_model, kind
):
    model, snapshots = tiny_model("timm/test_resnet"), Snapshots()
    callback = FreezingCallback({0: "head", 1: "all", 2: "last:1", 3: "all"})
    callbacks = [callback, snapshots]
    stock(model, tmp_path, callbacks, epochs=4, optimizers=own_optimizer(model, kind)).train()
    everything = set(model.state_dict())
    last = {name for name in everything if "layer4" in name or ".fc." in name}
    assert snapshots.changes() == [set(head_names(model)), everything, last, everything]


def test_a_leftover_gradient_of_zeros_changes_nothing(tmp_path, tiny_model):
    """torch's AdamW decays, and SGD with momentum changes, every parameter with a gradient, even of zeros."""

    class LeaveZeros(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            for parameter in kwargs["model"].parameters():
                parameter.grad = torch.zeros_like(parameter)

    model, snapshots = tiny_model("timm/test_resnet"), Snapshots()
    callbacks = [LeaveZeros(), FreezingCallback({0: "all", 1: "head"}), snapshots]
    stock(model, tmp_path, callbacks, optimizers=own_optimizer(model)).train()
    assert snapshots.changes() == [set(model.state_dict()), set(head_names(model))]


def test_every_group_has_its_rate_and_its_schedule(tmp_path, tiny_model):
    model, watch = tiny_model("timm/test_resnet"), Rates()
    stock(
        model, tmp_path, [FreezingCallback(PHASES), watch], epochs=3, optimizers=own_optimizer(model)
    ).train()
    assert [rates["head"] for rates in watch.rates] == [0.01] * STEPS
    assert [rates["layer4.0"] for rates in watch.rates] == [0.001 * (1 - t / STEPS) for t in range(STEPS)]
    assert watch.rates[0]["conv1"] == pytest.approx(1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm/test_resnet", "bert"])
def test_with_a_custom_optimizer_a_resumed_run_ends_the_same(tmp_path, tiny_model, name):
    """In the middle of each phase and at each border."""
    options = {"epochs": 3, "save_strategy": "steps", "save_steps": 1}
    if name == "bert":
        options["train_dataset"] = Texts()
    whole, watch = tiny_model(name), Rates()
    own = own_optimizer(whole)
    stock(whole, tmp_path / "whole", [FreezingCallback(PHASES), watch], optimizers=own, **options).train()
    for step in range(1, STEPS):
        folder = tmp_path / f"stopped-{step}"
        model = tiny_model(name)
        callbacks = [FreezingCallback(PHASES), StopAt(step)]
        with pytest.raises(KeyboardInterrupt):
            stock(model, folder, callbacks, optimizers=own_optimizer(model), **options).train()
        model, rest = tiny_model(name), Rates()
        callbacks = [FreezingCallback(PHASES), rest]
        resumed = stock(model, folder, callbacks, optimizers=own_optimizer(model), **options)
        resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
        assert rest.rates == watch.rates[step:]
        states = whole.state_dict()
        assert all(torch.equal(value, states[key]) for key, value in model.state_dict().items()), step
        for one, other in zip(own[0].state_dict()["state"].values(), optimizer_states(resumed), strict=True):
            assert all(torch.equal(value, other[key]) for key, value in one.items()), step


def optimizer_states(trainer):
    return trainer.optimizer.state_dict()["state"].values()


class Texts(torch.utils.data.Dataset):
    def __init__(self):
        self.tokens = torch.randint(4, 15, (8, 7), generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        return {"input_ids": self.tokens[index], "labels": index % 3}


def test_a_callback_that_is_added_later_still_freezes(tmp_path, tiny_model):
    """Trap 4: without on_init_end the stock optimizer holds all parameters; the frozen ones have no gradient."""
    for phases in ("head", {0: "head"}):
        model, snapshots = tiny_model("timm/test_resnet"), Snapshots()
        trainer = stock(model, tmp_path, [snapshots], epochs=1)
        trainer.add_callback(FreezingCallback(phases))
        trainer.train()
        assert snapshots.changes() == [set(head_names(model))]


def test_a_model_that_is_built_again_is_frozen_too(tmp_path, tiny_model):
    """Trap 5: with model_init the Trainer builds a model per train(), after on_init_end."""
    snapshots = Snapshots()
    trainer = Trainer(
        model_init=lambda: tiny_model("timm/test_resnet"),
        args=TrainingArguments(
            str(tmp_path),
            num_train_epochs=1,
            save_strategy="no",
            report_to="none",
            dataloader_pin_memory=False,
        ),
        train_dataset=Pictures(),
        callbacks=[FreezingCallback("head"), snapshots],
    )
    for _ in range(2):
        trainer.train()
    head = set(head_names(trainer.model))
    assert [snapshots.changes()[index] for index in (0, 2)] == [head, head]


def test_training_twice_with_one_trainer_begins_at_the_first_phase_again(tmp_path, tiny_model):
    model, snapshots = tiny_model("timm/test_resnet"), Snapshots()
    trainer = stock(model, tmp_path, [FreezingCallback({0: "head", 1: "all"}), snapshots])
    for _ in range(2):
        trainer.train()
    head, everything = set(head_names(model)), set(model.state_dict())
    changes = snapshots.changes()
    assert [changes[index] for index in (0, 1, 3, 4)] == [head, everything, head, everything]


@pytest.mark.parametrize("epoch", [-1, 1.5, "1", True])
def test_epochs_are_whole_numbers(epoch):
    with pytest.raises(ValueError) as caught:
        FreezingCallback({0: "head", epoch: "all"})
    assert str(caught.value) == f"phases must have epochs as keys, whole numbers from 0. Got {epoch!r}."


def test_resuming_with_other_weights_than_were_saved_is_an_error(tmp_path, tiny_model):
    """Trap 14: when this fails, transformers reloads its checkpoints correctly, and the check can be removed."""
    options = {"save_strategy": "steps", "save_steps": 1}
    with pytest.raises(KeyboardInterrupt):
        stock(
            tiny_model("vit"), tmp_path, [FreezingCallback({0: "head", 1: "all"}), StopAt(2)], **options
        ).train()
    trainer = stock(tiny_model("vit"), tmp_path, [FreezingCallback({0: "head", 1: "all"})], **options)
    with pytest.raises(RuntimeError) as caught:
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert str(caught.value) == (
        f"The Trainer must be able to reload the weights that it saved. {tmp_path / 'checkpoint-2'} holds 32 under "
        "names that ViTForImageClassification does not have "
        "(first: 'vit.encoder.layer.0.attention.attention.key.bias'). In a new run, override the Trainer's _save to "
        "call model.save_pretrained(output_dir, save_original_format=False)."
    )


def test_the_repair_for_such_models_resumes_bit_for_bit(tmp_path, tiny_model):
    class Mended(Trainer):
        def _save(self, output_dir=None, state_dict=None):
            self.model.save_pretrained(output_dir, save_original_format=False)

    def make(model, callbacks):
        arguments = stock(model, tmp_path, [], epochs=3, save_strategy="steps", save_steps=1).args
        return Mended(model=model, args=arguments, train_dataset=Pictures(), callbacks=callbacks)

    whole = tiny_model("vit")
    make(whole, [FreezingCallback(PHASES)]).train()
    resumed = make(tiny_model("vit"), [FreezingCallback(PHASES)])
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert all(
        torch.equal(value, whole.state_dict()[name]) for name, value in resumed.model.state_dict().items()
    )


def test_the_groups_of_a_selector_suit_a_single_phase(tmp_path, tiny_model):
    model = tiny_model("timm/test_resnet")
    own = torch.optim.SGD(parameter_groups(model, "last:1", lr=0.1, weight_decay=0.1))
    snapshots = Snapshots()
    stock(model, tmp_path, [FreezingCallback("last:1"), snapshots], epochs=1, optimizers=(own, None)).train()
    trained = set(select(read_layout(model), "last:1"))
    assert snapshots.changes()[0] & {name for name, _ in model.named_parameters()} == trained

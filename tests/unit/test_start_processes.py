"""Processes: errors before they start, the sharded layers, and error messages."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
from accelerate.utils.deepspeed import DummyOptim
from test_training_trainer import make_trainer
from transformers.integrations import deepspeed

from hf_finetune import distributed as processes
from hf_finetune.distributed import LostProcessError, detect_lost_process, layer_classes, start_processes
from hf_finetune.errors import InputError
from hf_finetune.models.build import BuiltModel
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.training.callbacks import InterruptCallback


def refusal():
    with pytest.raises(InputError) as caught:
        start_processes()
    return str(caught.value)


def test_a_missing_deepspeed_is_reported(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(processes, "is_deepspeed_available", lambda: False)
    assert refusal() == (
        "--use_deepspeed requires the package deepspeed. "
        "Install it (python -m pip install deepspeed), or launch without it."
    )


def test_a_deepspeed_config_that_takes_schedule_or_weights_away_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "deepspeed.json"
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(path))
    monkeypatch.setattr(processes, "is_deepspeed_available", lambda: True)
    path.write_text(json.dumps({"zero_optimization": {"stage": 2}, "scheduler": {"type": "WarmupLR"}}))
    assert refusal() == (
        f"{path} must not set a scheduler: the recipe sets the learning rates of all layers. "
        "Remove 'scheduler' from it."
    )
    path.write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    assert refusal() == (
        f"{path} does not gather the weights of ZeRO-3, which saving the model requires. "
        "Set zero_optimization.stage3_gather_16bit_weights_on_model_save to true."
    )
    path.write_text(json.dumps({"zero_optimization": {"stage": 2}, "optimizer": {"type": "AdamW"}}))
    monkeypatch.setattr(processes, "PartialState", lambda **options: SimpleNamespace(num_processes=1))
    assert start_processes().num_processes == 1


def test_the_optimizer_of_a_deepspeed_config_gets_the_planned_groups(tmp_path, tiny_model):
    """The Trainer uses this placeholder when the config names an optimizer, with all parameters in one group."""
    model = tiny_model("bert")
    trainer = make_trainer(
        model, tmp_path, 4, train="last:1", groups={"layer_decay": 0.5, "weight_decay": 0.1}
    )
    trainer.optimizer = DummyOptim(params=[p for p in model.parameters() if p.requires_grad])
    assert trainer.create_optimizer() is trainer.optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    held = [
        ([names[id(p)] for p in group["params"]], group["lr"], group["weight_decay"])
        for group in trainer.optimizer.params
    ]
    assert held == [
        (list(group.parameters), group.lr, group.weight_decay) for group in trainer.planned_groups
    ]
    assert all(group["params"] for group in trainer.optimizer.params) and len(held) == 4


def test_a_model_is_loaded_unsharded_while_deepspeed_arguments_exist(monkeypatch):
    """Under ZeRO-3 transformers would shard it while loading, and leave empty tensors for our weights."""

    class Config:
        def is_zero3(self):
            return True

    alive = Config()
    deepspeed.set_hf_deepspeed_config(alive)
    assert deepspeed.is_deepspeed_zero3_enabled()
    seen = []

    def build_model(*args, **kwargs):
        seen.append(deepspeed.is_deepspeed_zero3_enabled())
        return BuiltModel(None, ())

    monkeypatch.setattr("hf_finetune.runs.checkpoint.build_model", build_model)
    spec = SimpleNamespace(path="", revision=None, allow_missing=(), adapter=None)
    prepared = SimpleNamespace(
        recipe=SimpleNamespace(
            model=spec, seed=0, task_type="text-classification", learns_task_weights=False
        ),
        config=None,
        task=None,
        processor=None,
        trust_remote_code=False,
    )
    prepared.tasks = {"": prepared}
    load_pretrained(prepared)
    assert seen == [False]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", ["BertLayer"]),
        ("roberta", ["RobertaLayer"]),
        ("vit", ["ViTLayer"]),
        ("gpt2", ["GPT2Block"]),
        ("timm/test_resnet", []),
    ],
)
def test_layers_are_sharded_but_not_the_module_of_the_word_embeddings(tiny_model, name, expected):
    """accelerate 1.15 includes ``BertEmbeddings``, shards its word embeddings twice, and fails."""
    assert layer_classes(tiny_model(name)) == expected


@pytest.mark.parametrize(
    "message",
    [
        "[/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:25799.",
        "[/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 3000ms for recv operation to complete",
        "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3) ran for 600000 milliseconds: timed out",
    ],
)
def test_a_lost_process_is_reported(message):
    state = SimpleNamespace(num_processes=3, process_index=1)
    with pytest.raises(LostProcessError) as caught, detect_lost_process(state):
        raise RuntimeError(message)
    assert str(caught.value) == (
        "Process 1 of 3 lost the connection to another process, which ended or is stuck; see its output "
        "for the cause. Files saved before are kept; resume a run with --resume."
    )
    assert str(caught.value.__cause__) == message


@pytest.fixture
def terminated():
    """Return the list of received SIGTERM signals; the previous handler is restored at the end."""
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    yield came
    signal.signal(signal.SIGTERM, before)


def test_the_launcher_does_not_end_a_process_that_reports_a_lost_one(terminated):
    interrupt = InterruptCallback()
    with pytest.raises(LostProcessError):
        try:
            with detect_lost_process(SimpleNamespace(num_processes=2, process_index=0)):
                interrupt.on_train_begin(None, None, None)
                os.kill(os.getpid(), signal.SIGTERM)
                raise RuntimeError("Connection closed by peer")
        finally:
            interrupt.restore()
    os.kill(os.getpid(), signal.SIGTERM)
    assert interrupt.signal_received and terminated == []


def test_other_errors_are_unchanged():
    several, one = (SimpleNamespace(num_processes=number, process_index=0) for number in (2, 1))
    for state, message in ((several, "shapes do not match"), (one, "Connection closed by peer")):
        with pytest.raises(RuntimeError, match=message) as caught, detect_lost_process(state):
            raise RuntimeError(message)
        assert type(caught.value) is RuntimeError

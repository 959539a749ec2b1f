"""Started by ``accelerate launch`` on two processes: each writes its weights at the end of every scenario.

accelerate launch ... trap_scenarios.py FOLDER
"""

import sys
from pathlib import Path

import torch
from conftest import make_model
from safetensors.torch import save_file
from stage_helpers import Examples, Thaw, collate, freeze_flags, stock_trainer, train_stages
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn import functional

from hf_finetune.distributed import start_processes
from hf_finetune.models.layout import head_names
from hf_finetune.training.freezing import freeze_all_but
from hf_finetune.training.freezing_callback import FreezingCallback

FOLDER = Path(sys.argv[1])
STEPS = {"per_device_train_batch_size": 2, "num_train_epochs": 2}


def make():
    """Return a model without BatchNorm, whose statistics would differ between processes."""
    return make_model("vit")


def keep(name, model):
    """Write the weights of this process, under the scenario's name."""
    state = {key: value.detach().contiguous().clone() for key, value in model.state_dict().items()}
    save_file(state, FOLDER / f"{name}-{distributed.get_rank()}.safetensors")


def unfrozen_in_a_callback():
    """The optimizer holds all parameters; DDP was created with a frozen backbone, and does not reduce its gradients."""
    model = make()
    freeze_flags(model, head_names(model))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    stock_trainer(model, FOLDER / "a", [Thaw()], optimizers=(optimizer, None), **STEPS).train()
    keep("thawed", model)


def trained_twice():
    """The second ``train()`` has a new optimizer, but the DDP of the first."""
    model = make()
    freeze_flags(model, head_names(model))
    trainer = stock_trainer(model, FOLDER / "b", **STEPS)
    trainer.train()
    model.requires_grad_(True)
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.train()
    keep("twice", model)


def in_stages():
    model = make()
    train_stages(model, FOLDER / "c", ["head", "all"], batch_size=2)
    keep("stages", model)


def in_phases():
    model = make()
    stock_trainer(model, FOLDER / "d", [FreezingCallback({0: "head", 1: "all"})], **STEPS).train()
    keep("phases", model)


def fsdp1():
    """FSDP1 flattens the parameters of a module into one, which requires a gradient or does not."""
    model = make()
    freeze_flags(model, head_names(model))
    try:
        FullyShardedDataParallel(model, device_id=torch.device("cpu"))
        message = ""
    except ValueError as error:
        message = str(error)
    (FOLDER / f"fsdp1-{distributed.get_rank()}.txt").write_text(message, encoding="utf-8")


def fsdp2():
    """Freeze and unfreeze a model that is already sharded, one step each."""
    model = make()
    batch = collate([Examples(model, 4)[2 * distributed.get_rank() + index] for index in range(2)])
    labels = batch.pop("labels")
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.vit.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name, trainable in (
        ("fsdp2-head", head_names(model)),
        ("fsdp2-all", [key for key, _ in model.named_parameters()]),
    ):
        freeze_all_but(model, trainable)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        functional.cross_entropy(model.train()(**batch).logits, labels).backward()
        optimizer.step()
        model.zero_grad()
        whole = {key: value.full_tensor() for key, value in model.state_dict().items()}
        save_file(whole, FOLDER / f"{name}-{distributed.get_rank()}.safetensors")


if __name__ == "__main__":
    start_processes()
    for scenario in (unfrozen_in_a_callback, trained_twice, in_stages, in_phases, fsdp1, fsdp2):
        scenario()
    distributed.barrier()
    distributed.destroy_process_group()

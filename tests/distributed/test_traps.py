"""Traps 9 and 10, on two processes on the CPU: layers that are unfrozen under DDP and under FSDP.

Two forked processes run every scenario of ``trap_scenarios.py``. If an assertion about the stock libraries fails, they
have changed, and the safeguard may no longer be needed.
"""

from pathlib import Path

import pytest
import torch
from launching import fork_script
from safetensors.torch import load_file
from stage_helpers import Examples, collate
from torch.nn import functional

from hf_finetune.models.layout import head_names
from hf_finetune.training.freezing import freeze_all_but

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("traps")
    code, err = fork_script(folder, HERE / "trap_scenarios.py", folder, make_model=tiny_model)
    assert code == 0, err[-4000:]
    return folder


def both(folder, name):
    return [load_file(folder / f"{name}-{rank}.safetensors") for rank in (0, 1)]


def differing(one, other):
    assert one.keys() == other.keys()
    return {name for name, value in one.items() if not torch.equal(value, other[name])}


def test_trap_09_processes_agree_after_unfreezing(folder, tiny_model):
    """DDP reduces the gradients of parameters that required one when it was created, and silently skips all others."""
    model = tiny_model("vit")
    head, backbone = set(head_names(model)), dict(model.named_parameters()).keys() - set(head_names(model))
    for name in ("thawed", "twice"):
        apart = differing(*both(folder, name))
        assert len(apart & backbone) > len(backbone) / 2, name
    for name in ("stages", "phases"):
        one, other = both(folder, name)
        assert differing(one, other) == set(), name
        moved = differing(one, model.state_dict())
        assert head < moved and len(moved & backbone) > len(backbone) / 2


def test_trap_10_a_sharded_model_is_frozen_and_unfrozen(folder, tiny_model):
    """FSDP1 requires a module to be frozen completely or not at all; FSDP2 does not, and freezing works with it."""
    for rank in (0, 1):
        assert "uniform `requires_grad`" in (folder / f"fsdp1-{rank}.txt").read_text(encoding="utf-8")

    model = tiny_model("vit")
    batch = collate([Examples(model, 4)[index] for index in range(4)])
    labels = batch.pop("labels")
    everything = [name for name, _ in model.named_parameters()]
    for name, trainable in (("fsdp2-head", head_names(model)), ("fsdp2-all", everything)):
        before = {key: value.clone() for key, value in model.state_dict().items()}
        freeze_all_but(model, trainable)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        functional.cross_entropy(model.train()(**batch).logits, labels).backward()
        optimizer.step()
        model.zero_grad()
        one, other = both(folder, name)
        assert differing(one, other) == set()
        assert differing(before, model.state_dict()) <= set(trainable)
        for key, value in model.state_dict().items():
            torch.testing.assert_close(one[key], value, rtol=1e-4, atol=1e-6)
            if key not in trainable:
                assert torch.equal(one[key], before[key])

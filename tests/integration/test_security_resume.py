"""A run directory of unknown origin is resumed by unpickling only tensors and plain values."""

import pickle
import shutil

import pytest
import torch
from run_helpers import Stop, interrupt, quick_run, refusal, tiny_text_recipe
from security_helpers import Canary

from hf_finetune.training.checkpoints import last_checkpoint, seal_checkpoint


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, reviews, bert_checkpoint):
    folder = tmp_path_factory.mktemp("stopped") / "run"
    recipe = tiny_text_recipe(reviews, bert_checkpoint)
    interrupt(recipe, folder, Stop("head", 4, "save"))
    return recipe, folder


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_state_of_a_checkpoint_that_would_run_code_is_refused(tmp_path, stopped, name):
    recipe, whole = stopped
    canary, folder = Canary(tmp_path / "canary"), tmp_path / "run"
    shutil.copytree(whole, folder)
    checkpoint = last_checkpoint(folder / "stages" / "01-head")
    if name == "optimizer.pt":
        (checkpoint / name).write_bytes(pickle.dumps(canary))
    else:
        torch.save({"state": canary}, checkpoint / name)
    seal_checkpoint(checkpoint)
    assert refusal(lambda: quick_run(recipe, folder, resume=True)) == (
        f"{checkpoint} must contain only tensors and plain values. A file contains other objects, which "
        "could run code when loaded. No code was run. Start a new run."
    )
    assert not canary.ran
    assert refusal(lambda: quick_run(recipe, folder, resume=True, trust_remote_code=True)).startswith(
        str(checkpoint)
    )
    assert not canary.ran


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer._load_rng_state",
    why="An error about an invalid random state names its checkpoint",
    ids=["rng_state.pth-state3"],
)
@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("optimizer.pt", {"state": 3, "param_groups": []}),
        ("optimizer.pt", [1, 2]),
        ("scheduler.pt", None),
        ("rng_state.pth", {"python": "none"}),
    ],
)
def test_invalid_state_is_reported_with_its_checkpoint(tmp_path, stopped, name, state):
    recipe, whole = stopped
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    checkpoint = last_checkpoint(folder / "stages" / "01-head")
    torch.save(state, checkpoint / name)
    seal_checkpoint(checkpoint)
    message = refusal(lambda: quick_run(recipe, folder, resume=True))
    assert message.startswith(f"{checkpoint} must contain the saved training state as tensors. Got ")
    assert message.endswith("Restore the file from a copy of the run directory, or start a new run.")

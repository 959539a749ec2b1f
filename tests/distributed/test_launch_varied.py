"""Augmentations and heads on two processes: equal weights on both, the same as on one process, and resumed."""

import shutil
from functools import partial

import pytest
from alike import cached_runs_on_two
from launching import spread
from test_interrupted import close, same, stage_weights
from test_processes import STAGES
from varied_images import VARIED, varied_recipe

from hf_finetune.runs.run import run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_model):
    """Return a ViT: BatchNorm statistics would depend on the number of processes."""
    folder = tmp_path_factory.mktemp("vit")
    tiny_model("timm/test_vit").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recipes(squares, checkpoint):
    return partial(varied_recipe, squares, checkpoint)


@pytest.fixture(scope="module")
def twos(tmp_path_factory, recipes):
    return cached_runs_on_two(tmp_path_factory, lambda name: recipes(name, 3))


@pytest.mark.parametrize("name", VARIED)
def test_two_processes_train_as_one_does(tmp_path, twos, recipes, name):
    two = twos(name)
    run(recipes(name, 6), tmp_path / "run")
    for stage in STAGES:
        assert same(two.weights(stage, 0), two.weights(stage, 1)) == []
        assert same(two.weights(stage, 0), two.weights(stage, 0, "before")) != []
        close(stage_weights(tmp_path, stage), stage_weights(two.folder, stage))


def test_two_processes_resume_bit_for_bit(tmp_path, twos, recipes):
    name = "named-attention"
    spread(tmp_path, recipes(name, 3), 2, event={"rank": 1, "stage": "all", "step": 5, "how": "exit"})
    shutil.rmtree(tmp_path / "ranks")
    done = spread(tmp_path, recipes(name, 3), 2, resume=True)
    assert done.code == 0, done.err[-4000:]
    assert same(stage_weights(twos(name).folder, "02-all"), stage_weights(tmp_path, "02-all")) == []

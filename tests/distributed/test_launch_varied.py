"""Ways to vary images, and heads, on two processes: in step with each other and with one process, and resumed."""

import shutil

import pytest
from launching import spread
from test_interrupted import close, same, stage_weights
from test_processes import STAGES

from hf_finetune.recipe import parse_recipe
from hf_finetune.run import run

VARIED = {
    "seeds-mlp": ({"preset": "seeds", "erase": 0.5}, {"type": "mlp", "hidden": [8], "dropout": 0.0}),
    "trivial-mean": ("trivial", {"pool": "mean"}),
    "randaugment-cosine": ("randaugment", "cosine"),
    "named-attention": (
        {
            "transforms": [
                {"name": "RandomRotation", "args": {"degrees": 30}},
                {"name": "rand_augment_transform", "args": {"config_str": "rand-m9-mstd0.5"}},
                {"name": "RandomErasing", "args": {"p": 1.0}},
            ]
        },
        {"pool": "attention"},
    ),
    "strong-cls": ("strong", {"pool": "cls"}),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_model):
    """Give a ViT: a BatchNorm of two processes would see other batches than that of one."""
    folder = tmp_path_factory.mktemp("vit")
    tiny_model("timm/test_vit").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recipes(squares, checkpoint):
    def recipe(name, batch_size):
        augment, head = VARIED[name]
        common = {"epochs": 2.0, "batch_size": batch_size, "optimizer": "sgd", "best": None}
        return parse_recipe(
            {
                "task": "image-classification",
                "model": {"path": str(checkpoint), "head": head},
                "data": {"path": str(squares), "augment": augment, "split": {"validation": 0.2, "test": 0.2}},
                "stages": [
                    {"name": "head", "train": "head", "lr": 0.05, **common},
                    {"name": "all", "train": "all", "lr": 0.01, **common},
                ],
                "evaluation": {"linear_probe": None},
            }
        )

    return recipe


@pytest.fixture(scope="module")
def twos(tmp_path_factory, recipes):
    made = {}

    def get(name):
        if name not in made:
            made[name] = spread(tmp_path_factory.mktemp("two"), recipes(name, 3), 2)
            assert made[name].code == 0, made[name].err[-4000:]
        return made[name]

    return get


@pytest.mark.parametrize("name", VARIED)
def test_two_processes_learn_what_one_learns(tmp_path, twos, recipes, name):
    two = twos(name)
    run(recipes(name, 6), tmp_path / "run")
    for stage in STAGES:
        assert same(two.weights(stage, 0), two.weights(stage, 1)) == []
        assert same(two.weights(stage, 0), two.weights(stage, 0, "before")) != []
        close(stage_weights(tmp_path, stage), stage_weights(two.folder, stage))


def test_two_processes_go_on_bit_for_bit(tmp_path, twos, recipes):
    name = "named-attention"
    spread(tmp_path, recipes(name, 3), 2, event={"rank": 1, "stage": "all", "step": 5, "how": "exit"})
    shutil.rmtree(tmp_path / "ranks")
    done = spread(tmp_path, recipes(name, 3), 2, resume=True)
    assert done.code == 0, done.err[-4000:]
    assert same(stage_weights(twos(name).folder, "02-all"), stage_weights(tmp_path, "02-all")) == []

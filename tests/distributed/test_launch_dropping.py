"""Random and local decisions of each process: dropout, stochastic depth, and early stopping."""

import shutil

import pytest
from launching import spread
from test_interrupted import same, stage_weights

from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.run import run


@pytest.fixture(scope="module")
def dropping(tmp_path_factory, squares, tiny_model):
    """Return a recipe for two processes, of a ViT with dropout and stochastic depth."""
    folder = tmp_path_factory.mktemp("vit")
    tiny_model("timm/test_vit").save_pretrained(folder)
    return parse_recipe(
        {
            "task": "image-classification",
            "model": {"path": str(folder), "dropout": 0.3, "drop_path": 0.3},
            "data": {"path": str(squares), "augment": "none", "split": {"validation": 0.17, "test": 0.17}},
            "stages": [
                {"train": "all", "epochs": 3.0, "lr": 0.01, "batch_size": 3, "optimizer": "sgd", "best": None}
            ],
            "evaluation": {"linear_probe": None},
        }
    )


def test_processes_with_dropout_keep_equal_weights_and_resume_bit_for_bit(tmp_path, dropping):
    whole = spread(tmp_path / "whole", dropping, 2)
    assert whole.code == 0, whole.err[-4000:]
    assert same(whole.weights("01-all", 0), whole.weights("01-all", 1)) == []
    spread(tmp_path / "parts", dropping, 2, event={"rank": 1, "stage": "all", "step": 6, "how": "exit"})
    shutil.rmtree(tmp_path / "parts" / "ranks")
    again = spread(tmp_path / "parts", dropping, 2, resume=True)
    assert again.code == 0, again.err[-4000:]
    ends = [stage_weights(tmp_path / each, "01-all") for each in ("whole", "parts")]
    assert same(*ends) == []


def test_two_processes_stop_early_where_one_does(tmp_path, reviews, bert_checkpoint):
    """Two epochs without improvement on the initial weights of the stage."""

    def recipe(batch_size):
        stage = {"train": "head", "epochs": 6.0, "lr": 1e-6, "batch_size": batch_size}
        return parse_recipe(
            {
                "task": "text-classification",
                "model": str(bert_checkpoint),
                "data": {"path": str(reviews), "split": {"validation": 0.15, "test": 0.15}},
                "stages": [{**stage, "early_stopping": {"patience": 2, "threshold": 0.5}}],
            }
        )

    two = spread(tmp_path, recipe(3), 2)
    assert two.code == 0, two.err[-4000:]
    alone = run(recipe(6), tmp_path / "alone").metrics["stages"][0]
    (found,) = two.metrics()["stages"]
    assert (found["epochs"], found["steps"]) == (alone["epochs"], alone["steps"]) == (2.0, 10)

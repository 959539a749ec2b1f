"""Other heads and augmentation on two processes: equal weights on both, and the same as on one process."""

import pytest
from launching import spread
from test_interrupted import close, same, stage_weights
from test_processes import STAGES, text_recipe

from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.run import run

HEADS = {
    "cosine, attention": {"type": "cosine", "pool": "attention"},
    "mlp": {"type": "mlp", "hidden": [8], "dropout": 0.0},
    "cls": {"pool": "cls"},
    "mean": {"pool": "mean"},
}


@pytest.fixture(scope="module")
def recipes(reviews, bert_checkpoint):
    """Return the recipe of a head with a number of examples for each process and step."""

    def get(name, batch_size):
        content = text_recipe(reviews, bert_checkpoint, batch_size).model_dump(mode="json")
        content["model"]["head"] = HEADS[name]
        content["data"]["augment"] = {"mask": 0.2, "drop": 0.2}
        for stage in content["stages"]:
            stage["optimizer"] = "sgd"  # AdamW would amplify the rounding of gradients that are almost 0
        return parse_recipe(content)

    return get


@pytest.mark.parametrize("name", HEADS)
def test_two_processes_train_as_one_does(tmp_path, recipes, name):
    two = spread(tmp_path / "two", recipes(name, 4), 2)
    assert two.code == 0, two.err[-4000:]
    run(recipes(name, 8), tmp_path / "run")
    for stage in STAGES:
        assert same(two.weights(stage, 0), two.weights(stage, 1)) == []
        close(stage_weights(tmp_path, stage), stage_weights(two.folder, stage))
        moved = same(two.weights(stage, 0), two.weights(stage, 0, "before"))
        assert any(path.startswith("classifier") for path in moved)

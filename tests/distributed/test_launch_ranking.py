"""Lists of candidates on two processes: the weights are those of one process, up to rounding."""

import json

import pytest
from alike import assert_trained_alike, run_alone, run_on_two

from hf_finetune.recipe.load import parse_recipe
from hf_finetune.tasks import MODALITIES

WORDS = ("good", "great", "fine", "bad", "poor", "dull")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Recipe whose batches of three lists are divided unevenly; one query has no relevant candidate."""
    folder = tmp_path_factory.mktemp("ranking")
    MODALITIES["ranking"].save_tiny_checkpoint(folder / "checkpoint")
    config = folder / "checkpoint" / "config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    without_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config.write_text(json.dumps({**content, **without_dropout}), encoding="utf-8")
    rows = [
        {
            "query": f"{WORDS[query % 6]} {query}",
            "candidate": f"{WORDS[(query + place) % 6]} {WORDS[place]}",
            "label": int(place == query % 7),
        }
        for query in range(14)
        for place in range(3 + query % 3)
    ]
    table = folder / "pairs.jsonl"
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    stage = {"train": "all", "epochs": 3, "optimizer": "sgd", "lr": 0.5, "best": None}
    return parse_recipe(
        {
            "task": "text-ranking",
            "model": str(folder / "checkpoint"),
            "data": {"path": str(table), "list_size": 4, "split": {"validation": 0.15, "test": 0.15}},
            "stages": [{"name": "all", "batch_size": 3, "accumulation": 2, **stage}],
            "evaluation": {"linear_probe": None},
        }
    )


def test_two_processes_train_lists_as_one_does(tmp_path_factory, recipe):
    alone_recipe = parse_recipe(
        {
            **recipe.model_dump(mode="json"),
            "stages": [{**recipe.model_dump(mode="json")["stages"][0], "batch_size": 6}],
        }
    )
    alone, two = run_alone(tmp_path_factory, alone_recipe), run_on_two(tmp_path_factory, recipe)
    assert_trained_alike(alone, two, "01-all", rtol=1e-4, atol=1e-6)

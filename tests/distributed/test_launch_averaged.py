"""A stage with ``seeds`` on two processes: the mean is that of one process; FSDP is refused."""

import json

import pytest
import torch
from launching import spread
from safetensors.torch import load_file
from test_processes import text_recipe

from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.run import run
from hf_finetune.training.averaged_stage import mean_weights


def averaged_recipe(reviews, checkpoint, batch_size):
    content = text_recipe(reviews, checkpoint, batch_size).model_dump(mode="json")
    content["stages"][1]["seeds"] = 2
    return parse_recipe(content)


def test_two_processes_average_as_one(tmp_path, reviews, bert_checkpoint):
    run(averaged_recipe(reviews, bert_checkpoint, 6), tmp_path / "alone")
    done = spread(tmp_path / "both", averaged_recipe(reviews, bert_checkpoint, 3), 2)
    assert done.code == 0, done.err[-4000:]
    stage = done.folder / "run/stages/02-all"
    one, two = (load_file(each / "model.safetensors") for each in (tmp_path / "alone/stages/02-all", stage))
    for name, weight in one.items():
        assert torch.allclose(two[name], weight, atol=1e-5), name
    mean = mean_weights([stage / f"seed-{number}" / "model.safetensors" for number in (1, 2)])
    assert all(torch.equal(two[name], weight) for name, weight in mean.items())
    metrics = json.loads((tmp_path / "alone/metrics.json").read_text(encoding="utf-8"))
    alone, together = (content["stages"][1] for content in (metrics, done.metrics()))
    assert together["validation"] == pytest.approx(alone["validation"], abs=1e-4)
    assert len(together["seeds"]) == 2


def test_fsdp_is_refused(tmp_path, reviews, bert_checkpoint):
    done = spread(tmp_path, averaged_recipe(reviews, bert_checkpoint, 3), 2, mode="fsdp")
    assert done.code != 0
    assert (
        "stages[1].seeds is not supported with FSDP or DeepSpeed, which shard the model. Got 2." in done.err
    )
    assert not (tmp_path / "run").exists()

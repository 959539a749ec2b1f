"""Adapter stages on two processes: equal weights on both, and the same as on one process."""

import torch
from launching import spread
from safetensors.torch import load_file
from test_launch import recipe, same  # noqa: F401 (the recipe is a fixture)

from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.run import run


def test_two_processes_train_an_adapter_as_one_does(tmp_path, recipe):  # noqa: F811
    kind = "dora"  # lora's two matrices, and factors as ia3 has
    content = recipe.model_dump(mode="json")
    content["model"]["adapter"] = kind
    content["stages"] = [{**content["stages"][0], "name": kind, "train": kind, "epochs": 1.0}]
    done = spread(tmp_path, parse_recipe(content), 2)
    assert done.code == 0, done.err[-4000:]
    first, second = (done.weights(f"01-{kind}", rank) for rank in (0, 1))
    assert same(first, second)
    content["stages"][0]["batch_size"] *= 2
    run(parse_recipe(content), tmp_path / "alone")
    alone = load_file(tmp_path / "alone" / "stages" / f"01-{kind}" / "model.safetensors")
    for name, weight in alone.items():
        torch.testing.assert_close(
            first[name], weight, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert any("lora_magnitude_vector" in name for name in alone)

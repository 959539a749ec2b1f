"""Several processes with a prefix cache, which the first one writes: the same results as without.

Not bit for bit: convolutions and matrix products add up in another order in batches of another size, and the last
ones of an epoch are smaller.
"""

import pytest
from launching import spread
from test_interrupted import close, same, stage_weights
from test_processes import image_recipe, log_of, values

from hf_finetune.recipe.load import parse_recipe

STAGES = ("01-head", "02-all")


@pytest.fixture(scope="module")
def pair(tmp_path_factory, squares, timm_checkpoint):
    """Return a run on two processes without a cache and one with it."""
    content = image_recipe(squares, timm_checkpoint).model_dump(mode="json")
    content["stages"][1]["train"] = "last:2"
    plain = parse_recipe(content)
    content["speed"]["prefix_cache"] = {"views": 2}
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("HF_FINETUNE_CACHE", str(tmp_path_factory.mktemp("kept")))
        done = [
            spread(tmp_path_factory.mktemp(name), recipe, 2)
            for name, recipe in (("plain", plain), ("cached", parse_recipe(content)))
        ]
    assert [each.code for each in done] == [0, 0], done[1].err[-4000:]
    return done


def test_the_weights_and_the_logs_are_the_same(pair):
    plain, cached = pair
    assert [stage["prefix_cache"]["used"] for stage in cached.metrics()["stages"]] == [True, True]
    for stage in STAGES:
        close(stage_weights(plain.folder, stage), stage_weights(cached.folder, stage))
        one, other = (log_of(each.folder / "run", stage) for each in pair)
        for name in ("loss", "grad_norm", "eval_loss"):
            assert values(one, name) == pytest.approx(values(other, name), rel=1e-4)


def test_the_processes_agree(pair):
    for stage in STAGES:
        assert same(pair[1].weights(stage, 0), pair[1].weights(stage, 1)) == []

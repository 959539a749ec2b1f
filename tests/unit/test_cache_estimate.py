"""The cache that a plan estimates is the cache of the run."""

import pytest
import torch
from accelerate import PartialState
from stage_helpers import Examples, collate

from hf_finetune.cache.estimate import estimate_cache_size
from hf_finetune.cache.prefix_cache import CacheSettings, cache_prefix
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.selectors import select
from hf_finetune.tasks import Inputs
from hf_finetune.training.freezing import freeze_all_but

NAMES = ["timm/test_resnet", "timm/test_vit", "vit", "bert", "distilbert", "gpt2", "deberta-v2"]


@pytest.mark.parametrize("train", ["head", "last:1"])
@pytest.mark.parametrize("name", NAMES)
def test_the_estimated_bytes_are_those_of_the_cache(tmp_path, tiny_model, name, train):
    model = tiny_model(name)
    trainable = select(read_layout(model), train)
    freeze_all_but(model, trainable)
    examples = Examples(model, 10)
    settings = CacheSettings(tmp_path, views=1, epochs=None, size_limit=10**9, sources={"train": "tests"})
    state = PartialState(cpu=True)
    kept = cache_prefix(
        model, trainable, Inputs(examples, None, collate), settings, batch_size=5, state=state
    )
    inputs = {key: value for key, value in collate([examples[0]]).items() if key != "labels"}
    found = estimate_cache_size(skeleton_of(model), trainable, inputs)
    labels = 10 * examples.labels.dtype.itemsize
    tokens = 7 if "input_ids" in inputs else 0
    assert found.place == f"all layers before {kept.runner.cut.boundary}"
    assert 10 * (found.example_bytes + tokens * found.token_bytes) + labels == kept.report.bytes


def test_without_a_frozen_prefix_the_reason_is_reported(tiny_model):
    model = tiny_model("timm/test_resnet")
    inputs = {"pixel_values": torch.zeros(1, 3, 32, 32)}
    found = estimate_cache_size(skeleton_of(model), select(read_layout(model), "all"), inputs)
    assert (found.place, found.reason) == ("", "the first layers are trained")


def skeleton_of(model):
    return model.to("meta")

"""The frozen prefix is located, skipped, and gives the same bits, on every architecture and at several depths."""

import copy
from dataclasses import replace

import pytest
import torch
from stage_helpers import Examples, collate, differing, state_of
from test_invariants import EVERY_ARCHITECTURE
from torch import nn

from hf_finetune.cache.call_recording import compute_logits
from hf_finetune.cache.cut_point import BatchShape, CacheUnavailableError, SkippedModule
from hf_finetune.cache.find_cut import find_cut
from hf_finetune.cache.replay import PrefixRunner, verify
from hf_finetune.models.head_spec import set_head, with_head
from hf_finetune.models.layout import read_layout
from hf_finetune.planning.selectors import select
from hf_finetune.training.freezing import freeze_all_but

# ALBERT's one layer is at every depth, so no layer below the last one is frozen.
WHOLE = {("albert", "last:2")}


def probes(model):
    """Two batches of different sizes; texts of different lengths, with padding."""
    examples = Examples(model, 5)
    rows = [examples[index] for index in range(5)]
    one, other = collate(rows[:2]), collate(rows[2:])
    if "input_ids" in one:
        one = {name: value[:, :5] if value.ndim > 1 else value for name, value in one.items()}
        other["attention_mask"] = other["attention_mask"].clone()
        other["attention_mask"][0, 5:] = 0
    for batch in (one, other):
        batch.pop("labels")
    return one, other


def frozen(model, train):
    trainable = select(read_layout(model), train)
    freeze_all_but(model, trainable)
    return model.train(), trainable


@pytest.mark.parametrize("train", ["head", "last:1", "last:2", "norms"])
@EVERY_ARCHITECTURE
def test_the_prefix_passes_by_and_all_results_are_the_same(tiny_model, name, train):
    model, trainable = frozen(tiny_model(name), train)
    batches = probes(model)
    before, modes = state_of(model), [module.training for module in model.modules()]
    if (name, train) in WHOLE:
        with pytest.raises(CacheUnavailableError):
            find_cut(model, trainable, batches)
        return
    cut = find_cut(model, trainable, batches)
    held = [f"{cut.boundary}.", *(f"{module.name}." for module in cut.skipped)]
    assert any(parameter.startswith(held[0]) for parameter in trainable)
    assert not any(parameter.startswith(prefix) for parameter in trainable for prefix in held[1:])
    for batch in batches:
        verify(model, cut, batch)
    assert differing(before, state_of(model)) == set()
    assert modes == [module.training for module in model.modules()]
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["timm/test_resnet", "vit", "bert"])
def test_the_prefix_does_not_compute(tiny_model, name):
    model, trainable = frozen(tiny_model(name), "last:1")
    batch, other = probes(model)
    cut = find_cut(model, trainable, (batch, other))
    entry = PrefixRunner(model, cut)
    entry.values = entry.collect(batch)
    computed = set()
    handles = [
        module.register_forward_hook(lambda module, args, output, path=path: computed.add(path))
        for path, module in model.named_modules()
    ]
    with torch.no_grad(), entry.active():
        compute_logits(model, batch)
    for handle in handles:
        handle.remove()
    inside = {path for path in computed for module in cut.skipped if path.startswith(f"{module.name}.")}
    assert inside == set()
    assert cut.boundary in computed


def test_values_are_put_in_and_used_once(tiny_model):
    model, trainable = frozen(tiny_model("timm/test_resnet"), "head")
    one, other = probes(model)
    entry = PrefixRunner(model, find_cut(model, trainable, (one, other)))
    values = entry.collect(one)
    with torch.no_grad(), entry.active():
        entry.values = tuple(value + 1 for value in values)
        moved = compute_logits(model, one)
        with pytest.raises(RuntimeError, match="values must be set"):
            model(**one)
    with torch.no_grad():
        assert not torch.equal(moved, compute_logits(model, one))


def test_a_model_that_is_trained_from_the_first_layer_on_has_no_prefix(tiny_model):
    model, trainable = frozen(tiny_model("bert"), "all")
    with pytest.raises(CacheUnavailableError, match="the first layers are trained"):
        find_cut(model, trainable, probes(model))


class Wayward(nn.Module):
    """A backbone whose output bypasses the boundary to the head, or is random."""

    main_input_name = "pixel_values"

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.backbone, self.middle, self.head = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, pixel_values):
        hidden = self.backbone(pixel_values)
        if self.way == "dropout":
            hidden = nn.functional.dropout(hidden, 0.5, training=self.training)
        middle = self.middle(hidden)
        return (self.head(middle + hidden if self.way == "skip" else middle),)


@pytest.mark.defends(
    "hf_finetune.cache.replay:verify",
    why="A prefix is skipped only if the outputs are verified to be the same",
    ids=["dropout-the frozen prefix draws random numbers"],
)
@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("skip", "outputs from before middle are also needed after it"),
        ("dropout", "the frozen prefix draws random numbers"),
    ],
)
def test_a_prefix_that_cannot_be_skipped_is_refused_with_the_reason(way, reason):
    model = Wayward(way)
    trainable = [name for name, _ in model.named_parameters() if not name.startswith("backbone")]
    freeze_all_but(model, trainable)
    model.train()
    batches = ({"pixel_values": torch.randn(2, 4)}, {"pixel_values": torch.randn(3, 4)})
    with pytest.raises(CacheUnavailableError, match=reason):
        verify(model, find_cut(model, trainable, batches), batches[0])


@pytest.mark.defends("hf_finetune.cache.replay:verify")
def test_a_cut_point_with_different_outputs_is_refused(tiny_model):
    model, trainable = frozen(tiny_model("bert"), "last:1")
    batches = probes(model)
    cut = find_cut(model, trainable, batches)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.bert.encoder.layer[1].attention.self.query.weight.add_(0.1)
    verify(other, cut, batches[0])  # what is trained may change; the prefix is the same
    beyond = SkippedModule("bert.pooler", (BatchShape(("examples", 16), torch.float32),))
    with pytest.raises(CacheUnavailableError, match="different results"):
        verify(model, replace(cut, skipped=(*cut.skipped, beyond)), batches[0])


def test_a_model_that_cannot_process_a_shortened_text_has_no_cut_point():
    class Refuses(torch.nn.Module):
        def forward(self, input_ids):
            raise ValueError("Each example must contain at least one <eos> token.")

    probes = ({"input_ids": torch.ones(2, 3)}, {"input_ids": torch.ones(1, 2)})
    with pytest.raises(CacheUnavailableError, match="a test forward pass of the model failed"):
        find_cut(Refuses(), ["weight"], probes)


@pytest.mark.parametrize(
    ("name", "pool", "boundary", "sizes"),
    [
        ("bert", "mean", "classifier.layers", ("examples", 16)),
        ("bert", "cls", "classifier.layers", ("examples", 16)),
        ("bert", "attention", "classifier", ("examples", "tokens", 16)),  # its weights are trained
        ("roberta", None, "classifier", ("examples", "tokens", 16)),  # a dropout follows the first token
        ("bert", None, "classifier", ("examples", 16)),
    ],
)
def test_the_cut_point_is_after_a_pooling_without_weights(tiny_model, name, pool, boundary, sizes):
    model = tiny_model(name)
    if pool:
        set_head(model.config, {"type": "linear", "pool": pool})
        model = with_head(model.config, type(model))(model.config)
    model, trainable = frozen(model, "head")
    batches = probes(model)
    cut = find_cut(model, trainable, batches)
    assert (cut.boundary, cut.shapes[0].sizes, len(cut.shapes)) == (boundary, sizes, 1)
    for batch in batches:
        verify(model, cut, batch)

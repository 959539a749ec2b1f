"""Which heads are one linear layer, and how their weights are set."""

import numpy as np
import pytest
import torch
from torch import nn

from hf_finetune.errors import InputError
from hf_finetune.models.find_head import head_names
from hf_finetune.models.layout import read_layout
from hf_finetune.models.linear_head import nonlinear_reason, record_inputs, set_linear
from hf_finetune.planning.stages import build_plan
from hf_finetune.recipe.stage_fields import StageSpec

LINEAR = ["bert", "albert", "vit", "deit", "dinov2", "swin", "resnet", "convnext", "timm/test_resnet"]
LINEAR += [
    "timm/resnet18",
    "timm/test_convnext",
    "timm/test_vit",
    "timm/vgg11",
    "timm/swin_tiny_patch4_window7_224",
]
LINEAR += ["timm/test_efficientnet", "timm/inception_v3"]
FIT = StageSpec(name="head", train="head", fit="logistic_regression")


def batch_of(model):
    torch.manual_seed(1)
    if "pixel_values" in model.main_input_name:
        size = 96 if "inception" in str(getattr(model.config, "architecture", "")) else 32
        return {"pixel_values": torch.rand(3, 3, size, size)}
    return {"input_ids": torch.randint(5, 14, (3, 6)), "attention_mask": torch.ones(3, 6, dtype=torch.long)}


@pytest.mark.parametrize("name", LINEAR)
def test_set_weights_give_the_logits_of_the_fit(tiny_model, name):
    model = tiny_model(name, **({"size": 96} if "inception" in name else {}))
    head, batch = head_names(model), batch_of(model)
    stage = build_plan(read_layout(model), [FIT]).stages[0]
    assert list(stage.trainable) == head and stage.steps == 0
    assert nonlinear_reason(model, head, batch) == ""
    layer = model.get_submodule(head[0].rpartition(".")[0])
    with torch.no_grad(), record_inputs(layer) as found:
        model.eval()(**batch)
    random = np.random.default_rng(0)
    weight, bias = random.normal(size=(3, found[0].shape[1])), random.normal(size=3)
    set_linear(layer, weight, bias)
    with torch.no_grad():
        logits = model(**batch).logits.numpy()
    assert logits == pytest.approx(found[0].numpy() @ weight.T + bias, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("roberta", "classifier.dense.weight, classifier.dense.bias, classifier.out_proj.weight, "
                    "classifier.out_proj.bias"),
        ("distilbert", "pre_classifier.weight, pre_classifier.bias, classifier.weight, classifier.bias"),
        ("gpt2", "score.weight"),
    ],
)  # fmt: skip
def test_a_head_of_several_layers_or_without_a_bias_is_refused(tiny_model, name, head):
    with pytest.raises(InputError) as caught:
        build_plan(read_layout(tiny_model(name)), [FIT])
    assert str(caught.value) == (
        f"stages[0].fit must be gradient unless the head is one linear layer with a bias; this one has {head}. "
        "Got 'logistic_regression'."
    )


class Wrapped(nn.Module):
    """A classifier that transforms the input or output of its head."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.head = kind, nn.Linear(4, 2)
        if kind == "norm":
            self.head = nn.LayerNorm(4)

    def forward(self, values):
        if self.kind == "twice":
            self.head(values)
        logits = self.head(values.unsqueeze(1).expand(-1, 3, -1) if self.kind == "tokens" else values)
        logits = {"tokens": logits.mean(1) if logits.ndim == 3 else logits, "scaled": 2 * logits}.get(
            self.kind, logits
        )
        return type("Output", (), {"logits": logits})


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("plain", ""),
        ("norm", "head is a LayerNorm"),
        ("tokens", "head receives more than one vector per example"),
        ("twice", "head receives more than one vector per example"),
        ("scaled", "the model changes the output of head"),
    ],
)
def test_why_logits_are_no_linear_function_of_what_the_head_takes(kind, reason):
    assert (
        nonlinear_reason(Wrapped(kind), ["head.weight", "head.bias"], {"values": torch.rand(2, 4)}) == reason
    )

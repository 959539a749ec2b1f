"""A temperature in the head: plain transformers returns calibrated probabilities, and no decision changes."""

import pytest
import torch

from hf_finetune.models.find_head import head_names
from hf_finetune.models.linear_head import fold_temperature_into_head

IMAGES, TEXTS = (
    {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)},
    {"input_ids": torch.tensor([[5, 6, 7, 8]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)},
)
MODELS = [
    *(
        (name, IMAGES)
        for name in ("timm/test_resnet", "timm/test_vit", "timm/test_efficientnet", "vit", "convnext")
    ),
    *((name, TEXTS) for name in ("bert", "distilbert", "roberta", "gpt2", "modernbert", "deberta-v2")),
]


@pytest.mark.parametrize(("name", "batch"), MODELS)
def test_logits_are_divided_and_nothing_else_changes(tiny_model, name, batch):
    model = tiny_model(name).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        logits = model(**batch).logits
    assert fold_temperature_into_head(model, head_names(model), 2.5, batch)
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, logits / 2.5, rtol=1e-4, atol=1e-6)
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {key.rpartition(".")[0] for key in moved} == {sorted(moved)[0].rpartition(".")[0]}


def test_a_head_that_is_not_linear_is_left_as_it_is(tiny_model, monkeypatch):
    model = tiny_model("bert").eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.classifier.register_forward_hook(lambda module, args, output: output**3)
    assert not fold_temperature_into_head(model, head_names(model), 2.0, TEXTS)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())

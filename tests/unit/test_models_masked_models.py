"""Models that reconstruct masked inputs: around any backbone, and the weights that the classifier takes over."""

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from hf_finetune.errors import InputError
from hf_finetune.models.layout import head_names, read_layout
from hf_finetune.models.masked_models import (
    backbone_weights,
    build_masked_model,
    load_backbone,
    recompute_batch_norm_statistics,
)
from hf_finetune.tasks.image.masked_model import MaskedImageModel
from hf_finetune.tasks.image.masking import pixel_loss

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
# Edge in pixels of the square that each position of the last feature map, or each token, reconstructs.
STRIDES = {
    "vit": 16,
    "deit": 16,
    "dinov2": 16,
    "swin": 8,
    "resnet": 8,
    "convnext": 8,
    "timm/test_resnet": 32,
    "timm/test_vit": 8,
    "timm/swin_tiny_patch4_window7_224": 8,
    "timm/vgg11": 8,
}


@pytest.mark.parametrize("name", STRIDES)
def test_every_backbone_reconstructs_an_image_and_has_gradients(tiny_model, name):
    model = MaskedImageModel(tiny_model(name), IMAGE, seed=0).train()
    assert model.stride == STRIDES[name] or name in ("timm/test_vit", "timm/vgg11")
    batch = torch.cat([IMAGE, 1 - IMAGE])
    made = model(pixel_values=batch).logits
    assert made.shape == batch.shape
    mask = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    mask[..., :16, :] = True
    pixel_loss({"logits": made}, batch.where(mask, torch.nan)).backward()
    head = {f"classifier.{one}" for one in head_names(model.classifier)}
    moved = {
        one
        for one, value in model.named_parameters()
        if value.grad is not None and value.grad.abs().sum() > 0
    }
    first = [one for one in read_layout(model).parameters if one.group == 0 and "mask_token" not in one.name]
    assert {one.name for one in first} & moved and "decoder.weight" in moved
    assert not head & moved


def test_each_token_fills_in_its_own_patch(tiny_model):
    """A change of one token's features changes its patch of pixels, and no other."""
    model = MaskedImageModel(tiny_model("vit"), IMAGE, seed=0)
    before = model(pixel_values=IMAGE).logits
    features = model.features
    model.features = lambda pixels: features(pixels) + torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    apart = (model(pixel_values=IMAGE).logits - before).abs().sum(dim=1)[0]
    assert (apart[:16, 16:] > 0).any()
    assert apart[:16, :16].sum() == apart[16:].sum() == 0.0


def test_the_new_layer_depends_on_the_seed_only(tiny_model):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, other = (MaskedImageModel(tiny_model("vit"), IMAGE, seed=4).decoder for _ in range(2))
    assert torch.equal(one.weight, other.weight)
    torch.manual_seed(1)
    MaskedImageModel(tiny_model("resnet"), IMAGE, seed=4)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(one.weight, MaskedImageModel(tiny_model("vit"), IMAGE, seed=5).decoder.weight)


def test_features_on_no_grid_are_refused(tiny_model):
    model = tiny_model("vit")
    model.base_model.forward = lambda pixel_values: (torch.rand(1, 16),)
    with pytest.raises(InputError) as caught:
        MaskedImageModel(model, IMAGE, seed=0)
    assert str(caught.value) == (
        "domain_adaptation.method must be coral or dann. Got 'continue_pretraining'. "
        "The features of this architecture do not form a grid."
    )


@pytest.mark.defends(
    "hf_finetune.models.masked_models:load_backbone",
    why="A classifier starts from the backbone that was trained on masked inputs",
    ids=["vit"],
)
@pytest.mark.parametrize("name", ["vit", "timm/test_resnet"])
def test_an_image_classifier_loads_all_weights_but_its_head(tiny_model, name):
    model, other = MaskedImageModel(tiny_model(name), IMAGE, seed=0), tiny_model(name)
    with torch.no_grad():
        for value in model.classifier.state_dict().values():
            value.add_(1)
    head = set(head_names(other))
    names = [one for one in other.state_dict() if one not in head]
    before = {one: value.clone() for one, value in other.state_dict().items()}
    load_backbone(other, backbone_weights(model, names))
    for one, value in other.state_dict().items():
        assert torch.equal(value, before[one] + (0 if one in head else 1)), one


@pytest.fixture(params=["bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert"])
def checkpoint(request, tmp_path, tiny_model, tiny_tokenizer):
    tiny_model(request.param).save_pretrained(tmp_path)
    tiny_tokenizer(tmp_path)
    return tmp_path, tiny_model(request.param)


def test_a_text_classifier_loads_all_weights_of_the_other_model(checkpoint):
    folder, classifier = checkpoint
    model, notes = build_masked_model(str(folder), "AutoModelForMaskedLM")
    assert len(notes) == 1
    assert notes[0].startswith("The checkpoint has no masked language modeling head; a new one is trained: ")
    layout = read_layout(classifier)
    names = [one.name for one in layout.parameters if one.group < layout.head_group]
    lacking = {name for name in names if name not in backbone_weights(model, names)}
    assert all("pooler" in name for name in lacking) and len(lacking) < len(names) - 10
    known = {name: value.clone() for name, value in classifier.state_dict().items()}
    assert all(torch.equal(value, known[name]) for name, value in backbone_weights(model, names).items())
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1.0)
    load_backbone(classifier, backbone_weights(model, names))
    for name, value in classifier.state_dict().items():
        taken_over = name in names and name not in lacking
        assert torch.equal(value, known[name] + 1.0 if taken_over else known[name]), name


def test_a_checkpoint_with_the_head_that_predicts_tokens_keeps_it(tmp_path, checkpoint):
    model, _ = build_masked_model(str(checkpoint[0]), "AutoModelForMaskedLM")
    model.save_pretrained(tmp_path / "whole")
    again, notes = build_masked_model(str(tmp_path / "whole"), "AutoModelForMaskedLM", seed=3)
    assert notes == []
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_an_architecture_without_a_masked_language_model_is_refused(tmp_path, tiny_model):
    tiny_model("gpt2").save_pretrained(tmp_path)
    with pytest.raises(InputError) as caught:
        build_masked_model(str(tmp_path), "AutoModelForMaskedLM")
    assert str(caught.value) == (
        "domain_adaptation.method must be coral or dann. Got 'continue_pretraining'. "
        "transformers has no masked language model for 'gpt2'."
    )


def test_weights_of_the_head_and_of_other_models_are_not_taken_over(tiny_model):
    with pytest.raises(ValueError, match=r"^weights must be of the backbone. Got classifier.bias, nothing.$"):
        load_backbone(tiny_model("vit"), {"classifier.bias": torch.zeros(3), "nothing": torch.zeros(1)})


def test_the_statistics_of_norms_are_those_of_the_inputs_as_they_are(tiny_model):
    model = tiny_model("timm/test_resnet")
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    weights = {name: value.clone() for name, value in model.named_parameters()}
    batches = [torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    first = norms[0]
    seen = []
    handle = first.register_forward_pre_hook(lambda module, args: seen.append(args[0].mean(dim=(0, 2, 3))))
    assert recompute_batch_norm_statistics(model, iter({"pixel_values": one} for one in batches)) == len(
        norms
    )
    handle.remove()
    torch.testing.assert_close(first.running_mean, torch.stack(seen).mean(dim=0))
    assert all(norm.momentum is not None and not norm.training for norm in norms)
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())


def test_a_model_without_batch_norms_needs_no_inputs(tiny_model):
    def batches():
        raise AssertionError("nothing is computed")
        yield

    assert recompute_batch_norm_statistics(tiny_model("vit"), batches()) == 0

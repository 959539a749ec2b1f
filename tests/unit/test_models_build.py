"""A checkpoint becomes a classifier for other labels, and each of its weights is accounted for."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, GPT2Tokenizer

from hf_finetune.errors import InputError
from hf_finetune.models.build import build_model, build_skeleton, load_processor, read_config
from hf_finetune.tasks import MODALITIES, TASKS

NAMES = ["cake", "soup", "tea"]


def build(path, names, modality="text", target="single_label", **options):
    config = read_config(str(path), names, target)
    return build_model(
        str(path),
        config,
        task=TASKS[f"{modality}-classification"],
        **options,
    )


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def saved(model, folder, names=NAMES):
    """Save a model whose config names its labels; return its weights."""
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    model.save_pretrained(folder)
    return {name: value.clone() for name, value in model.state_dict().items()}


def change_weights(folder, change):
    """Read, change and write the weights of a checkpoint."""
    path = Path(folder) / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, {"format": "pt"})


def test_a_backbone_without_a_head_gets_a_new_one(tmp_path, tiny_model):
    before = saved(tiny_model("bert"), tmp_path)
    change_weights(
        tmp_path, lambda weights: [weights.pop(f"classifier.{name}") for name in ("weight", "bias")]
    )
    built = build(tmp_path, ["bad", "good"])
    assert built.notes == ("A new head is initialized for 2 labels.",)
    after = built.model.state_dict()
    assert same(*({n: w for n, w in state.items() if n[:4] == "bert"} for state in (before, after)))
    assert after["classifier.weight"].shape == (2, 16)
    assert build(tmp_path, ["label"], target="regression").notes == (
        "A new head is initialized for 1 label.",
    )


def test_a_head_of_another_size_is_replaced_with_a_warning(tmp_path, tiny_model):
    before = saved(tiny_model("bert"), tmp_path)
    built = build(tmp_path, ["bad", "good"])
    assert built.notes == ("The checkpoint's head for 3 labels is replaced by a new head for 2 labels.",)
    after = built.model.state_dict()
    assert same(*({n: w for n, w in state.items() if n[:4] == "bert"} for state in (before, after)))
    config = built.model.config
    assert (config.id2label, config.label2id, config.num_labels, config.problem_type) == (
        {0: "bad", 1: "good"},
        {"bad": 0, "good": 1},
        2,
        "single_label_classification",
    )


@pytest.mark.parametrize("name", ["bert", "vit", "timm/test_resnet", "roberta"])
def test_the_head_for_the_same_labels_is_kept(tmp_path, tiny_model, name):
    before = saved(tiny_model(name), tmp_path)
    built = build(tmp_path, NAMES, "text" if name in ("bert", "roberta") else "image")
    assert built.notes == ()
    assert same(before, built.model.state_dict())


@pytest.mark.defends(
    "hf_finetune.models.build:_reinitialize", why="A head for other labels is initialized again", ids=["bert"]
)
@pytest.mark.parametrize("name", ["bert", "vit", "timm/test_resnet", "roberta"])
def test_the_head_for_as_many_other_labels_is_replaced(tmp_path, tiny_model, name):
    before = saved(tiny_model(name), tmp_path)
    built = build(tmp_path, ["bad", "good", "so so"], "text" if name in ("bert", "roberta") else "image")
    assert built.notes == ("The checkpoint's head for 3 labels is replaced by a new head for 3 labels.",)
    after = built.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    weights = {"roberta": {"classifier.dense.weight", "classifier.out_proj.weight"}}
    weights |= {"timm/test_resnet": {"timm_model.fc.weight"}}
    assert changed - {"timm_model.fc.bias"} == weights.get(name, {"classifier.weight"})
    assert list(built.model.config.id2label.values()) == ["bad", "good", "so so"]


def test_the_same_labels_in_another_order_are_other_labels(tmp_path, tiny_model):
    saved(tiny_model("bert"), tmp_path)
    assert build(tmp_path, NAMES[::-1]).notes == (
        "The checkpoint's head for 3 labels is replaced by a new head for 3 labels.",
    )


@pytest.mark.defends("transformers:set_seed", why="A new head follows from the seed")
def test_a_new_head_follows_from_the_seed(tmp_path, tiny_model):
    saved(tiny_model("bert"), tmp_path)
    one, again, other = (build(tmp_path, ["bad", "good"], seed=seed).model for seed in (1, 1, 2))
    assert same(one.state_dict(), again.state_dict())
    assert not torch.equal(one.classifier.weight, other.classifier.weight)


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit"])
def test_a_timm_head_has_the_size_of_the_labels(tmp_path, tiny_model, architecture):
    """Trap 21: transformers 5.23 makes a head of 1000 classes from a timm config with id2label but no num_labels."""
    saved(tiny_model(f"timm/{architecture}", num_labels=1000), tmp_path, [f"n{i}" for i in range(1000)])
    built = build(tmp_path, NAMES, "image")
    assert built.notes == ("The checkpoint's head for 1,000 labels is replaced by a new head for 3 labels.",)
    assert built.model.timm_model.get_classifier().weight.shape[0] == built.model.num_labels == 3
    built.model.save_pretrained(tmp_path / "again")
    again = AutoConfig.from_pretrained(tmp_path / "again")
    assert (list(again.id2label.values()), again.num_labels) == (NAMES, 3)


@pytest.mark.defends(
    "hf_finetune.models.checkpoint_weights:check_loaded_weights",
    why="Every weight of a checkpoint is accounted for",
)
def test_a_missing_backbone_weight_is_an_error_unless_it_is_allowed(tmp_path, tiny_model):
    saved(tiny_model("bert"), tmp_path)
    name = "bert.encoder.layer.1.output.dense"
    change_weights(tmp_path, lambda weights: [weights.pop(f"{name}.{kind}") for kind in ("weight", "bias")])
    with pytest.raises(InputError) as caught:
        build(tmp_path, NAMES)
    assert str(caught.value) == (
        f"model.path must contain every weight outside the head. Got {str(tmp_path)!r}. It lacks {name}.bias, "
        f"{name}.weight. Add the names to model.allow_missing if this is intended."
    )
    assert build(tmp_path, NAMES, allow_missing=[r"layer\.1\.output\.dense"]).notes == ()
    with pytest.raises(InputError, match=rf"It lacks {name}\.weight\."):
        build(tmp_path, NAMES, allow_missing=[r"\.bias$"])


def test_many_missing_weights_are_counted(tmp_path, tiny_model):
    saved(tiny_model("bert"), tmp_path)
    change_weights(tmp_path, lambda weights: [weights.pop(n) for n in list(weights) if ".layer.0." in n])
    with pytest.raises(InputError) as caught:
        build(tmp_path, NAMES)
    first = "bert.encoder.layer.0.attention"
    assert str(caught.value) == (
        f"model.path must contain every weight outside the head. Got {str(tmp_path)!r}. "
        f"It lacks {first}.output.LayerNorm.bias, {first}.output.LayerNorm.weight, {first}.output.dense.bias, "
        f"{first}.output.dense.weight and 12 more. Add the names to model.allow_missing if this is intended."
    )


@pytest.mark.defends("hf_finetune.models.checkpoint_weights:check_loaded_weights")
def test_a_weight_that_belongs_to_no_layer_is_an_error(tmp_path, tiny_model):
    saved(tiny_model("bert"), tmp_path)
    change_weights(tmp_path, lambda weights: weights.update({"bert.adapter.weight": torch.ones(2)}))
    with pytest.raises(InputError) as caught:
        build(tmp_path, NAMES)
    assert str(caught.value) == (
        f"model.path must contain only weights of its architecture. Got {str(tmp_path)!r}. "
        "It also contains bert.adapter.weight. Add the names to model.allow_missing if this is intended."
    )
    assert build(tmp_path, NAMES, allow_missing=["adapter"]).notes == ()


@pytest.mark.defends("hf_finetune.models.checkpoint_weights:check_loaded_weights")
def test_a_backbone_weight_of_another_shape_is_an_error(tmp_path, tiny_model):
    saved(tiny_model("bert"), tmp_path)
    name = "bert.embeddings.word_embeddings.weight"
    change_weights(tmp_path, lambda weights: weights.update({name: torch.ones(17, 16)}))
    with pytest.raises(InputError) as caught:
        build(tmp_path, NAMES)
    assert str(caught.value) == (
        f"model.path must contain {name} with shape [15, 16]. Got [17, 16]. "
        "Add the names to model.allow_missing if this is intended."
    )


def test_a_pretraining_head_is_dropped_with_a_warning(tmp_path, tiny_model):
    saved(tiny_model("bert"), tmp_path)

    def pretrained(weights):
        for name in ("weight", "bias"):
            del weights[f"classifier.{name}"]
        weights["cls.predictions.bias"] = torch.ones(15)
        weights["cls.seq_relationship.weight"] = torch.ones(2, 16)

    change_weights(tmp_path, pretrained)
    assert build(tmp_path, NAMES).notes == (
        "A new head is initialized for 3 labels.",
        "Checkpoint weights not loaded, because only BertForPreTraining needs them: "
        "cls.predictions.bias, cls.seq_relationship.weight.",
    )


def test_truncated_weights_are_an_error(tmp_path, tiny_model):
    saved(tiny_model("bert"), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError) as caught:
        build(tmp_path, NAMES)
    assert str(caught.value) == (
        f"model.path must contain intact weight files. Got {str(tmp_path)!r}. "
        "A file is damaged or truncated: download it again."
    )


def test_a_folder_without_weights_is_an_error(tmp_path, tiny_model):
    saved(tiny_model("bert"), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError) as caught:
        build(tmp_path, NAMES)
    assert str(caught.value) == (
        f"model.path must contain weights. Got {str(tmp_path)!r}. It has no model.safetensors."
    )


def test_a_missing_folder_is_an_error_that_names_the_nearest(tmp_path, tiny_model):
    saved(tiny_model("bert"), tmp_path / "tiny-bert")
    rule = "model.path must be a checkpoint: a folder with config.json, or a name on the Hub."
    for wrong, repair in [
        (tmp_path / "tiny-brt", f"Nearest: {str(tmp_path / 'tiny-bert')!r}."),
        (tmp_path / "xyz" / "abc", "There is no such folder."),
    ]:
        with pytest.raises(InputError) as caught:
            read_config(str(wrong), NAMES, "single_label")
        assert str(caught.value) == f"{rule} Got {str(wrong)!r}. {repair}"


def test_a_model_without_a_classifier_for_the_task_is_an_error(tmp_path, tiny_model):
    saved(tiny_model("bert"), tmp_path)
    config = read_config(str(tmp_path), NAMES, "single_label")
    with pytest.raises(InputError) as caught:
        build_skeleton(config, TASKS["image-classification"])
    assert str(caught.value) == (
        "model.path must be a checkpoint from which transformers can build an image classifier. "
        "Got a 'bert' model."
    )


def test_a_name_of_timm_is_planned_without_network():
    config = read_config("timm/resnet50.a1_in1k", NAMES, "single_label")
    skeleton = build_skeleton(config, TASKS["image-classification"])
    assert skeleton.timm_model.get_classifier().weight.shape == (3, 2048)
    assert next(skeleton.parameters()).device.type == "meta"


@pytest.mark.parametrize(
    ("target", "names", "problem_type"),
    [
        ("single_label", NAMES, "single_label_classification"),
        ("multi_label", NAMES, "multi_label_classification"),
        ("regression", ["label"], "regression"),
    ],
)
def test_the_config_names_the_labels_and_the_kind_of_task(tmp_path, tiny_model, target, names, problem_type):
    saved(tiny_model("bert"), tmp_path)
    config = read_config(str(tmp_path), names, target)
    assert (config.problem_type, config.num_labels) == (problem_type, len(names))
    assert getattr(config, "function_to_apply", None) == ("none" if target == "regression" else None)


@pytest.mark.parametrize(
    ("name", "module", "rate"),
    [
        ("bert", "dropout", "p"),
        ("distilbert", "dropout", "p"),
        ("roberta", "classifier.dropout", "p"),
        ("vit", "vit.layers.0.mlp", None),
        ("timm/test_resnet", "timm_model", "drop_rate"),
    ],
)
def test_dropout_reaches_the_model(tmp_path, tiny_model, name, module, rate):
    saved(tiny_model(name), tmp_path)
    config = read_config(str(tmp_path), NAMES, "single_label", dropout=0.35)
    model = build_skeleton(
        config, TASKS[f"{'text' if name in ('bert', 'distilbert', 'roberta') else 'image'}-classification"]
    )
    if rate is None:
        rates = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
        assert rates == {0.35}
    else:
        assert getattr(model.get_submodule(module), rate) == 0.35


def test_dropout_for_an_architecture_without_it_is_an_error(tmp_path, tiny_model):
    saved(tiny_model("resnet"), tmp_path)
    with pytest.raises(InputError) as caught:
        read_config(str(tmp_path), NAMES, "single_label", dropout=0.35)
    assert str(caught.value) == (
        "model.dropout must not be set for an architecture without dropout. Got 0.35."
    )


@pytest.mark.parametrize(
    "name", ["swin", "convnext", "timm/test_efficientnet", "timm/test_vit", "timm/test_convnext"]
)
def test_stochastic_depth_reaches_the_model_and_grows_to_the_last_block(tmp_path, tiny_model, name):
    saved(tiny_model(name), tmp_path)
    config = read_config(str(tmp_path), NAMES, "single_label", drop_path=0.35)
    model = build_skeleton(config, TASKS["image-classification"])
    rates = [float(m.drop_prob) for m in model.modules() if "DropPath" in type(m).__name__ and m.drop_prob]
    assert rates == sorted(rates) and 0 < rates[-1] <= 0.35
    assert (
        rates[-1] == pytest.approx(0.35) or name == "timm/test_efficientnet"
    )  # whose drop path rate ends after its blocks


@pytest.mark.parametrize(
    ("name", "modality"), [("vit", "image"), ("bert", "text"), ("timm/vgg11_bn", "image")]
)
def test_stochastic_depth_for_an_architecture_without_it_is_an_error(tmp_path, tiny_model, name, modality):
    saved(tiny_model(name), tmp_path)
    with pytest.raises(InputError) as caught:
        read_config(str(tmp_path), NAMES, "single_label", drop_path=0.35)
    assert str(caught.value) == (
        "model.drop_path must not be set for an architecture without stochastic depth. Got 0.35."
    )


def test_dropout_that_a_timm_architecture_does_not_take_is_an_error(tmp_path, tiny_model, monkeypatch):
    """timm passes arguments to the architecture, which raises a TypeError."""
    saved(tiny_model("timm/test_resnet"), tmp_path)

    def create_model(name, **arguments):
        raise TypeError("got an unexpected keyword argument 'drop_rate'")

    monkeypatch.setattr("hf_finetune.models.dropout.timm.create_model", create_model)
    with pytest.raises(InputError) as caught:
        read_config(str(tmp_path), NAMES, "single_label", dropout=0.35)
    assert str(caught.value) == (
        "model.dropout must not be set for an architecture without dropout. Got 0.35."
    )


def test_gpt2_pads_with_its_end_of_text(tmp_path, tiny_model):
    """GPT-2 has no padding token, and transformers refuses batches above one without."""
    saved(tiny_model("gpt2", pad_token_id=None), tmp_path)
    vocabulary = {"<|endoftext|>": 1, "a": 2, "b": 3, "Ġ": 4, "Ġa": 5}
    GPT2Tokenizer(vocab=vocabulary, merges=[("Ġ", "a")]).save_pretrained(tmp_path)
    tokenizer = load_processor(str(tmp_path), MODALITIES["text"])
    model = build(tmp_path, NAMES).model.eval()
    assert tokenizer.pad_token == "<|endoftext|>"
    assert model.config.pad_token_id == tokenizer.pad_token_id
    with torch.no_grad():
        batch = model(**tokenizer(["a", "a b a"], padding=True, return_tensors="pt")).logits
        alone = model(**tokenizer("a", return_tensors="pt")).logits
    torch.testing.assert_close(batch[:1], alone)

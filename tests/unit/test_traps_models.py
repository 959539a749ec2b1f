"""Traps 14 and 19 to 23: the names in a checkpoint, weight decay, and timm inside transformers.

Each test first shows the error of the stock libraries, then that the package's safeguard works. If the first
half fails, the libraries have changed, and the safeguard may no longer be needed.
"""

import pytest
import timm
import torch
from datasets import Dataset
from PIL import Image
from removals import unseeded
from safetensors.torch import load_file
from stage_helpers import Examples, differing, state_of, stock_trainer, train_stages
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    Trainer,
    TrainerCallback,
    ViTImageProcessor,
)

from hf_finetune.doctor.checkpoint import realign_weights
from hf_finetune.models.build import build_model, load_processor, read_config
from hf_finetune.models.export import export_model
from hf_finetune.models.layout import head_names
from hf_finetune.tasks import MODALITIES, TASKS
from hf_finetune.tasks.image.processor import set_image_size
from hf_finetune.tasks.image.transforms import ImageTransform, train_transform
from hf_finetune.tasks.seeded_augmentation import SeededExamples

RESNET = "timm/test_resnet"
LABELS = ["tea", "soup", "cake"]
PIXELS = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


class Scripted:
    """Metrics with given values, evaluation by evaluation."""

    def __init__(self, *values):
        self.values = list(values)

    def __call__(self, prediction):
        return {"accuracy": self.values.pop(0)}


class AfterEpochs(TrainerCallback):
    """Record the model's state at the end of each epoch."""

    def __init__(self):
        self.states = []

    def on_epoch_end(self, args, state, control, **kwargs):
        self.states.append(state_of(kwargs["model"]))


def names_in_memory(original, model, processor, folder):
    """The parameter names in memory."""
    model.save_pretrained(folder, save_original_format=False)
    processor.save_pretrained(folder)


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer._save",
    why="Checkpoints are saved under the parameter names that they are loaded by",
    ids=["vit"],
)
@pytest.mark.defends(
    "hf_finetune.models.export:export_model",
    why="Exported weights have the parameter names of the Hub",
    by=names_in_memory,
    ids=["vit"],
)
@pytest.mark.parametrize("name", ["vit", "deit", "dinov2", "swin"])
def test_trap_14_the_best_checkpoint_is_restored(tmp_path, tiny_model, name):
    """The Trainer saves under the Hub's names and reloads with ``strict=False``: it warns, and restores nothing."""
    model = tiny_model(name)
    data, epochs = Examples(model, 8), AfterEpochs()
    stock_trainer(
        model,
        tmp_path / "stock",
        [epochs],
        eval_dataset=data,
        compute_metrics=Scripted(0.9, 0.1),
        metric_for_best_model="accuracy",
        load_best_model_at_end=True,
        eval_strategy="epoch",
        save_strategy="epoch",
    ).train()
    assert differing(state_of(model), epochs.states[0])

    model, epochs = tiny_model(name), AfterEpochs()
    train_stages(
        model,
        tmp_path / "ours",
        ["all"],
        validation=data,
        compute_metrics=Scripted(0.0, 0.9, 0.1),
        best_metric="accuracy",
        callbacks=[epochs],
        epochs=2.0,
    )
    assert differing(*epochs.states)
    assert differing(state_of(model), epochs.states[0]) == set()
    # the published model has the names of the Hub nevertheless
    export_model(model, ViTImageProcessor(size={"height": 32, "width": 32}), tmp_path / "model")
    model.save_pretrained(tmp_path / "plain")
    assert load_file(tmp_path / "model" / "model.safetensors").keys() == (
        load_file(tmp_path / "plain" / "model.safetensors").keys()
    )
    if name != "swin":
        assert not load_file(tmp_path / "model" / "model.safetensors").keys() <= model.state_dict().keys()
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "model")
    assert differing(state_of(loaded), state_of(model)) == set()


SPARED = {
    RESNET: ["timm_model.bn1.weight", "timm_model.layer1.0.bn1.weight"],
    "timm/test_vit": ["timm_model.cls_token", "timm_model.pos_embed"],
    "vit": ["vit.embeddings.cls_token", "vit.embeddings.position_embeddings"],
}


always_decays = property(lambda self: True, lambda self, value: None, doc="Weight decay for all parameters.")


def no_exemptions(original, model, names):
    """No exemptions by name."""
    return set()


@pytest.mark.defends(
    "hf_finetune.planning.layers:Parameter.decays",
    why="Norms and biases have no weight decay",
    by=always_decays,
    ids=["timm/test_resnet"],
)
@pytest.mark.defends(
    "hf_finetune.models.layout:_no_weight_decay",
    why="Parameters that timm or common practice exempts by name have no weight decay",
    by=no_exemptions,
    ids=["timm/test_vit"],
)
@pytest.mark.parametrize("name", SPARED)
def test_trap_19_weight_decay_exempts_the_same_parameters_as_timm(tmp_path, tiny_model, name):
    """The Trainer exempts ``nn.LayerNorm`` and patterns of names, but not ``no_weight_decay()``."""
    model = tiny_model(name)
    present = [parameter for parameter in SPARED[name] if parameter in dict(model.named_parameters())]
    assert present == SPARED[name]
    stock = Trainer.get_decay_parameter_names(None, model)
    assert set(SPARED[name]) <= set(stock)

    _, (seen,) = train_stages(model, tmp_path, ["all"])
    decays = {parameter: decay for names, _, decay in seen.groups for parameter in names}
    assert {parameter: decays[parameter] for parameter in SPARED[name]} == dict.fromkeys(SPARED[name], 0.0)
    if name == "timm/test_vit":
        listed = {f"timm_model.{parameter}" for parameter in model.timm_model.no_weight_decay()}
        assert set(SPARED[name]) <= listed
    weights = [parameter for parameter, value in model.named_parameters() if value.ndim == 4]
    assert {decays[parameter] for parameter in weights if "embed" not in parameter} <= {0.05}


def outside_the_base_model(original, model):
    """The parameters outside `base_model`."""
    backbone = {id(parameter) for parameter in model.base_model.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in backbone], True


@pytest.mark.defends(
    "hf_finetune.models.find_head:find_head",
    why="The head of a timm model is found",
    by=outside_the_base_model,
    ids=["timm/test_resnet"],
)
@pytest.mark.parametrize("name", [RESNET, "timm/test_vit", "timm/test_efficientnet"])
def test_trap_20_the_head_of_a_timm_model_is_found(tmp_path, tiny_model, name):
    """The base model of the wrapper contains the head too."""
    model = tiny_model(name)
    beside = {id(p) for p in model.parameters()} - {id(p) for p in model.base_model.parameters()}
    assert beside == set()

    classifier = {id(parameter) for parameter in model.timm_model.get_classifier().parameters()}
    expected = {name for name, parameter in model.named_parameters() if id(parameter) in classifier}
    assert set(head_names(model)) == expected and len(expected) == 2
    _, (seen,) = train_stages(model, tmp_path, ["head"])
    assert differing(seen.before, seen.after) == expected


def checkpoint_labels(original, path, *arguments, **options):
    """The number of labels of the checkpoint."""
    config = original(path, *arguments, **options)
    config.num_labels = AutoConfig.from_pretrained(path).num_labels
    return config


@pytest.mark.defends(
    "hf_finetune.models.build:read_config", why="A timm head has one output per label", by=checkpoint_labels
)
def test_trap_21_the_head_has_the_size_of_the_labels(tmp_path, tiny_model):
    """``id2label`` without ``num_labels`` gives a timm model the checkpoint's number of classes."""
    tiny_model(RESNET, num_labels=1000).save_pretrained(tmp_path)
    names = dict(enumerate(LABELS))
    stock = AutoModelForImageClassification.from_pretrained(
        tmp_path, id2label=names, ignore_mismatched_sizes=True
    )
    assert stock.timm_model.get_classifier().weight.shape[0] == 1000

    config = read_config(str(tmp_path), LABELS, "single_label")
    model = build_model(str(tmp_path), config, task=TASKS["image-classification"]).model
    assert model.timm_model.get_classifier().weight.shape[0] == model.num_labels == 3
    assert (model.config.id2label, model.config.label2id) == (names, {name: n for n, name in names.items()})


@pytest.mark.defends("hf_finetune.models.export:_fix_timm_config", why="timm loads a saved timm config")
def test_trap_22_a_timm_model_loads_in_both_libraries(tmp_path, tiny_model):
    """transformers saves ``model_args: null`` for timm, and timm ``model_args.num_classes`` for transformers."""
    model = tiny_model(RESNET, model_args=None)
    model.save_pretrained(tmp_path / "transformers")
    with pytest.raises((TypeError, AttributeError)):
        timm.create_model(f"local-dir:{tmp_path / 'transformers'}", pretrained=True)
    plain = timm.create_model("test_resnet", num_classes=3)
    timm.models.save_for_hf(plain, tmp_path / "timm", safe_serialization=True)
    with pytest.raises(TypeError):
        AutoModelForImageClassification.from_pretrained(tmp_path / "timm")

    export_model(
        model, load_processor(str(tmp_path / "transformers"), MODALITIES["image"]), tmp_path / "ours"
    )
    with torch.no_grad():
        expected = model(PIXELS).logits
        wrapped = AutoModelForImageClassification.from_pretrained(tmp_path / "ours").eval()
        assert torch.equal(realign_weights(wrapped)(PIXELS).logits, expected)
        plain = timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True).eval()
        assert torch.equal(realign_weights(plain)(PIXELS), expected)


@pytest.mark.defends("hf_finetune.tasks.seeded_augmentation:SeededExamples.__getitem__", by=unseeded)
def test_trap_23_the_processor_of_a_timm_model_is_saved_and_never_augments(tmp_path, tiny_model):
    """Its ``save_pretrained`` writes nothing, and it prepares training images as for evaluation."""
    tiny_model(RESNET).save_pretrained(tmp_path / "checkpoint")
    config = read_config(str(tmp_path / "checkpoint"), LABELS, "single_label")
    processor = load_processor(str(tmp_path / "checkpoint"), MODALITIES["image"])
    (tmp_path / "stock").mkdir()
    processor.save_pretrained(tmp_path / "stock")
    assert list((tmp_path / "stock").iterdir()) == []
    image = Image.linear_gradient("L").convert("RGB")
    one, other = (processor(image)["pixel_values"] for _ in range(2))
    assert torch.equal(one, other)

    set_image_size(processor, config, 48, 0.75)
    model = build_model(str(tmp_path / "checkpoint"), config, task=TASKS["image-classification"]).model
    export_model(model, processor, tmp_path / "ours")
    loaded = AutoImageProcessor.from_pretrained(tmp_path / "ours")
    assert loaded.data_config == processor.data_config
    assert (loaded.data_config["input_size"], loaded.data_config["crop_pct"]) == ((3, 48, 48), 0.75)
    transform = train_transform("light", 48, (0.5,) * 3)
    examples = SeededExamples(
        Dataset.from_dict({"image": [image]}).with_transform(ImageTransform(transform)), seed=0
    )
    versions = []
    for epoch in (0, 1, 1):
        examples.set_epoch(epoch)
        versions.append(examples[0]["pixel_values"])
    assert not torch.equal(versions[0], versions[1]) and torch.equal(versions[1], versions[2])

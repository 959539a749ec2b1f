"""Features of recordings by each layer of a speech model, and heads that read one layer or a weighted sum."""

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
    WhisperForAudioClassification,
    default_data_collator,
)

from hf_finetune.cache.cut_point import CacheUnavailableError
from hf_finetune.cache.feature_kinds import ForwardSettings
from hf_finetune.cache.find_cut import find_cut
from hf_finetune.cache.layer_features import layer_features, share_layer
from hf_finetune.cache.prefix_cache import CacheSettings, row_version
from hf_finetune.cache.replay import PrefixRunner, verify
from hf_finetune.cache.writer import PrefixWriter
from hf_finetune.errors import InputError
from hf_finetune.models.adapters import add_adapter
from hf_finetune.models.build import build_model, read_config
from hf_finetune.models.find_head import head_names
from hf_finetune.models.layer_sum import feature_layer, layer_kinds, set_layers, with_layer_sum
from hf_finetune.models.layout import read_layout
from hf_finetune.recipe.adapter import AdapterSpec
from hf_finetune.tasks import MODALITIES, TASKS
from hf_finetune.training.freezing import freeze_all_but

TASK = TASKS["audio-classification"]
FORWARD = ForwardSettings(9, torch.device("cpu"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    MODALITIES["audio"].save_tiny_checkpoint(folder)
    return folder


def built(checkpoint, layers=None):
    config = read_config(str(checkpoint), ("low", "high", "middle"), "single_label")
    set_layers(config, layers)
    return build_model(str(checkpoint), config, task=TASK).model.eval()


@pytest.fixture
def spectrograms():
    torch.manual_seed(1)
    return [{"input_features": torch.randn(16, 100), "labels": index % 2} for index in range(9)]


def settings(folder):
    return CacheSettings(folder / "cache", 1, None, 10**9, {"train": "examples"}, shares_layer=True)


def averages(model, examples):
    """Return the mean over time of each hidden state, after the projection: what the head reads."""
    batch = torch.stack([example["input_features"] for example in examples])
    with torch.no_grad():
        states = model.encoder(batch, output_hidden_states=True).hidden_states
        return [model.projector(state).mean(dim=1).numpy() for state in states]


def test_each_layer_is_what_a_head_would_read(checkpoint, spectrograms, tmp_path):
    model = built(checkpoint)
    kinds = layer_kinds(model.config)
    found = layer_features(
        model, {"train": spectrograms}, default_data_collator, settings(tmp_path), kinds, FORWARD
    )
    assert kinds == ("layer 0", "layer 1", "last layer")
    for kind, expected in zip(kinds, averages(model, spectrograms), strict=True):
        assert found[kind]["train"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("layer", [0, 1, "last"])
def test_a_head_that_reads_one_layer_shares_its_features(checkpoint, spectrograms, tmp_path, layer):
    kinds = layer_kinds(built(checkpoint).config)
    found = layer_features(
        built(checkpoint), {"train": spectrograms}, default_data_collator, settings(tmp_path), kinds, FORWARD
    )
    model = built(checkpoint, layer)
    freeze_all_but(model, head_names(model))
    inputs = SimpleNamespace(train=spectrograms, collate=default_data_collator)
    shared = share_layer(model, head_names(model), inputs, FORWARD)
    writer = PrefixWriter(
        *(shared.runner, default_data_collator, 9, 0, torch.device("cpu"), tmp_path / "cache", 10**9)
    )
    version = row_version(shared.key, "examples", spectrograms)
    assert writer.missing_parts(version) == []
    batch = default_data_collator([{**example, "labels": 0} for example in spectrograms])
    del batch["labels"]
    (vectors,) = shared.runner.collect(batch)
    assert np.array_equal(vectors.numpy(), found[feature_layer(model.config)]["train"])
    with torch.no_grad():
        logits = model(**batch).logits
    assert torch.equal(logits, model.classifier(vectors))


def test_a_stage_that_trains_more_shares_nothing(checkpoint, spectrograms):
    model = built(checkpoint)
    inputs = SimpleNamespace(train=spectrograms, collate=default_data_collator)
    names = [name for name, _ in model.named_parameters()]
    assert share_layer(model, names, inputs, FORWARD) is None


def test_one_layer_is_loaded_by_plain_transformers(checkpoint, spectrograms, tmp_path):
    model = built(checkpoint, 1)
    model.save_pretrained(tmp_path)
    plain = WhisperForAudioClassification.from_pretrained(tmp_path).eval()
    batch = torch.stack([example["input_features"] for example in spectrograms])
    with torch.no_grad():
        logits = plain(batch).logits
        expected = model.classifier(torch.from_numpy(averages(built(checkpoint), spectrograms)[1]))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    assert plain.layer_weights.softmax(-1).tolist() == [0.0, 1.0, 0.0]


def test_the_weight_of_one_layer_is_never_trained(checkpoint):
    fixed, weighted = built(checkpoint, 1), built(checkpoint, "weighted")
    assert "layer_weights" not in {parameter.name for parameter in read_layout(fixed).parameters}
    assert head_names(fixed) == ["classifier.weight", "classifier.bias"]
    assert head_names(weighted) == ["layer_weights", "classifier.weight", "classifier.bias"]


def test_a_projection_starts_as_the_identity_unless_it_was_trained(checkpoint, tmp_path):
    model = built(checkpoint)
    backbone = {name: value for name, value in model.state_dict().items() if name.startswith("encoder.")}
    model.save_pretrained(tmp_path, state_dict=backbone)
    content = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    content["architectures"] = ["WhisperForConditionalGeneration"]
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    config = read_config(str(tmp_path), ("low", "high"), "single_label")
    fresh = build_model(str(tmp_path), config, task=TASK).model
    assert torch.equal(fresh.projector.weight, torch.eye(16)) and not fresh.projector.bias.any()
    assert built(checkpoint).projector.weight.shape == (8, 16)
    titles = {parameter.name: parameter.group for parameter in read_layout(fresh).parameters}
    assert titles["projector.weight"] == read_layout(fresh).head_group - 1


def test_layers_that_do_not_exist_are_refused(checkpoint):
    config = read_config(str(checkpoint), ("a", "b"), "single_label")
    with pytest.raises(InputError, match=r"model.head.layers must be at most 2, the number of layers"):
        set_layers(config, 3)
    with pytest.raises(InputError, match="must be last for an architecture without a weighted sum"):
        set_layers(SimpleNamespace(model_type="bert"), "weighted")
    set_layers(config, 2)
    set_layers(config, "last")
    assert not config.use_weighted_layer_sum and not hasattr(config, "layer_sum_index")
    assert feature_layer(config) == "last layer"
    set_layers(config, 1)
    assert feature_layer(config) == "layer 1"
    set_layers(config, "weighted")
    assert feature_layer(config) is None


def test_a_weighted_sum_is_replayed_bit_for_bit(checkpoint, spectrograms):
    model = built(checkpoint, "weighted").train()
    head = head_names(model)
    freeze_all_but(model, head)
    batches = [
        torch.stack([example["input_features"] for example in spectrograms[rows]])
        for rows in (slice(2), slice(2, 5))
    ]
    probes = tuple({"input_features": batch} for batch in batches)
    cut = find_cut(model, head, probes)
    assert (cut.boundary, cut.is_output, len(cut.keys)) == ("encoder", True, 3)
    for probe in probes:
        verify(model, cut, probe)
    with PrefixRunner(model, cut).active(), pytest.raises(RuntimeError, match="values must be set"):
        model(**probes[0])


def test_padding_does_not_count(tmp_path):
    """Samples with an attention mask: the features of a padded recording are those of the model itself."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {
        "conv_dim": (8, 8),
        "conv_kernel": (10, 4),
        "conv_stride": (5, 4),
        "classifier_proj_size": 16,
    }
    positions = {
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
        "feat_extract_norm": "layer",
    }
    torch.manual_seed(0)
    model = Wav2Vec2ForSequenceClassification(
        Wav2Vec2Config(**sizes, **convolutions, **positions, vocab_size=8)
    ).eval()
    examples = []
    for length in (400, 800, 600, 500):
        mask = (torch.arange(800) < length).long()
        examples.append({"input_values": torch.randn(800) * mask, "attention_mask": mask, "labels": 0})
    kinds = layer_kinds(model.config)
    found = layer_features(
        model, {"train": examples}, default_data_collator, settings(tmp_path), kinds, FORWARD
    )
    seen = []
    model.classifier.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().numpy()))
    batch = default_data_collator(copy.deepcopy(examples))
    del batch["labels"]
    with torch.no_grad():
        model(**batch)
    assert found["last layer"]["train"] == pytest.approx(seen[0], abs=1e-5)


def test_a_model_with_other_weights_is_refused(checkpoint, spectrograms, tmp_path):
    model = built(checkpoint)
    model.classifier = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 3))
    with pytest.raises(CacheUnavailableError, match="layers cannot be compared in a model with an adapter"):
        layer_features(
            model, {"train": spectrograms}, default_data_collator, settings(tmp_path), ("layer 0",), FORWARD
        )


def test_a_copy_with_a_layer_sum_has_the_same_weights(checkpoint):
    model = built(checkpoint)
    summed = with_layer_sum(model)
    assert not hasattr(model, "layer_weights") and summed.layer_weights.shape == (3,)
    for name, value in model.state_dict().items():
        assert torch.equal(value, summed.state_dict()[name])


WAVES = {
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    **{"conv_dim": (8, 8), "conv_kernel": (10, 4), "conv_stride": (5, 4), "classifier_proj_size": 16},
    **{"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "feat_extract_norm": "layer"},
    "vocab_size": 8,
}


@pytest.fixture(scope="module")
def waveform_checkpoint(tmp_path_factory):
    """Return a pretrained Wav2Vec2 without a classifier."""
    folder = tmp_path_factory.mktemp("wav2vec2")
    torch.manual_seed(0)
    Wav2Vec2Model(Wav2Vec2Config(**WAVES, do_stable_layer_norm=True)).save_pretrained(folder)
    return folder


def test_layers_start_alike_in_every_architecture(waveform_checkpoint):
    """Some architectures leave the weights of the sum as they are in memory."""
    for _ in range(3):
        assert not built(waveform_checkpoint, "weighted").layer_weights.any()


def test_the_last_layer_is_what_the_head_reads_without_a_sum(waveform_checkpoint, tmp_path):
    """With ``do_stable_layer_norm``, the last hidden state is not normalized yet, and the last layer is."""
    model = built(waveform_checkpoint)
    examples = [{"input_values": torch.randn(800), "labels": 0} for _ in range(5)]
    found = layer_features(
        model, {"train": examples}, default_data_collator, settings(tmp_path), ("last layer",), FORWARD
    )
    seen = []
    model.classifier.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().numpy()))
    with torch.no_grad():
        model(torch.stack([example["input_values"] for example in examples]))
    assert np.array_equal(found["last layer"]["train"], seen[0])


def test_a_saved_layer_can_be_changed(checkpoint, tmp_path):
    built(checkpoint, 1).save_pretrained(tmp_path)
    assert feature_layer(built(tmp_path).config) == "layer 1"
    assert not built(tmp_path, "weighted").layer_weights.any()
    last = built(tmp_path, "last")
    assert not hasattr(last, "layer_weights")
    assert int(built(tmp_path, 0).layer_weights.argmax()) == 0


def test_a_trained_sum_is_kept(checkpoint, tmp_path):
    model = built(checkpoint, "weighted")
    with torch.no_grad():
        model.layer_weights.copy_(torch.tensor([0.1, 0.7, 0.2]))
    model.save_pretrained(tmp_path)
    assert torch.equal(built(tmp_path, "weighted").layer_weights, model.layer_weights)
    assert torch.equal(built(tmp_path).layer_weights, model.layer_weights)


def test_the_projection_is_no_part_of_the_head_with_an_adapter(waveform_checkpoint):
    model = built(waveform_checkpoint)
    add_adapter(model, head_names(model), AdapterSpec(type="lora", r=2))
    assert any(name.startswith("projector.lora_") for name, _ in model.named_parameters())
    assert head_names(model) == ["classifier.weight", "classifier.bias"]

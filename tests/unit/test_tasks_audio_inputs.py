"""Model inputs of recordings: rate, window, augmentation, and those of the plain pipeline."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from audio_helpers import RATE, configured, examples, extractor, settings, tone
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    HubertConfig,
    HubertForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    WavLMConfig,
    WavLMForSequenceClassification,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
    pipeline,
)

from hf_finetune.cache.find_cut import find_cut
from hf_finetune.errors import InputError
from hf_finetune.models.layout import read_layout
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.tasks import MODALITIES, TASKS
from hf_finetune.tasks.audio.augment import Augmentation, mask_frequencies
from hf_finetune.tasks.audio.inputs import prepare_recordings
from hf_finetune.tasks.audio.log_mel import log_mel_statistics
from hf_finetune.tasks.audio.processor import configure_audio, extract, processed_recordings, window_samples
from hf_finetune.tasks.audio.samples import crop_at, resampled

AUDIO = MODALITIES["audio"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
WAVES = {
    **SMALL,
    **{"conv_dim": (8, 8), "conv_kernel": (10, 4), "conv_stride": (5, 4), "classifier_proj_size": 8},
    **{"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "vocab_size": 8},
}


def test_another_rate_is_resampled_once_with_the_same_pitch():
    samples = resampled(tone(1.0, 44_100), RATE)
    assert samples.dtype == np.float32 and len(samples) == RATE
    assert samples[500:-500] == pytest.approx(tone(1.0)["array"][500:-500], abs=0.01)
    same = tone(0.5)
    assert resampled(same, RATE) is same["array"]


@pytest.mark.parametrize(
    ("kind", "samples"), [("whisper", 2 * RATE), ("ast", 10_240), ("wav2vec2", 10 * RATE)]
)
def test_the_window_is_the_checkpoints(kind, samples):
    assert window_samples(configured(kind)) == samples


@pytest.mark.parametrize("kind", ["whisper", "ast", "wav2vec2"])
def test_all_recordings_have_inputs_of_the_same_shape(kind):
    processor = configured(kind, max_seconds=0.5)
    prepare = processed_recordings(processor)
    shapes = {
        seconds: {name: value.shape[1:] for name, value in prepare([tone(seconds)]).items()}
        for seconds in (0.01, 0.5, 3.0)
    }
    assert shapes[0.01] == shapes[0.5] == shapes[3.0]


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("whisper", {"max_seconds": 3.0}, "data.max_seconds must be at most the 2 seconds"),
        ("ast", {"max_seconds": 3.0}, "data.max_seconds must be at most the 0.64 seconds"),
        ("whisper", {"sampling_rate": 8000}, "data.sampling_rate must be 16000, because"),
    ],
)
def test_what_a_checkpoint_does_not_support_is_refused(kind, fields, message):
    with pytest.raises(InputError, match=message):
        configured(kind, **fields)


def test_samples_can_have_another_rate():
    processor = configured("wav2vec2", sampling_rate=8000, max_seconds=1.0)
    assert (processor.sampling_rate, window_samples(processor)) == (8000, 8000)
    assert processed_recordings(processor)([tone(0.5)])["attention_mask"].sum() == 4000


def test_random_layers_and_masks_of_the_model_are_turned_off():
    config = SimpleNamespace(layerdrop=0.1, apply_spec_augment=True)
    (note,) = configure_audio(extractor("wav2vec2"), config, settings())
    assert (config.layerdrop, config.apply_spec_augment) == (0.0, False)
    assert "apply_spec_augment" in note


def test_a_shorter_window_keeps_the_first_positions(tmp_path):
    AUDIO.save_tiny_checkpoint(tmp_path)
    model = WhisperForAudioClassification.from_pretrained(tmp_path)
    config, processor = model.config, WhisperFeatureExtractor(feature_size=16, chunk_length=4)
    configure_audio(processor, config, settings(max_seconds=0.7))
    assert (processor.chunk_length, config.max_source_positions) == (1, 50)
    long = WhisperForAudioClassification(type(config)(**{**config.to_dict(), "max_source_positions": 200}))
    positions = long.encoder.embed_positions.weight[:50]
    torch.testing.assert_close(positions, model.encoder.embed_positions.weight, rtol=0, atol=1e-6)


def drawn(augmentation, samples, seed=0):
    torch.manual_seed(seed)
    return augmentation(samples)


@pytest.mark.parametrize(
    "change",
    [{"place": None}, {"shift": 0.2}, {"gain": 6.0}, {"noise": 10.0}, {"time_mask": 0.5}],
    ids=lambda change: next(iter(change)),
)
def test_augmentation_depends_on_the_seed_alone(change):
    samples = tone(1.0)["array"]
    augmentation = Augmentation(window=RATE // 2, rate=RATE, **change)
    first = drawn(augmentation, samples)
    assert first.dtype == np.float32 and 1 <= len(first) <= RATE // 2
    assert np.array_equal(first, drawn(augmentation, samples))
    assert not np.array_equal(first, drawn(augmentation, samples, seed=1))
    assert not np.array_equal(first, crop_at(samples, RATE // 2, 0.0))
    assert np.array_equal(samples, tone(1.0)["array"])  # in place, it would change the cache


def test_each_change_keeps_its_bounds():
    samples = np.ones(1000, np.float32)
    for seed in range(50):
        louder = drawn(Augmentation(1000, 1000, gain=6.0), samples, seed)
        assert 10 ** (-6 / 20) <= louder[0] <= 10 ** (6 / 20)
        masked = drawn(Augmentation(1000, 1000, time_mask=0.3), samples, seed)
        assert 0 <= (masked == 0).sum() <= 300
        shifted = drawn(Augmentation(1000, 1000, shift=0.2), samples, seed)
        assert 800 <= len(shifted) <= 1000 and 800 <= shifted.sum() <= 1000
        noise = drawn(Augmentation(1000, 1000, noise=20.0), samples, seed) - samples
        assert 10 ** (-62 / 20) <= noise.std() <= 10 ** (-18 / 20)


@pytest.mark.parametrize("shape", [(16, 40), (40, 16)])
def test_frequencies_are_masked_by_the_mean(shape):
    torch.manual_seed(0)
    spectrogram = torch.randn(shape)
    masked = mask_frequencies(spectrogram, 16, 0.5)
    bands = masked if shape[0] == 16 else masked.T
    constant = (bands == spectrogram.mean()).all(dim=1).sum()
    assert 0 < constant <= 8
    assert not torch.equal(masked, spectrogram)


def test_training_is_augmented_and_validation_is_not():
    data = settings(crop="random")
    dataset = examples(tone(3.0), tone(4.0, frequency=880))
    inputs = prepare_recordings(
        SimpleNamespace(train=dataset, validation=dataset), configured("whisper"), data, 0, augmented=True
    )
    plain = processed_recordings(configured("whisper"))([dataset[0]["audio"]])["input_features"][0]
    torch.testing.assert_close(inputs.validation[0]["input_features"], plain)
    first = inputs.train[0]["input_features"]
    assert not torch.equal(first, plain)
    assert torch.equal(first, inputs.train[0]["input_features"])
    inputs.train.set_epoch(1)
    assert not torch.equal(first, inputs.train[0]["input_features"])


@pytest.mark.parametrize("augmented", [False, True])
def test_stored_recordings_are_those_that_are_decoded(augmented):
    data, dataset = settings(), examples(tone(0.3, 8000), tone(3.0))
    data.augment.shift = 0.1
    inputs = prepare_recordings(
        SimpleNamespace(train=dataset, validation=None), configured("whisper"), data, 0, augmented=augmented
    )
    form = AUDIO.decoded_form(inputs.train.dataset)
    rows = [*form.rows()]
    assert [row_format[2] for row_format in form.formats(rows[0])] == [augmented]
    stored = inputs.train.over(form.over(rows))
    for index in range(2):
        assert stored[index].keys() == inputs.train[index].keys()
        for name, value in inputs.train[index].items():
            assert np.array_equal(stored[index][name], value)


def test_masked_frequencies_need_spectrograms():
    data = settings()
    data.augment.frequency_mask = 0.2
    splits = SimpleNamespace(train=examples(tone(0.2)), validation=None)
    with pytest.raises(
        InputError,
        match=r"data.augment.frequency_mask must be 0 for a checkpoint whose input is the raw waveform",
    ):
        prepare_recordings(splits, configured("wav2vec2"), data, 0, augmented=True)


ARCHITECTURES = {
    "whisper": None,
    "ast": (ASTConfig, ASTForAudioClassification, {**SMALL, "num_mel_bins": 16, "max_length": 64}),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2ForSequenceClassification, {**WAVES, "feat_extract_norm": "layer"}),
    "hubert": (HubertConfig, HubertForSequenceClassification, {**WAVES, "feat_extract_norm": "layer"}),
    "wavlm": (WavLMConfig, WavLMForSequenceClassification, {**WAVES, "feat_extract_norm": "layer"}),
}


def build(name, folder):
    """Return a tiny model, and its feature extractor."""
    torch.manual_seed(0)
    if ARCHITECTURES[name] is None:
        AUDIO.save_tiny_checkpoint(folder)
        model = WhisperForAudioClassification.from_pretrained(folder)
        return model.eval(), WhisperFeatureExtractor.from_pretrained(folder)
    config_class, model_class, fields = ARCHITECTURES[name]
    model = model_class(config_class(**fields)).eval()
    return model, extractor(name if name == "ast" else "wav2vec2")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_predictions_are_those_of_the_plain_pipeline(name, tmp_path):
    model, processor = build(name, tmp_path)
    configure_audio(processor, model.config, settings())
    pipe = pipeline("audio-classification", model=model, feature_extractor=processor, top_k=None)
    recording = tone(0.4)
    scores = {entry["label"]: entry["score"] for entry in pipe(dict(recording))}
    with torch.no_grad():
        batch = processed_recordings(processor)([recording, tone(0.2)])
        probabilities = model(**batch).logits.softmax(-1)[0].tolist()
    expected = [scores[model.config.id2label[index]] for index in range(len(probabilities))]
    assert probabilities == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_and_head_are_found(name, tmp_path):
    model, _ = build(name, tmp_path)
    layout = read_layout(model)
    head = {parameter.name for parameter in layout.parameters if parameter.group == layout.head_group}
    assert head and all(part.startswith("classifier") for part in head)
    assert len(layout.groups) == 4 and not layout.note


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "ast"])
def test_a_weighted_sum_of_layers_is_cut_at_the_outputs_of_the_encoder(name, tmp_path):
    model, processor = build(name, tmp_path)
    model = type(model)(
        type(model.config)(**{**model.config.to_dict(), "use_weighted_layer_sum": True})
    ).eval()
    configure_audio(processor, model.config, settings(max_seconds=0.2))
    trainable = [
        parameter.name
        for parameter in read_layout(model).parameters
        if parameter.group == read_layout(model).head_group
    ]
    assert "layer_weights" in trainable
    batch = extract(processor, [tone(0.2)["array"]] * 5)
    probes = tuple({key: value[rows] for key, value in batch.items()} for rows in (slice(2), slice(2, 5)))
    cut = find_cut(model, trainable, probes)
    assert cut.is_output and len(cut.keys) == 3


def test_the_schema_has_the_fields():
    recipe = parse_recipe(
        {
            "task": "audio-classification",
            "model": {"path": "openai/whisper-base", "head": {"type": "linear", "layers": "weighted"}},
            "data": {
                "path": "sounds",
                "sampling_rate": 16000,
                "max_seconds": 2.5,
                "crop": "random",
                "augment": {
                    "shift": 0.1,
                    "gain": 3.0,
                    "noise": 20.0,
                    "time_mask": 0.1,
                    "frequency_mask": 0.1,
                },
            },
            "stages": [{"train": "head", "epochs": 1}],
        }
    )
    assert recipe.data.crop == "random" and recipe.model.head.layers == "weighted"
    assert AUDIO.is_augmented(recipe.data)
    plain = AUDIO.without_augmentation(recipe.data)
    assert plain.crop == "start" and not AUDIO.is_augmented(plain)
    with pytest.raises(
        InputError, match=r"data.max_seconds must not be set when the task is image-classification"
    ):
        parse_recipe(
            {
                "task": "image-classification",
                "model": "timm/resnet18",
                "data": {"path": "photos", "max_seconds": 2.0},
                "stages": [{"train": "head", "epochs": 1}],
            }
        )


def test_log_mel_statistics_tell_tones_apart():
    low, high = (log_mel_statistics(tone(0.3, frequency=frequency), 0.5) for frequency in (200.0, 4000.0))
    assert low.shape == high.shape == (128,)
    assert np.argmax(low[:64]) < np.argmax(high[:64])
    silence = {"array": np.zeros(10, np.float32), "sampling_rate": 8000}
    assert np.isfinite(log_mel_statistics(silence, 0.1)).all()
    short, long = (log_mel_statistics(tone(seconds), 1.0) for seconds in (0.2, 0.9))
    assert short[:64].max() < long[:64].max()


def test_the_task_names_the_pipeline():
    task = TASKS["audio-classification"]
    assert (task.modality.name, task.auto_class.__name__) == ("audio", "AutoModelForAudioClassification")


def test_a_model_that_was_trained_elsewhere_gets_recordings_as_they_are():
    processor = extractor("wav2vec2")
    assert window_samples(processor) is None and not AUDIO.makes_batches(processor)
    assert processed_recordings(processor)([tone(0.3)])["input_values"].shape == (1, 4800)


def test_the_length_of_a_trained_model_is_that_of_the_next_one():
    processor = configured("wav2vec2", max_seconds=0.5)
    configure_audio(processor, SimpleNamespace(), settings())
    assert window_samples(processor) == RATE // 2
    assert AUDIO.makes_batches(processor)
    assert AUDIO.space_settings(processor, pair=False) == {
        "sampling_rate": RATE,
        "window": 8000,
        "place": 0.0,
        "pads": False,
    }


def test_a_model_without_a_mask_needs_the_whole_length():
    processor = Wav2Vec2FeatureExtractor(return_attention_mask=False)
    configure_audio(processor, SimpleNamespace(), settings(max_seconds=0.5))
    assert AUDIO.space_settings(processor, pair=False)["pads"]
    assert processed_recordings(processor)([tone(0.3)]).keys() == {"input_values"}

"""Speech recognition: labels of both families, languages, losses, vocabularies and long recordings."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoProcessor, GenerationConfig, Wav2Vec2CTCTokenizer, WhisperConfig

from hf_finetune.cache.writer import is_sequence
from hf_finetune.data.columns import Columns
from hf_finetune.data.label_form import LabelForm
from hf_finetune.data.label_tables import parse_labels
from hf_finetune.data.tables import Table
from hf_finetune.errors import InputError
from hf_finetune.planning.layers import assign_groups
from hf_finetune.targets import TARGETS
from hf_finetune.targets.losses import loss_for
from hf_finetune.tasks import TASKS
from hf_finetune.tasks.speech.inputs import SpeechCollator, pieces_of
from hf_finetune.tasks.speech.language import set_language
from hf_finetune.tasks.speech.outputs import FrameTranscripts
from hf_finetune.tasks.speech.vocabulary import characters_of
from hf_finetune.training.sequence_validation import losses_and_tokens, with_sequence_loss

TASK = TASKS["automatic-speech-recognition"]


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    TASK.modality.save_tiny_checkpoint(folder)
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    vocabulary = {token: index for index, token in enumerate(["[PAD]", "[UNK]", "|", "a", "b"])}
    file = tmp_path_factory.mktemp("ctc") / "vocab.json"
    file.write_text(json.dumps(vocabulary), encoding="utf-8")
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "word_delimiter_token": "|"}
    return Wav2Vec2CTCTokenizer(str(file), bos_token=None, eos_token=None, **names)


def test_a_decoder_reads_each_token_before_the_one_that_it_predicts(processor):
    examples = [{"input_features": torch.zeros(2, 3), "labels": text} for text in ("ab", "abc")]
    batch = SpeechCollator(processor.tokenizer)(examples)
    start, no_timestamps = processor.tokenizer.prefix_tokens
    end = processor.tokenizer.eos_token_id
    first, second = (processor.tokenizer.convert_tokens_to_ids(list(text)) for text in ("ab", "abc"))
    assert batch["labels"].tolist() == [[no_timestamps, *first, end, -100], [no_timestamps, *second, end]]
    assert batch["decoder_input_ids"].tolist() == [
        [start, no_timestamps, *first, end],
        [start, no_timestamps, *second],
    ]
    assert batch["input_features"].shape == (2, 2, 3)


def test_labels_from_a_cache_make_the_same_batch(processor):
    collate = SpeechCollator(processor.tokenizer)
    batch = collate([{"labels": text} for text in ("ab", "abc")])
    again = collate([{"labels": row} for row in batch["labels"]])
    assert all(torch.equal(batch[name], again[name]) for name in ("labels", "decoder_input_ids"))
    assert is_sequence(batch["labels"][0]) and not is_sequence(torch.tensor(3))
    assert not is_sequence(torch.tensor([0.0, 1.0]))


def test_without_labels_a_decoder_only_starts(processor):
    batch = SpeechCollator(processor.tokenizer)([{"input_features": torch.zeros(2, 3)}] * 2)
    assert batch["decoder_input_ids"].tolist() == [[processor.tokenizer.prefix_tokens[0]]] * 2
    assert "labels" not in batch


def test_the_loss_is_the_mean_over_tokens_and_not_over_transcripts():
    logits = torch.randn(2, 3, 5)
    labels = torch.tensor([[1, 2, 3], [4, -100, -100]])
    expected = torch.nn.functional.cross_entropy(logits.reshape(6, 5), labels.reshape(6), reduction="sum") / 4
    assert torch.allclose(loss_for("transcript")((logits,), labels), expected)


def test_the_validation_loss_is_that_of_all_batches_together():
    torch.manual_seed(0)
    loss = loss_for("transcript")
    batches = [
        (torch.randn(2, 3, 5), torch.tensor([[1, 2, 3], [4, -100, -100]])),
        (torch.randn(1, 2, 5), torch.tensor([[0, 1]])),
    ]
    tokens = [torch.tensor([[1, 2], [3, 3]]), torch.tensor([[0, 4]])]
    rows = [losses_and_tokens(loss, *batch, each) for batch, each in zip(batches, tokens, strict=True)]
    seen = []
    compute = with_sequence_loss(
        lambda prediction: seen.append(prediction.predictions.tolist()) or {"wer": 0.5}
    )
    metrics = compute(SimpleNamespace(predictions=torch.cat(rows).numpy(), label_ids=None))
    total = sum(float(loss((logits,), labels, 1)) for logits, labels in batches)
    assert metrics == {"wer": 0.5, "loss": pytest.approx(total / 6)}
    assert seen == [[[1, 2], [3, 3], [0, 4]]]


def test_ctc_reads_off_frames_and_labels_differently(characters):
    outputs = FrameTranscripts(characters)
    frames = np.array([[3, 3, 0, 3, 2, 4, 4], [0, 0, 0, -100, -100, -100, -100]])
    assert outputs.texts(frames) == ["aa b", ""]
    assert outputs.label_texts(np.array([[3, 3, 2, 4, -100]])) == ["aa b"]


def test_the_ctc_loss_is_that_of_torch_and_needs_as_many_frames_as_characters(characters):
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 5), torch.tensor([[3, 4, -100], [3, 3, 4]])
    expected = torch.nn.functional.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1),
        torch.tensor([3, 4, 3, 3, 4]),
        torch.tensor([4, 4]),
        torch.tensor([2, 3]),
        reduction="sum",
    )
    loss = FrameTranscripts(characters).loss(0.0)
    assert torch.allclose(loss((logits,), labels), expected / 5)
    assert loss((logits[:, :2],), torch.tensor([[3, 3, 4], [3, 3, 4]])).item() == 0


def test_the_vocabulary_is_every_character_but_white_space():
    assert characters_of(["Één ei", "is\tgeen ei!"]) == ["!", "e", "g", "i", "n", "s", "É", "é"]


def multilingual(folder, **changes):
    settings = {"lang_to_id": {"<|nl|>": 5, "<|en|>": 6}, "is_multilingual": True, **changes}
    GenerationConfig(**settings).save_pretrained(folder)
    config = WhisperConfig()
    config.name_or_path = str(folder)
    return config


class Tokenizer:
    language = None

    def set_prefix_tokens(self, **names):
        self.names = names


@pytest.mark.parametrize("language", ["nl", "dutch", "Dutch"])
def test_a_language_has_a_name_and_a_code(tmp_path, language):
    tokenizer = Tokenizer()
    set_language(tokenizer, multilingual(tmp_path), language)
    assert tokenizer.names == {"language": "nl", "task": "transcribe"} and tokenizer.language == "nl"


@pytest.mark.parametrize(
    ("language", "message"),
    [
        (None, "data.language must be set for a checkpoint of several languages. Got null. Write the spoken"),
        ("dutsch", "data.language must be a language of the checkpoint. Got 'dutsch'."),
        ("fr", "data.language must be a language of the checkpoint. Got 'fr'."),
    ],
)
def test_a_language_that_is_missing_or_unknown_is_an_error(tmp_path, language, message):
    with pytest.raises(InputError) as error:
        set_language(Tokenizer(), multilingual(tmp_path), language)
    assert message in str(error.value)


def test_a_checkpoint_of_one_language_takes_none_but_english(tmp_path):
    tokenizer = Tokenizer()
    set_language(tokenizer, multilingual(tmp_path, is_multilingual=False), None)
    assert tokenizer.language is None
    set_language(tokenizer, multilingual(tmp_path, is_multilingual=False), "English")
    assert tokenizer.language is None
    with pytest.raises(InputError, match="must not be set for a checkpoint without a choice of languages"):
        set_language(tokenizer, multilingual(tmp_path, is_multilingual=False), "nl")


def test_a_long_recording_is_cut_into_windows_without_a_gap(processor):
    samples = np.arange(40_000, dtype=np.float32)
    pieces = pieces_of({"array": samples, "sampling_rate": 16_000}, processor.feature_extractor)
    assert [len(piece["array"]) for piece in pieces] == [16_000, 16_000, 8_000]
    assert np.array_equal(np.concatenate([piece["array"] for piece in pieces]), samples)
    (empty,) = pieces_of({"array": samples[:0], "sampling_rate": 16_000}, processor.feature_extractor)
    assert len(empty["array"]) == 0


def test_the_norm_after_an_encoder_belongs_to_its_last_layer():
    layers = ["model.encoder.layers.0", "model.decoder.layers.0"]
    names = [
        *("model.encoder.conv.weight", "model.encoder.layers.0.weight", "model.encoder.layer_norm.weight"),
        *("model.decoder.layers.0.weight", "model.decoder.layer_norm.weight"),
    ]
    groups, _ = assign_groups(names, layers, [])
    assert [groups[name] for name in names] == [0, 1, 1, 2, 2]


def test_texts_are_scored_by_words_and_are_no_classes():
    kind = TARGETS["transcript"]
    labels, texts = kind.label_array(["een twee", "drie"], 1), kind.stored_scores(["een  TWEE.", "vier"])
    mistakes, sizes = kind.mistakes(labels, texts, texts)
    assert mistakes.tolist() == [False, True] and sizes.tolist() == [0, 1]
    assert kind.describe_labels(["een twee", "drie"], ()) == "transcripts of 1 to 2 words, mean 1.5"
    assert kind.slices(["Een twee!"], ["een twee", "drie"]) == {"sentence": ["in training", "new"]}
    assert kind.slices(["vier"], ["een twee", "drie"]) == {}


def test_only_its_own_task_accepts_transcripts():
    accepting = [task.name for task in TASKS.values() if task.accepts("transcript")]
    assert accepting == [TASK.name]
    assert not TASK.accepts("single_label")
    assert (TASK.label_type("auto"), TASKS["text-classification"].label_type("auto")) == (
        "transcript",
        "auto",
    )


def test_transcripts_keep_separators_and_numbers():
    texts = ("a, b", "['x']", "007", "Ja", "ja")
    table = Table(Dataset.from_dict({"audio": list("abcde")}), list("abcde"), texts, None)
    read, *notes, problems = parse_labels(
        {"train": table}, LabelForm(), Columns("label"), "transcript", untyped_splits={"train"}
    )
    assert read["train"].labels == texts
    assert notes == [[], []] and problems == []

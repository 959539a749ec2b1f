"""Limits of checkpoints: positions, embeddings of tokens, channels, and the heads of their pretraining."""

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from hf_finetune.errors import InputError
from hf_finetune.models.build import build_model, load_processor, read_config
from hf_finetune.models.vocabulary import fit_vocabulary
from hf_finetune.runs.checkpoint import check_channels
from hf_finetune.tasks import MODALITIES, TASKS
from hf_finetune.tasks.text.tokenization import position_limit, resolve_max_length

NAMES = ["cake", "soup", "tea"]
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 30,
    "max_position_embeddings": 40,
}
IMAGE = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 8,
}
BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 40,
    "vocab_size": 30,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 30, "n_positions": 40}


def make(name, config, **fields):
    torch.manual_seed(0)
    return getattr(transformers, name)(getattr(transformers, config)(**fields))


@pytest.mark.parametrize(
    ("name", "config", "fields", "limit"),
    [
        ("BertModel", "BertConfig", TEXT, 40),
        ("RobertaModel", "RobertaConfig", TEXT, 38),
        ("XLMRobertaModel", "XLMRobertaConfig", {**TEXT, "pad_token_id": 5}, 34),
        ("MPNetModel", "MPNetConfig", TEXT, 38),
        ("BartModel", "BartConfig", BART, 40),
        ("GPT2Model", "GPT2Config", GPT2, 40),
        ("NystromformerModel", "NystromformerConfig", TEXT, 40),
        ("DebertaV2Model", "DebertaV2Config", {**TEXT, "position_biased_input": False}, None),
        ("ModernBertModel", "ModernBertConfig", {**TEXT, "pad_token_id": 0}, None),
        ("XLNetModel", "XLNetConfig", {"d_model": 16, "n_layer": 1, "n_head": 2, "vocab_size": 30}, None),
    ],
)
def test_positions_are_those_that_a_model_can_compute(name, config, fields, limit):
    model = make(name, config, **fields).eval()
    assert position_limit(model) == limit
    longest = limit or 60
    tokens = torch.full((1, longest), 7)
    with torch.no_grad():
        model(tokens)
    if limit and name != "NystromformerModel":  # whose table has two rows more
        with pytest.raises((IndexError, RuntimeError)), torch.no_grad():
            model(torch.full((1, longest + 1), 7))


def test_texts_are_cut_to_the_positions_where_the_tokenizer_states_no_limit(tmp_path, tiny_tokenizer):
    tiny_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert resolve_max_length(tokenizer, None, 38) == 16
    assert resolve_max_length(tokenizer, None, 10) == 10
    tokenizer.model_max_length = int(1e30)
    assert resolve_max_length(tokenizer, None, 38) == 38
    assert resolve_max_length(tokenizer, 20, 38) == 20
    assert resolve_max_length(tokenizer, None) == 512
    with pytest.raises(InputError) as caught:
        resolve_max_length(tokenizer, 40, 38)
    assert str(caught.value) == (
        "data.max_length must be at most the 38 tokens that the checkpoint accepts. Got 40."
    )


def larger_tokenizer(folder, tiny_tokenizer):
    tiny_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["zzza", "zzzb", "zzzc", "zzzd"])
    tokenizer.save_pretrained(folder)
    return tokenizer


def test_tokens_without_an_embedding_are_reported(tmp_path, tiny_model, tiny_tokenizer):
    tokenizer = larger_tokenizer(tmp_path, tiny_tokenizer)
    rows = len(tokenizer) - 4
    tiny_model("bert", vocab_size=rows).save_pretrained(tmp_path)
    with pytest.raises(InputError) as caught:
        fit_vocabulary(read_config(str(tmp_path), NAMES, "single_label"), tokenizer, "ckpt", resize=False)
    assert str(caught.value) == (
        "model.path must have an embedding for every token of the tokenizer. Got 'ckpt'. "
        f"It has {rows} embeddings, but none for 'zzza', 'zzzb', 'zzzc' and 1 more. "
        "Set model.resize_embeddings: true, and train the embeddings, or use the checkpoint's own tokenizer."
    )


def test_resized_embeddings_keep_the_old_ones_and_are_saved(tmp_path, tiny_model, tiny_tokenizer):
    tokenizer = larger_tokenizer(tmp_path, tiny_tokenizer)
    before = tiny_model("bert", vocab_size=len(tokenizer) - 4)
    before.save_pretrained(tmp_path)
    config = read_config(str(tmp_path), NAMES, "single_label")
    fit_vocabulary(config, tokenizer, "ckpt", resize=True)
    assert config.vocab_size == len(tokenizer)
    built = build_model(str(tmp_path), config, task=TASKS["text-classification"])
    after = built.model.get_input_embeddings().weight
    assert after.shape == (len(tokenizer), 16)
    assert torch.equal(after[:-4], before.get_input_embeddings().weight)
    assert after[-4:].std() > 0
    assert built.notes[-1].startswith(f"4 embeddings are new (of {len(tokenizer)} tokens)")
    built.model.save_pretrained(tmp_path / "again")
    again = read_config(str(tmp_path / "again"), NAMES, "single_label")
    fit_vocabulary(again, tokenizer, "again", resize=False)
    loaded = build_model(str(tmp_path / "again"), again, task=TASKS["text-classification"]).model
    assert torch.equal(loaded.get_input_embeddings().weight, after)


def test_a_tokenizer_without_a_padding_token_pads_with_its_end_token(tmp_path):
    tokenizer = transformers.GPT2Tokenizer(vocab={"a": 0, "<|endoftext|>": 1, "b": 2}, merges=[])
    tokenizer.save_pretrained(tmp_path)
    make("GPT2Model", "GPT2Config", **GPT2).save_pretrained(tmp_path)
    found = load_processor(str(tmp_path), MODALITIES["text"])
    assert found.pad_token == "<|endoftext|>"


@pytest.mark.parametrize("channels", [1, 4, 12])
def test_models_of_other_channels_are_reported(tiny_model, channels):
    with pytest.raises(InputError) as caught:
        check_channels(tiny_model("vit", num_channels=channels).config, "ckpt")
    assert str(caught.value).startswith(
        "model.path must be a model for images with 3 channels: all images are read as RGB, also by "
        "pipeline(). "
        f"Got 'ckpt' with {channels} channel"
    )
    check_channels(tiny_model("vit").config, "ckpt")


PRETRAINED = [
    ("text", "AlbertForPreTraining", "AlbertConfig", {**TEXT, "embedding_size": 8}, "sop_classifier"),
    (
        "text",
        "XLNetLMHeadModel",
        "XLNetConfig",
        {"d_model": 16, "n_layer": 1, "n_head": 2, "vocab_size": 30},
        "lm_loss",
    ),
    ("text", "BartForConditionalGeneration", "BartConfig", BART, "final_logits_bias"),
    ("text", "ConvBertForMaskedLM", "ConvBertConfig", {**TEXT, "embedding_size": 16}, "generator_lm_head"),
    (
        "text",
        "ElectraForPreTraining",
        "ElectraConfig",
        {**TEXT, "embedding_size": 8},
        "discriminator_predictions",
    ),
    ("text", "DebertaForMaskedLM", "DebertaConfig", TEXT, "cls.predictions"),
    ("text", "GPT2DoubleHeadsModel", "GPT2Config", GPT2, "multiple_choice_head"),
    ("image", "CLIPModel", "CLIPConfig", {"text_config": TEXT, "vision_config": IMAGE}, "logit_scale"),
    ("image", "SiglipModel", "SiglipConfig", {"text_config": TEXT, "vision_config": IMAGE}, "logit_bias"),
    ("image", "BeitForMaskedImageModeling", "BeitConfig", {**IMAGE, "vocab_size": 30}, "lm_head"),
    ("image", "ViTMAEForPreTraining", "ViTMAEConfig", IMAGE | {"decoder_hidden_size": 16}, "decoder"),
]


@pytest.mark.parametrize(("modality", "name", "config", "fields", "head"), PRETRAINED)
def test_pretraining_heads_are_dropped_and_reported(tmp_path, modality, name, config, fields, head):
    make(name, config, **fields).save_pretrained(tmp_path)
    found = read_config(str(tmp_path), NAMES, "single_label")
    notes = build_model(
        str(tmp_path),
        found,
        task=TASKS["image-classification" if modality == "image" else "text-classification"],
    ).notes
    assert any(f"because only {name} needs them" in note for note in notes)
    change(tmp_path, lambda weights: weights.update({"layers.99.weight": torch.ones(2)}))
    with pytest.raises(InputError, match=r"It also contains layers\.99\.weight"):
        build_model(
            str(tmp_path),
            found,
            task=TASKS["image-classification" if modality == "image" else "text-classification"],
        )
    change(tmp_path, lambda weights: weights.pop("layers.99.weight"))
    backbone = next(
        key for key in load_file(tmp_path / "model.safetensors") if head not in key and ".0." in key
    )
    if not backbone.startswith("text_model"):
        change(tmp_path, lambda weights: weights.pop(backbone))
        with pytest.raises(InputError):
            build_model(
                str(tmp_path),
                found,
                task=TASKS["image-classification" if modality == "image" else "text-classification"],
            )


def change(folder, change_weights):
    weights = load_file(folder / "model.safetensors")
    change_weights(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})

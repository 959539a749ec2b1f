"""Masking: which tokens and pixels, their replacement, and the reconstruction loss."""

import math

import pytest
import torch
from removals import nothing
from transformers import BertTokenizerFast, DataCollatorForTokenClassification, GPT2TokenizerFast

from hf_finetune.data.distributed_sampling import PaddedDataset, count_labels
from hf_finetune.errors import InputError
from hf_finetune.tasks.image.masking import MaskedPixels, PatchMask, patch_grid, pixel_loss
from hf_finetune.tasks.masked_examples import MaskedExamples
from hf_finetune.tasks.seeded_augmentation import SeededExamples
from hf_finetune.tasks.text.masking import masked_texts, token_loss

WORDS = ["good", "great", "fine", "bad", "poor", "dull", "film", "plot", "the", "a"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


@pytest.fixture
def tokenizer():
    return BertTokenizerFast(
        vocab={word: index for index, word in enumerate(VOCABULARY)}, model_max_length=64
    )


@pytest.fixture
def texts(tokenizer):
    return [dict(tokenizer(" ".join(WORDS * (1 + index % 4)))) for index in range(40)]


def stack(examples):
    return {"pixel_values": torch.stack([one["pixel_values"] for one in examples])}


def test_masked_tokens_are_labels_and_special_ones_are_never_masked(tokenizer, texts):
    masked = MaskedExamples(texts, masked_texts(tokenizer, 0.3), seed=0)
    chosen = total = replaced = kept = 0
    for index, text in enumerate(texts):
        ids, labels = masked[index]["input_ids"], masked[index]["labels"]
        for before, now, label in zip(text["input_ids"], ids, labels, strict=True):
            assert label in (-100, before)
            if label == -100:
                assert now == before
                continue
            assert before not in tokenizer.all_special_ids
            chosen += 1
            replaced += now == tokenizer.mask_token_id
            kept += now == before
        total += len(ids) - 2
    assert chosen / total == pytest.approx(0.3, abs=0.05)
    assert replaced / chosen == pytest.approx(0.8, abs=0.07) and 0 < kept < 0.25 * chosen


@pytest.mark.defends(
    "hf_finetune.tasks.masked_examples:MaskedExamples.set_epoch",
    why="Each epoch masks other parts of the inputs",
    by=nothing,
)
def test_masks_depend_on_seed_epoch_and_example_only(tokenizer, texts):
    one, other = (MaskedExamples(texts, masked_texts(tokenizer, 0.3), seed=5) for _ in range(2))
    first = [one[index] for index in range(10)]
    torch.rand(7)
    before = torch.get_rng_state()
    assert [other[index] for index in reversed(range(10))] == first[::-1]
    assert torch.equal(torch.get_rng_state(), before)
    one.set_epoch(1)
    assert [one[index] for index in range(10)] != first


def test_a_tokenizer_without_a_mask_token_is_refused(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0, "<|endoftext|>": 1}', encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        masked_texts(GPT2TokenizerFast(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")), 0.15)
    assert str(caught.value) == (
        "model.path must be a checkpoint with a mask token for continue_pretraining. Use coral or dann, "
        "which need no mask token."
    )


def test_texts_are_padded_with_labels_that_do_not_count_and_so_are_fillers(tokenizer, texts):
    masked = PaddedDataset(MaskedExamples(texts, masked_texts(tokenizer, 0.3), seed=0))
    batch = DataCollatorForTokenClassification(tokenizer)([masked[0], masked[3], masked[len(texts) + 1]])
    assert batch["input_ids"].shape == batch["labels"].shape == (3, 42)
    assert (batch["labels"][0, 12:] == -100).all() and (batch["labels"][2] == -100).all()
    items = count_labels([batch], lambda number: number)
    assert items == sum(label != -100 for index in (0, 3) for label in masked[index]["labels"])


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((224, 224), (7, 7)),
        ((128, 128), (4, 4)),
        ((127, 127), (8, 8)),
        ((32, 32), (4, 4)),
        ((32, 64), (4, 8)),
        ((3, 3), (3, 3)),
    ],
)
def test_the_patches_of_an_image(size, grid):
    assert patch_grid(*size) == grid


@pytest.mark.defends("hf_finetune.tasks.masked_examples:MaskedExamples.set_epoch", by=nothing)
def test_the_given_share_of_patches_is_masked_differently_in_each_epoch():
    images = SeededExamples([{"pixel_values": torch.rand(3, 32, 32)} for _ in range(4)], seed=0)
    masked = MaskedExamples(images, PatchMask(0.6), seed=0)
    mask = masked[0]["labels"]
    assert mask.shape == (4, 4) and (mask == 1).sum() == 10 and mask.isnan().sum() == 6
    assert torch.equal(masked[0]["labels"].nan_to_num(), mask.nan_to_num())
    masked.set_epoch(1)
    assert images.epoch == 1
    assert not torch.equal(masked[0]["labels"].nan_to_num(), mask.nan_to_num())


def test_masked_pixels_become_the_mean_color_and_are_the_targets():
    pixels = torch.arange(3 * 64.0).view(3, 8, 8) + 1
    mask = torch.full((2, 2), math.nan)
    mask[0, 1] = 1.0
    fillers = torch.full((2, 2), math.nan)
    batch = MaskedPixels(stack)(
        [{"pixel_values": pixels, "labels": mask}, {"pixel_values": pixels, "labels": fillers}]
    )
    expected = pixels.clone()
    expected[:, :4, 4:] = 0.0
    assert torch.equal(batch["pixel_values"][0], expected) and torch.equal(batch["pixel_values"][1], pixels)
    known = ~batch["labels"].isnan()
    assert known.sum() == 3 * 16 and known[0, :, :4, 4:].all()
    assert torch.equal(batch["labels"][0, :, :4, 4:], pixels[:, :4, 4:])


def test_the_loss_of_pixels_is_that_of_simmim():
    """(|x - x'| * mask).sum() / mask.sum() / channels, as in its code without the 1e-5 there."""
    chance = torch.Generator().manual_seed(0)
    wanted, made = (torch.randn(2, 3, 8, 8, generator=chance) for _ in range(2))
    mask = torch.rand(2, 1, 8, 8, generator=chance) < 0.6
    expected = ((wanted - made).abs() * mask).sum() / mask.sum() / 3
    found = pixel_loss({"logits": made}, wanted.where(mask, math.nan))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_loss_of_tokens_by_hand():
    logits = torch.zeros(1, 3, 4)
    logits[0, 2, 1] = math.log(3.0)
    labels = torch.tensor([[-100, 2, 1]])
    expected = (math.log(4) - math.log(3 / 6)) / 2
    assert token_loss({"logits": logits}, labels).item() == pytest.approx(expected)
    assert token_loss({"logits": logits}, labels, torch.tensor(4)).item() == pytest.approx(expected / 2)


LOSSES = {"text": token_loss, "image": pixel_loss}


@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_step_without_anything_masked_has_no_loss_and_gradients_of_zero(modality):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    labels = torch.full((2, 3, 4), -100) if modality == "text" else torch.full((2, 3, 4, 4), math.nan)
    value = LOSSES[modality]({"logits": logits}, labels, torch.tensor(0))
    value.backward()
    assert value.item() == 0.0 and torch.equal(logits.grad, torch.zeros_like(logits))

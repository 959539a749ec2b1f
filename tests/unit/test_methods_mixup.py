"""Mixup and cutmix: the same share for images and labels, drawn from seed, step, batch and process only."""

import json
import math

import pytest
import torch
from stage_helpers import Examples, collate, train_stages
from torch.nn import functional

from hf_finetune.methods.mixup import BatchMixer, label_probabilities

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 2, 1, 2])
BATCH = {"pixel_values": IMAGES, "labels": CLASSES}


def test_classes_become_shares_and_what_does_not_count_becomes_nan():
    shares = label_probabilities(torch.tensor([2, -100]), 3)
    assert shares[0].tolist() == [0.0, 0.0, 1.0] and shares[1].isnan().all()
    members = torch.tensor([[1.0, 0.0, 1.0]])
    assert torch.equal(label_probabilities(members, 3), members)


@pytest.mark.parametrize("seed", range(5))
def test_mixup_blends_images_and_labels_in_one_share(seed):
    made = BatchMixer(0.4, 0.0, 3, seed=1).mix(BATCH, seed)
    torch.manual_seed(seed)
    torch.randint(1, ())
    share = float(torch.distributions.Beta(torch.tensor([0.4]), torch.tensor([0.4])).sample())
    hot = functional.one_hot(CLASSES, 3).float()
    torch.testing.assert_close(made["pixel_values"], share * IMAGES + (1 - share) * IMAGES.roll(1, 0))
    torch.testing.assert_close(made["labels"], share * hot + (1 - share) * hot.roll(1, 0))
    assert 0 <= share <= 1


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_covers_a_part_and_gives_the_label_its_share(seed):
    made = BatchMixer(0.0, 1.0, 3, seed=1).mix(BATCH, seed)
    covered = (made["pixel_values"] != IMAGES).all(dim=1)
    assert torch.equal(covered, covered[:1].expand_as(covered))  # one box for the batch
    share = 1 - covered[0].float().mean()
    hot = functional.one_hot(CLASSES, 3).float()
    torch.testing.assert_close(made["labels"], share * hot + (1 - share) * hot.roll(1, 0))
    assert torch.equal(made["pixel_values"][:, :, covered[0]], IMAGES.roll(1, 0)[:, :, covered[0]])


def test_of_both_each_batch_gets_one():
    mixing = BatchMixer(1.0, 1.0, 3, seed=1)
    kinds = {bool(torch.isin(mixing.mix(BATCH, seed)["pixel_values"], IMAGES).all()) for seed in range(8)}
    assert kinds == {True, False}


def drawn(mixing, step, process, count=2):
    return [batch["labels"] for batch in mixing.on_batches([BATCH] * count, step, process)]


def global_seed(original, self, batch, seed):
    """The global random state."""
    return original(self, batch, int(torch.randint(2**31, ())))


@pytest.mark.defends(
    "hf_finetune.methods.mixup:BatchMixer.mix",
    why="Mixed batches depend only on seed, step, batch and process",
    by=global_seed,
)
def test_mixing_depends_on_seed_step_batch_and_process_only():
    first = drawn(BatchMixer(1.0, 0.0, 3, seed=7), 3, 0)
    torch.randn(9)
    before = torch.get_rng_state()
    again = drawn(BatchMixer(1.0, 0.0, 3, seed=7), 3, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    others = [
        drawn(BatchMixer(1.0, 0.0, 3, seed=8), 3, 0)[0],
        drawn(BatchMixer(1.0, 0.0, 3, seed=7), 4, 0)[0],
        drawn(BatchMixer(1.0, 0.0, 3, seed=7), 3, 1)[0],
        first[1],
    ]
    assert not any(torch.equal(first[0], other) for other in others)


def test_a_filler_stays_one():
    made = BatchMixer(1.0, 0.0, 3, seed=0).mix(
        {"pixel_values": IMAGES[:1], "labels": torch.tensor([-100])}, 0
    )
    assert made["labels"].isnan().all() and made["labels"].shape == (1, 3)


def test_the_batch_that_is_given_stays_as_it_is():
    copy = {name: value.clone() for name, value in BATCH.items()}
    BatchMixer(1.0, 1.0, 3, seed=0).mix(BATCH, 0)
    assert all(torch.equal(BATCH[name], value) for name, value in copy.items())


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer.get_batch_samples",
    why="Labels are mixed before they are counted",
    ids=["mixup"],
)
@pytest.mark.parametrize("regularize", [{"mixup": 0.5}, {"cutmix": 1.0}], ids=["mixup", "cutmix"])
def test_the_loss_of_a_stage_is_the_mean_over_its_mixed_examples(tmp_path, tiny_model, regularize):
    """With two micro-batches of different size; the config is not set to several labels."""
    model, batches, logits = tiny_model("timm/test_resnet"), [], []
    model.register_forward_hook(lambda module, inputs, output: logits.append(output.logits.detach()))

    def collator(examples):
        batches.append(collate(examples))
        return batches[-1]

    train_stages(
        model,
        tmp_path,
        ["head"],
        data=Examples(model, 7),
        collator=collator,
        max_steps=1,
        accumulation=2,
        regularize=regularize,
    )
    mixing = BatchMixer(regularize.get("mixup", 0.0), regularize.get("cutmix", 0.0), 3, seed=0)
    shares = torch.cat([each["labels"] for each in mixing.on_batches(batches[-2:], 0, 0)])
    assert len(shares) == 7 and ((shares > 0) & (shares < 1)).any()
    expected = functional.cross_entropy(torch.cat(logits[-2:]), shares).item()
    lines = (tmp_path / "stages" / "01-stage-0" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["loss"] == pytest.approx(expected, rel=1e-4)
    assert math.isfinite(expected) and model.config.problem_type is None

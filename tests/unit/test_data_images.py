import io
import pickle

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List
from datasets import Image as ImageFeature
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from transformers import ViTImageProcessorPil, default_data_collator

from hf_finetune.tasks.image.transforms import (
    ImageTransform,
    NormalizingCollate,
    TransformedImages,
    min_edge_for_crops,
    processor_transform,
    shrink,
    to_rgb,
    train_transform,
)

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
PLAIN = v2.Compose(
    [v2.Resize([24, 24]), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()]
)


def pixel(image, x=0, y=0):
    assert image.mode == "RGB"
    return image.getpixel((x, y))


def through_file(image, kind="PNG", **options):
    """Write an image and read it back, as a user's file is read."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def noise(width=40, height=30, mode="RGB", seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def test_transparency_is_white():
    clear, half, solid = ((200, 0, 0, alpha) for alpha in (0, 128, 255))
    image = Image.new("RGBA", (3, 1))
    for x, color in enumerate((clear, half, solid)):
        image.putpixel((x, 0), color)
    result = to_rgb(through_file(image))
    assert [pixel(result, x) for x in range(3)] == [(255, 255, 255), (227, 127, 127), (200, 0, 0)]


def test_grey_with_and_without_transparency():
    assert pixel(to_rgb(through_file(Image.new("L", (2, 2), 90)))) == (90, 90, 90)
    assert pixel(to_rgb(through_file(Image.new("LA", (2, 2), (90, 0))))) == (255, 255, 255)
    assert pixel(to_rgb(through_file(Image.new("LA", (2, 2), (90, 255))))) == (90, 90, 90)


def test_a_transparent_color_of_a_file_without_an_alpha_channel():
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    image.putpixel((1, 0), (1, 2, 3))
    result = to_rgb(through_file(image, transparency=(1, 2, 3)))
    assert (pixel(result, 0), pixel(result, 1)) == ((10, 20, 30), (255, 255, 255))


def test_palettes_with_and_without_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    result = to_rgb(through_file(image))
    assert (pixel(result, 0), pixel(result, 1)) == ((255, 0, 0), (0, 0, 255))
    for kind in ("PNG", "GIF"):
        result = to_rgb(through_file(image, kind, transparency=1))
        assert (pixel(result, 0), pixel(result, 1)) == ((255, 0, 0), (255, 255, 255))


def test_black_and_white():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    result = to_rgb(through_file(image))
    assert (pixel(result, 0), pixel(result, 1)) == ((0, 0, 0), (255, 255, 255))


@pytest.mark.parametrize(("mode", "kind"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I", "TIFF")])
def test_16_bits_are_scaled_not_cut_off(mode, kind):
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16 if mode == "I;16" else np.int32)
    image = through_file(Image.fromarray(values), kind)
    assert image.mode == mode
    result = to_rgb(image)
    assert [pixel(result, x)[0] for x in range(3)] == [0, 100, 255]


def test_cmyk_images_keep_their_colors():
    red = Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK")
    image = through_file(red, "JPEG", quality=95)
    assert image.mode == "CMYK"
    assert np.allclose(pixel(to_rgb(image), 8, 8), (250, 10, 10), atol=12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_camera_rotation_is_applied_once(orientation):
    image = Image.new("RGB", (48, 32), "white")
    image.paste((0, 0, 0), (0, 0, 16, 16))  # black in the corner that orientation 1 shows at the top left
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = to_rgb(through_file(image, "JPEG", exif=exif, quality=95))
    assert result.size == ((48, 32) if orientation <= 4 else (32, 48))
    right, bottom = result.width - 4, result.height - 4
    corners = {1: (4, 4), 2: (right, 4), 3: (right, bottom), 4: (4, bottom)}
    corners |= {5: (4, 4), 6: (right, 4), 7: (right, bottom), 8: (4, bottom)}
    assert pixel(result, *corners[orientation])[0] < 50
    assert to_rgb(result).size == result.size
    white = [corner for corner in set(corners.values()) if corner != corners[orientation]]
    assert all(pixel(result, *corner)[0] > 200 for corner in white)


def test_the_transform_of_a_processor_equals_the_processor():
    processor = ViTImageProcessorPil(
        size={"height": 24, "width": 24}, image_mean=MEAN, image_std=STD, resample=2
    )
    theirs = processor(noise(), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(processor_transform(processor)(noise()), theirs)


@pytest.mark.parametrize("augment", ["light", "standard", "strong"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1"])
def test_any_mode_becomes_a_tensor(augment, mode):
    result = train_transform(augment, 24, MEAN)(noise(mode=mode))
    assert type(result) is torch.Tensor
    assert (result.dtype, result.shape) == (torch.uint8, (3, 24, 24))


@pytest.mark.parametrize("augment", ["light", "standard", "strong"])
def test_all_chance_is_torchs(augment):
    transform = train_transform(augment, 24, MEAN)
    torch.manual_seed(0)
    first = [transform(noise()) for _ in range(20)]
    np.random.seed(1)  # no other generator matters
    torch.manual_seed(0)
    again = [transform(noise()) for _ in range(20)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])


def test_only_stronger_presets_change_colors():
    torch.manual_seed(0)
    gray = Image.new("RGB", (40, 40), (100, 150, 200))
    seen = {
        augment: {tuple(transform(gray)[:, 12, 12].tolist()) for _ in range(30)}
        for augment in ("light", "standard", "strong")
        for transform in [train_transform(augment, 24, (0, 0, 0))]
    }
    assert seen["light"] == {(100, 150, 200)}
    assert len(seen["standard"]) > 20
    assert any(red == green == blue for red, green, blue in seen["strong"])
    assert not any(red == green == blue for red, green, blue in seen["standard"])


def one_by_one(augment):
    """Return a preset that scales and normalizes each image separately."""
    jitter = {"light": 0.0, "standard": 0.2, "strong": 0.4}[augment]
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                24,
                scale=(0.8 if augment == "light" else 0.5, 1.0),
                ratio=(0.8, 1.25),
                interpolation=v2.InterpolationMode.BICUBIC,
            ),
            v2.RandomHorizontalFlip(),
            *([v2.ColorJitter(jitter, jitter, jitter, jitter / 10)] if jitter else []),
            *([v2.RandomGrayscale(0.2)] if augment == "strong" else []),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(MEAN), list(STD)),
            *([v2.RandomErasing(0.25)] if augment == "strong" else []),
            v2.ToPureTensor(),
        ]
    )


def both_ways(augment, count=24):
    """Return a batch, and the same images augmented and normalized one by one."""
    transform, reference = train_transform(augment, 24, MEAN), one_by_one(augment)
    images = [noise(40 + index, 30, seed=index) for index in range(count)]
    torch.manual_seed(3)
    collate = NormalizingCollate(default_data_collator, MEAN, STD)
    batch = collate([{"pixel_values": transform(image), "labels": 1} for image in images])
    torch.manual_seed(3)
    return batch["pixel_values"], torch.stack([reference(image) for image in images])


@pytest.mark.parametrize("augment", ["light", "standard"])
def test_a_batch_is_normalized_to_the_bits_of_its_images(augment):
    batch, expected = both_ways(augment)
    assert batch.dtype == torch.float32 and torch.equal(batch, expected)


def test_erased_pixels_become_the_mean_to_within_half_a_gray_level():
    batch, expected = both_ways("strong")
    differs = batch != expected
    half = torch.tensor([0.5 / 255 / std for std in STD])[:, None, None]
    assert ((batch - expected).abs() <= half + 1e-6).all()
    assert (expected[differs] == 0).all()
    erased = differs.any(dim=1).flatten(1).any(dim=1)
    assert 0 < erased.sum() < len(batch)


def test_batches_of_floats_and_batches_without_images_are_left_as_they_are():
    collate = NormalizingCollate(default_data_collator, MEAN, STD)
    finished = torch.randn(3, 4, 4)
    assert torch.equal(collate([{"pixel_values": finished}])["pixel_values"][0], finished)
    batch = collate([{"labels": torch.tensor(2)}, {"labels": torch.tensor(0)}])
    assert list(batch) == ["labels"] and batch["labels"].tolist() == [2, 0]
    sent = pickle.loads(pickle.dumps(collate))
    white = torch.full((3, 1, 1), 255, dtype=torch.uint8)
    assert torch.allclose(
        sent([{"pixel_values": white}])["pixel_values"].flatten(), torch.tensor([2.5, 2.0, 1.75])
    )


@pytest.mark.parametrize(("augment", "edge"), [("light", 240), ("standard", 304), ("strong", 304)])
def test_no_crop_of_the_needed_edge_is_enlarged(augment, edge):
    """Before the margin it is 128 * sqrt(1.25 / 0.8) = 160, or 128 * sqrt(1.25 / 0.5) = 202.4."""
    assert min_edge_for_crops(augment, 128) == edge
    steps = train_transform(augment, 128, MEAN).transforms
    (crop,) = (step for step in steps if isinstance(step, v2.RandomResizedCrop))
    bare = round(edge / 1.5)
    torch.manual_seed(0)
    least = {}
    for width in (bare, 3 * bare):
        crops = [crop.make_params([Image.new("RGB", (width, bare))]) for _ in range(300)]
        least[width] = min(min(found["height"], found["width"]) for found in crops)
    assert 128 <= least[bare] < 135 and least[3 * bare] >= 128


def test_training_without_chance_needs_images_as_they_are():
    assert shrink(large := noise(200, 100), None) is large


def test_only_much_larger_images_are_shrunk_and_only_once():
    for size in [(40, 30), (90, 60), (500, 20)]:
        assert shrink(image := noise(*size), 40) is image
    y, x = np.mgrid[:300, :600]
    waves = np.stack([np.sin(x / 27), np.cos(y / 21), np.sin((x + y) / 33)], axis=-1)
    large = Image.fromarray((127 + 100 * waves).astype(np.uint8))
    small = shrink(large, 40)
    assert small.size == (80, 40) and shrink(small, 40) is small
    expected = np.asarray(large.resize((80, 40), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(np.asarray(small) - expected).max() <= 8
    assert shrink(noise(61, 122), 40).size == (40, 80)


def dataset_of(labels, feature):
    images = [noise(mode="RGBA"), noise(), noise(mode="L")]
    features = Features({"image": ImageFeature(), "label": feature})
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


def test_a_dataset_with_the_transform_feeds_a_loader():
    transform = ImageTransform(PLAIN)
    data = dataset_of([1, 0, 1], ClassLabel(names=["a", "b"])).with_transform(transform)
    batch = next(iter(DataLoader(data, batch_size=3)))
    assert batch["pixel_values"].shape == (3, 3, 24, 24)
    assert batch["labels"].tolist() == [1, 0, 1]
    assert set(batch) == {"pixel_values", "labels"}


def test_sets_of_classes_reach_the_model_as_zeros_and_ones():
    data = dataset_of([[0, 2], [], [1]], List(ClassLabel(names=["a", "b", "c"])))
    data = data.with_transform(ImageTransform(PLAIN, classes=3))
    assert [row["labels"] for row in data] == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def test_images_with_a_separate_transform_equal_a_dataset_with_it():
    data = dataset_of([[0, 2], [], [1]], List(ClassLabel(names=["a", "b", "c"])))
    transform = ImageTransform(PLAIN, classes=3)
    images = TransformedImages(data.add_column("id", ["x", "y", "z"]), transform)
    assert len(images) == 3
    for found, expected in zip(images, data.with_transform(transform), strict=True):
        assert list(found) == ["pixel_values", "labels"] and found["labels"] == expected["labels"]
        assert torch.equal(found["pixel_values"], expected["pixel_values"])


def test_images_without_labels():
    batch = ImageTransform(PLAIN)({"image": [noise()]})
    assert list(batch) == ["pixel_values"]


def test_transforms_can_be_sent_to_another_process():
    processor = ViTImageProcessorPil(size={"height": 24, "width": 24})
    for transform in (train_transform("strong", 24, MEAN), processor_transform(processor)):
        sent = pickle.loads(pickle.dumps(ImageTransform(transform)))
        assert sent({"image": [noise()]})["pixel_values"][0].shape == (3, 24, 24)

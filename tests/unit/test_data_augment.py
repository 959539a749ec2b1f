import math
import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from hf_finetune.tasks.image.augment import (
    SEEDS_PRESET_RANGES,
    TRANSFORMS,
    KerasAffine,
    build_augmentation,
    check_transforms,
    keras_matrix,
    pre_resize_edge,
    warp,
)
from hf_finetune.tasks.image.transforms import train_transform

MEAN, STD, SIZE = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 24
GREY = torch.tensor([128, 102, 76], dtype=torch.uint8)
PRESETS = ("light", "standard", "strong", "seeds", "trivial", "randaugment")
OF_TIMM = ("rand_augment_transform", {"config_str": "rand-m9-mstd0.5"})


def noise(width=50, height=40, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def transform(preset=None, erase=None, transforms=()):
    return build_augmentation(preset, erase, transforms, SIZE, MEAN)


def drawn(made, seed, image=None):
    torch.manual_seed(seed)
    return made(image if image is not None else noise())


def test_the_numbers_of_the_preset_seeds():
    assert SEEDS_PRESET_RANGES == {"angle": 20.0, "shift": 0.2, "shear": 0.2, "zoom": 0.2}


@pytest.mark.parametrize(
    ("arguments", "matrix"),
    [
        ((0.0, (0.0, 0.0), 0.0, (1.0, 1.0)), [[1, 0, 0], [0, 1, 0]]),
        ((0.0, (0.2, -0.1), 0.0, (1.0, 1.0)), [[1, 0, 0.4], [0, 1, -0.2]]),
        ((math.pi / 2, (0.0, 0.0), 0.0, (1.0, 1.0)), [[0, -1, 0], [1, 0, 0]]),
        ((0.0, (0.0, 0.0), math.pi / 6, (1.0, 1.0)), [[1, -0.5, 0], [0, math.sqrt(3) / 2, 0]]),
        ((0.0, (0.0, 0.0), 0.0, (0.8, 1.2)), [[0.8, 0, 0], [0, 1.2, 0]]),
        ((math.pi / 2, (0.25, 0.0), 0.0, (2.0, 1.0)), [[0, -1, 0], [2, 0, 0.5]]),
    ],
)
def test_the_matrix_of_keras(arguments, matrix):
    expected = torch.tensor(matrix, dtype=torch.float32)
    assert torch.allclose(keras_matrix(*arguments), expected, atol=1e-6)


def test_pixels_from_outside_repeat_the_edge():
    image = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4).expand(3, 4, 4)
    down = warp(image, keras_matrix(0.0, (0.25, 0.0), 0.0, (1.0, 1.0)))[0].tolist()
    assert down == [[4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [12, 13, 14, 15]]
    left = warp(image, keras_matrix(0.0, (0.0, -0.5), 0.0, (1.0, 1.0)))[0].tolist()
    assert left == [[0, 0, 0, 1], [4, 4, 4, 5], [8, 8, 8, 9], [12, 12, 12, 13]]


def test_a_rotation_by_90_degrees_and_no_transform():
    image = torch.tensor([[[1, 2], [3, 4]]], dtype=torch.uint8).expand(3, 2, 2)
    assert warp(image, keras_matrix(0.0, (0.0, 0.0), 0.0, (1.0, 1.0)))[0].tolist() == [[1, 2], [3, 4]]
    turned = warp(image, keras_matrix(math.pi / 2, (0.0, 0.0), 0.0, (1.0, 1.0)))[0]
    # row r and column c, from the center, was row -c and column r: the first corner was that below it
    assert turned.tolist() == [[3, 1], [4, 2]]


def test_six_numbers_are_drawn_for_the_preset_seeds_each_in_its_unit(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda count: torch.tensor([1.0, 0.75, 0.0, 1.0, 0.0, 1.0]))
    image = v2.functional.pil_to_tensor(noise(24, 24))
    degrees, shear, half_the_largest_down, left = 20.0, 0.2, 0.1, -0.2
    matrix = keras_matrix(math.radians(degrees), (half_the_largest_down, left), shear, (0.8, 1.2))
    assert torch.equal(KerasAffine(**SEEDS_PRESET_RANGES)(image), warp(image, matrix))


@pytest.mark.parametrize(
    ("preset", "made"), [("trivial", v2.TrivialAugmentWide), ("randaugment", v2.RandAugment)]
)
def test_the_presets_of_torchvision_crop_and_mirror_as_torchvision_does(preset, made):
    crop = v2.RandomResizedCrop(
        SIZE, scale=(0.5, 1.0), ratio=(0.8, 1.25), interpolation=v2.InterpolationMode.BICUBIC
    )
    vary = made(fill=GREY.tolist(), interpolation=v2.InterpolationMode.BILINEAR)
    by_hand = v2.Compose([crop, v2.RandomHorizontalFlip(0.5), vary, v2.PILToTensor()])
    for seed in range(8):
        assert torch.equal(drawn(transform(preset), seed), drawn(by_hand, seed))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_every_preset_makes_small_numbers_of_any_image(preset, mode):
    pixels = drawn(transform(preset), 1, noise().convert(mode))
    assert (type(pixels), pixels.dtype, tuple(pixels.shape)) == (torch.Tensor, torch.uint8, (3, SIZE, SIZE))


@pytest.mark.parametrize("preset", PRESETS)
def test_all_chance_is_torchs(preset):
    made = transform(preset)
    random.seed(1)
    first = drawn(made, 5)
    random.seed(2)
    assert torch.equal(first, drawn(made, 5))
    assert any(not torch.equal(first, drawn(made, seed)) for seed in range(4))


@pytest.mark.parametrize("preset", ["light", "standard", "strong"])
def test_the_older_presets_are_unchanged(preset):
    older = train_transform(preset, SIZE, MEAN)
    for seed in range(3):
        assert torch.equal(drawn(transform(preset), seed), drawn(older, seed))


def test_without_a_name_it_is_standard():
    assert torch.equal(drawn(transform(), 3), drawn(transform("standard"), 3))


def test_the_preset_seeds_mirrors_every_other_time():
    flat = Image.fromarray(np.tile(np.arange(0, 240, 10, dtype=np.uint8), (24, 1))).convert("RGB")
    made = transform("seeds")
    rising = sum(int(drawn(made, seed, flat)[0, 12].float().diff().sum() > 0) for seed in range(200))
    assert 80 <= rising <= 120


def test_a_part_is_erased_to_the_mean():
    made = transform("light", erase=1.0)
    pixels = drawn(made, 0)
    erased = (pixels == GREY.view(3, 1, 1)).all(dim=0).float().mean().item()
    assert 0.01 < erased < 0.5
    never = [
        drawn(transform("strong", erase=0.0), seed, Image.new("RGB", (30, 30), "white")) for seed in range(20)
    ]
    assert not any((each == GREY.view(3, 1, 1)).all(dim=0).any() for each in never)


def test_a_list_of_transforms_gets_the_models_size_where_it_names_none():
    made = transform(transforms=[("RandomCrop", {}), ("RandomHorizontalFlip", {"p": 1.0})])
    torch.manual_seed(7)
    expected = v2.functional.hflip(v2.functional.pil_to_tensor(v2.RandomCrop([SIZE, SIZE])(noise())))
    assert torch.equal(drawn(made, 7), expected)


def test_images_of_another_size_after_a_list_are_resized_to_the_models():
    made = transform(transforms=[("Grayscale", {"num_output_channels": 1})])
    expected = v2.functional.resize(
        noise().convert("L").convert("RGB"), [SIZE, SIZE], v2.InterpolationMode.BICUBIC
    )
    assert torch.equal(drawn(made, 0), v2.functional.pil_to_tensor(expected))


def test_transforms_of_tensors_and_of_images_are_combined():
    named = [
        ("RandomErasing", {"p": 1.0, "value": 255}),
        ("RandomRotation", {"degrees": (90, 90), "interpolation": "nearest"}),
    ]
    pixels = drawn(transform(transforms=named, erase=1.0), 0, Image.new("RGB", (48, 48), "black"))
    assert (pixels == 255).any() and (pixels == GREY.view(3, 1, 1)).all(dim=0).any()


def test_timms_transforms_follow_torch_and_leave_the_other_generators_alone():
    made = transform(transforms=[OF_TIMM, ("RandomResizedCropAndInterpolation", {})])
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = drawn(made, 5)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    random.seed(2)
    np.random.seed(2)
    assert torch.equal(first, drawn(made, 5))
    assert len({drawn(made, seed).numpy().tobytes() for seed in range(5)}) == 5


@pytest.mark.parametrize("preset", [*PRESETS, None])
def test_transforms_can_be_sent_to_another_process(preset):
    named = [OF_TIMM, ("JPEG", {"quality": 50})] if preset is None else []
    made = transform(preset, 0.5, named)
    assert torch.equal(drawn(pickle.loads(pickle.dumps(made)), 1), drawn(made, 1))


@pytest.mark.parametrize(
    ("preset", "named", "edge"),
    [("light", (), 420), ("seeds", (), 448), ("trivial", (), 532), (None, (), 532), (None, (OF_TIMM,), 1344)],
)
def test_how_far_images_are_reduced_first(preset, named, edge):
    assert pre_resize_edge(preset, named, 224) == edge


def test_every_name_can_be_made_and_varies_an_image():
    needed = {
        "AugMix": {},
        "ColorJitter": {"brightness": 0.5},
        "GaussianBlur": {"kernel_size": 3},
        "JPEG": {"quality": (20, 40)},
        "Pad": {"padding": 2},
        "RandomAdjustSharpness": {"sharpness_factor": 2},
        "RandomAffine": {"degrees": 10, "translate": (0.1, 0.1)},
        "RandomPosterize": {"bits": 3},
        "RandomRotation": {"degrees": 20},
        "RandomSolarize": {"threshold": 128},
        "augment_and_mix_transform": {"config_str": "augmix-m5-w4-d2"},
        "auto_augment_transform": {"config_str": "original-mstd0.5"},
        "rand_augment_transform": {"config_str": "rand-m9-mstd0.5"},
    }
    assert needed.keys() <= TRANSFORMS.keys()
    for name in TRANSFORMS:
        named = [(name, needed.get(name, {}))]
        assert check_transforms(named) == []
        assert drawn(transform(transforms=named), 0).shape == (3, SIZE, SIZE)


def said(*named):
    return [str(problem) for problem in check_transforms(named)]


def test_wrong_names_and_arguments_are_reported_with_the_nearest():
    assert said(("RandomRotate", {"degrees": 20}), ("os.system", {})) == [
        "data.augment.transforms[0].name must be a supported transform of torchvision or timm for single images. "
        "Got 'RandomRotate'. Nearest: 'RandomRotation'.",
        "data.augment.transforms[1].name must be a supported transform of torchvision or timm for single images. "
        f"Got 'os.system'. Known: {', '.join(map(repr, sorted(TRANSFORMS)))}.",
    ]
    assert said(("RandomRotation", {"degree": 20})) == [
        "data.augment.transforms[0].args.degree must be an argument of RandomRotation. Got 20. Nearest: 'degrees'."
    ]
    assert said(("RandomRotation", {})) == [
        "data.augment.transforms[0] must be valid arguments of RandomRotation. Got no arguments. Error: "
        "RandomRotation.__init__() missing 1 required positional argument: 'degrees'."
    ]
    assert said(("RandomRotation", {"degrees": 20, "interpolation": "cubic"})) == [
        "data.augment.transforms[0] must be valid arguments of RandomRotation. Got degrees: 20, "
        "interpolation: 'cubic'. Error: 'cubic' is not a valid InterpolationMode."
    ]
    assert said(("rand_augment_transform", {"config_str": "random"})) == [
        "data.augment.transforms[0] must be valid arguments of rand_augment_transform. Got config_str: "
        "'random'. Error: AssertionError."
    ]

"""The modality of images."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_finetune.errors import Problem, short_repr
from hf_finetune.tasks.columns import ColumnRole, choose_only_candidate, is_string
from hf_finetune.tasks.examples import (
    DecodedForm,
    ExampleCheck,
    Inputs,
    MaskedInputs,
    PreviewRow,
    Remarks,
    Splits,
)
from hf_finetune.tasks.image.fields import ImageAugmentFields, ImageFields
from hf_finetune.tasks.modality import Modality

if TYPE_CHECKING:
    import torch
    from datasets import Dataset, Features
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["Image"]

_USUAL_COLUMN_NAMES = (
    "image", "img", "picture", "photo", "file", "file_name", "filename", "path",
    "file_path", "filepath", "image_path", "image_file", "img_path",
)  # fmt: skip
_BINARIES = ("binary", "large_binary")


def _holds_images(feature: Any) -> bool:
    """Return whether a column holds images of ``datasets``, paths, bytes, or ``{bytes, path}`` structs of images."""
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    kind = type(feature).__mro__
    return (
        any(base.__name__ == "Image" for base in kind)
        or is_string(feature)
        or getattr(feature, "dtype", None) in _BINARIES
    )


class Image(Modality):
    """Images: files, bytes or decoded images, of any size and mode."""

    name: ClassVar[str] = "image"
    article = "an image"
    file_noun = "picture"
    roles: ClassVar[tuple[ColumnRole, ...]] = (
        ColumnRole(
            "image",
            "images",
            "must contain images, file paths or the bytes of image files",
            _USUAL_COLUMN_NAMES,
            _holds_images,
            "Column of the images or of their paths; null = inferred.",
        ),
    )
    model_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)
    is_spatial: ClassVar[bool] = True
    has_fixed_size: ClassVar[bool] = True
    opens_files: ClassVar[bool] = True
    processor_class: ClassVar[str] = "AutoImageProcessor"
    processor_argument: ClassVar[str] = "image_processor"
    processor_noun = "an image processor"
    data_fields: ClassVar[type[ImageFields]] = ImageFields
    augment_fields: ClassVar[type[ImageAugmentFields]] = ImageAugmentFields
    augment_description: ClassVar[str] = "a preset, erase and transforms"
    no_augmentation: ClassVar[Mapping[str, Any]] = {"preset": "none"}
    packages: ClassVar[tuple[str, ...]] = ("torchvision",)

    @property
    def suffixes(self) -> frozenset[str]:
        """Lower-case suffixes of image files."""
        from hf_finetune.tasks.image.formats import IMAGE_SUFFIXES

        return IMAGE_SUFFIXES

    def field_problems(self, augment: Mapping[str, Any]) -> Iterator[Problem]:
        """Yield the problems between the preset and the fields that take its place or depend on it."""
        preset, erase, transforms = (augment.get(name) for name in ("preset", "erase", "transforms"))
        if preset is not None and transforms:
            rule = "must not be set when transforms are given"
            repair = "Set only one of them: transforms replace the preset."
            yield Problem("data.augment.preset", rule, short_repr(preset), repair)
        if preset == "none" and erase:
            rule = "must not be set when the preset is none"
            repair = "Set another preset, such as light, to augment the images."
            yield Problem("data.augment.erase", rule, short_repr(erase), repair)

    def find_columns(
        self, features: "Features", named: Mapping[str, str], taken: Sequence[str | None]
    ) -> tuple[dict[str, str | None], list[Problem]]:
        """Find the image column: named, of an image type, of a usual name, or the only column without strings."""
        if "image" in named:
            return {"image": named["image"]}, []
        from datasets import Image as ImageFeature

        usable = [name for name in features if _holds_images(features[name]) and name not in taken]
        candidates = [name for name in usable if isinstance(features[name], ImageFeature)]
        if not candidates:
            candidates = [name for name in usable if name.lower() in _USUAL_COLUMN_NAMES]
        if not candidates:
            candidates = [name for name in usable if not is_string(features[name])]
        column, problems = choose_only_candidate("image", "images", candidates, features)
        return {"image": column}, problems

    def unreadable_files(self, place: str, files: Iterable[Any]) -> list[Problem]:
        """Return a problem for images in formats that must be converted first."""
        from hf_finetune.tasks.image.formats import unreadable_problems

        return unreadable_problems(place, files)

    def features(self, *, decode: bool = True) -> dict[str, Any]:
        """Return the feature type of the image column."""
        from hf_finetune.tasks.image.feature import RgbImageFeature

        return {"image": RgbImageFeature(decode=decode)}

    def check(self) -> ExampleCheck:
        """Return a check that decodes each image once."""
        from hf_finetune.tasks.image.stored import ImageCheck

        return ImageCheck()

    def extreme_rows(self, dataset: "Dataset", lengths: Sequence[int] | None = None) -> list[int]:
        """Return the rows of the largest, the widest and the tallest image."""
        from hf_finetune.tasks.image.stored import extreme_images

        return extreme_images(dataset)

    def synthetic_examples(
        self, count: int, rng: Any, *, length: int = 16, pair: bool = False
    ) -> dict[str, Any]:
        """Return noise images of 64 x 64 pixels."""
        from PIL import Image as Pixels

        images = [Pixels.frombytes("RGB", (64, 64), rng.randbytes(3 * 64 * 64)) for _ in range(count)]
        return {"image": images}

    def check_processor(self, processor: Any) -> None:
        """Process a small image."""
        from PIL import Image as Pixels

        processor(Pixels.new("RGB", (8, 8)))

    def configure(
        self,
        processor: Any,
        config: "PreTrainedConfig",
        data: Any,
        skeleton: "Callable[[], PreTrainedModel]",
    ) -> tuple[str, ...]:
        """Set the image size and the crop ratio in the processor and the config. There are no messages."""
        from hf_finetune.tasks.image.processor import set_image_size

        set_image_size(processor, config, data.image_size, data.crop_pct)
        return ()

    def pooling_objection(self, model: Any, pooling: str) -> str | None:
        """Return a reason if a class token is to be pooled that the model does not have; else None."""
        if pooling == "cls" and not any(name.endswith("cls_token") for name, _ in model.named_parameters()):
            return "it has no class token"
        return None

    def is_augmented(self, data: Any) -> bool:
        """Return whether training images are augmented."""
        return bool(data.augment.preset != "none")

    def prepare(self, splits: Splits, processor: Any, data: Any, seed: int) -> Inputs:
        """Return augmented training images, and validation images prepared exactly as for inference."""
        from hf_finetune.tasks.image.inputs import prepare_images

        return prepare_images(splits, processor, data, seed, augmented=self.is_augmented(data))

    def decoded_form(self, examples: Any) -> DecodedForm | None:
        """Return how decoded images are stored."""
        from hf_finetune.tasks.image.decoding import StoredImages
        from hf_finetune.tasks.image.transforms import TransformedImages

        return StoredImages(examples) if isinstance(examples, TransformedImages) else None

    def format_size(self, batch: Mapping[str, Any]) -> str:
        """Return height and width of the images of a batch."""
        height, width = batch["pixel_values"].shape[-2:]
        return f"{height} x {width} pixels"

    def describe_sizes(self, dataset: "Dataset") -> str:
        """Return the median width and height, read from the headers of the files."""
        from statistics import median

        from hf_finetune.tasks.image.stored import image_sizes

        sizes = image_sizes(dataset).values()
        if not sizes:
            return ""
        width, height = (median(side) for side in zip(*sizes, strict=True))
        return f"Median size {width:.0f} x {height:.0f} pixels."

    def draft_fields(self, dataset: "Dataset") -> Mapping[str, tuple[Any, str]]:
        """Return standard augmentation."""
        return {"augment": ("standard", "crops, horizontal flips and color jitter; or none, light")}

    @property
    def searched_augmentations(self) -> tuple[Any, ...]:
        """No augmentation, and a strong one."""
        return ("none", "strong")

    @property
    def preview_suffixes(self) -> tuple[str, ...]:
        """Suffixes of image files for a contact sheet."""
        return (".png", ".jpg", ".jpeg")

    def write_preview(self, rows: Sequence[PreviewRow], path: Path, title: str, suffix: str) -> None:
        """Write a contact sheet of images and their views."""
        from hf_finetune.tasks.image.preview import contact_sheet

        contact_sheet(rows).save(path, "PNG" if suffix == ".png" else "JPEG")

    def preview_example(self, row: Mapping[str, Any]) -> Any:
        """Return the image in RGB."""
        return self.pipeline_input(row)

    def preview_inputs(self, inputs: Mapping[str, Any], processor: Any) -> Any:
        """Return the augmented image."""
        from hf_finetune.tasks.image.preview import to_image

        return to_image(inputs["pixel_values"])

    def save_tiny_checkpoint(self, folder: Path) -> None:
        """Write a tiny ResNet of timm."""
        from hf_finetune.tasks.image.tiny import save_tiny_resnet

        save_tiny_resnet(folder)

    def masked(
        self, splits: Splits, processor: Any, data: Any, seed: int, share: float | None
    ) -> MaskedInputs:
        """Return images with masked patches, and a wrapper that makes a classifier predict their pixels."""
        from hf_finetune.tasks.image.masking import masked_images

        return masked_images(self.prepare(splits, processor, data, seed), seed, share)

    def pipeline_input(self, row: Mapping[str, Any]) -> Any:
        """Return the image in RGB."""
        from hf_finetune.tasks.image.rgb import to_rgb

        return to_rgb(row["image"])

    def has_unsupported_format(self, name: str) -> bool:
        """Return whether a file is an image in a format that must be converted first."""
        from hf_finetune.tasks.image.formats import has_unsupported_image_format

        return has_unsupported_image_format(name)

    def read_example(self, cells: Mapping[str, Any]) -> tuple[Any, Any]:
        """Decode an image as in training: upright, on a white background, in RGB."""
        from hf_finetune.tasks.image.files import read_image

        return read_image(cells["image"])

    def remarks(self) -> Remarks:
        """Return a new collector of remarks on conversions of images."""
        from hf_finetune.tasks.image.notes import ImageNotes

        return ImageNotes()

    def batch_inputs(self, processor: Any) -> "Callable[[Sequence[Any]], dict[str, torch.Tensor]]":
        """Return a function from RGB images to pixels."""
        from hf_finetune.tasks.image.transforms import processed_images

        return processed_images(processor)

    def tracing_examples(self) -> list[Any]:
        """Return two gray images."""
        from PIL import Image as Pixels

        return [Pixels.new("RGB", (64, 64), (128, 128, 128))] * 2

    def show(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Return a thumbnail."""
        from hf_finetune.tasks.image.preview import thumbnail

        return {"image": thumbnail(row["image"])}

    def example_code(self, *, pair: bool) -> str:
        """Return the name of an image file."""
        return '"photo.jpg"'

    def demo_components(self, gradio: Any, *, pair: bool) -> list[Any]:
        """Return a field for an image file."""
        sources = ["upload", "clipboard"]
        return [gradio.Image(type="filepath", image_mode=None, label="Picture", sources=sources, height=320)]

    def demo_values(self, example: Any, path: Path) -> dict[str, str]:
        """Save the image as a PNG file, and return its path."""
        file = path.with_suffix(".png")
        example.save(file)
        return {"image": str(file)}

    @property
    def space_code(self) -> Path:
        """Python file with the field for an image."""
        return Path(__file__).with_name("space_fields.py")

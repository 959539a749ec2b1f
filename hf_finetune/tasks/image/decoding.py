"""Decoded images, stored so that each file is decoded only once."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from hf_finetune.tasks.image.stored import map_images
from hf_finetune.tasks.image.transforms import ImageTransform, TransformedImages, one_thread

__all__ = ["DecodedImages", "PreprocessedImages", "StoredImages"]


class DecodedImages(Dataset):
    """Dataset whose images are read from a store of pixels.

    Args:
        rows: Dataset of the other columns.
        store: For each image, its pixels, uint8 [height * width, 3], and its shape, int64 [2]: height and width.
    """

    def __init__(self, rows: Any, store: Any):
        self.rows, self.store = rows, store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels, shape = self.store[index]
        return {**self.rows[index], "image": Image.fromarray(pixels.view(*shape.tolist(), 3).numpy())}


class PreprocessedImages(Dataset):
    """Dataset whose model inputs are read from a store.

    Args:
        rows: Dataset of the other columns.
        store: Tensor of each image, as the model expects it.
        transform: Transform that encodes the labels.
    """

    def __init__(self, rows: Any, store: Any, transform: ImageTransform):
        self.rows, self.store, self.transform = rows, store, transform

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> dict[str, Any]:
        labels = self.transform.encode({name: [value] for name, value in self.rows[index].items()})
        return {"pixel_values": self.store[index][0], **{name: values[0] for name, values in labels.items()}}


class StoredImages:
    """Cached form of images: model inputs, or before random transforms upright 8-bit RGB pixels, reduced if large.

    Args:
        images: Images to store.
    """

    def __init__(self, images: TransformedImages):
        self.images, self.transform = images, images.transform

    @property
    def what(self) -> str:
        """Words for the stored images."""
        return f"{'preprocessed' if self.transform.fixed else 'decoded'} images"

    @property
    def facts(self) -> Mapping[str, Any]:
        """Edge to which images are reduced, and whether model inputs are stored."""
        return {"edge": self.transform.edge, "fixed": self.transform.fixed}

    @property
    def packages(self) -> tuple[str, ...]:
        """No optional packages."""
        return ()

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: Sequence[int]) -> "StoredImages":
        """Return the form of some of the images."""
        return StoredImages(TransformedImages(self.images.rows.select(rows), self.transform))

    def source(self) -> TransformedImages:
        """Return the images, decoded at each access."""
        return self.images

    def rows(self) -> Generator[tuple[torch.Tensor, ...], None, None]:
        """Yield the tensors of all images in order, decoded by several threads with few images in memory at a time."""
        decode, transform = self.images.rows.features["image"].decode_example, self.transform

        def make(raw: Any) -> tuple[torch.Tensor, ...]:
            image = transform.prepare(decode(raw))
            if transform.fixed:
                return (transform.transform(image),)
            pixels = torch.from_numpy(np.array(image))
            return pixels.flatten(0, 1), torch.tensor(pixels.shape[:2])

        with one_thread():
            yield from map_images(self.images.rows, make)

    def formats(self, first: tuple[torch.Tensor, ...]) -> list[tuple[tuple[int, ...], str, bool]]:
        """Return the format of the model inputs, or of pixels [height * width, 3] and their shape [2]."""
        if self.transform.fixed:
            return [(tuple(first[0].shape), str(first[0].dtype).removeprefix("torch."), False)]
        return [((3,), "uint8", True), ((2,), "int64", False)]

    def over(self, store: Any) -> Dataset:
        """Return the same images, read from a store of the rows."""
        names = [name for name in self.images.rows.column_names if name != "image"]
        rows = self.images.rows.select_columns(names)
        if self.transform.fixed:
            return PreprocessedImages(rows, store, self.transform)
        return TransformedImages(DecodedImages(rows, store), self.transform)

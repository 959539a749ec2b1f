"""Read a model file of CTranslate2: named tensors, without running anything."""

import io
import struct
from collections.abc import Iterable

import numpy as np
from archives import AssetError

__all__ = ["read_tensors"]

DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
"""Element types by their number in the file."""


class _Reader:
    """Reader of little-endian numbers and of strings with their length."""

    def __init__(self, content: bytes):
        self.stream = io.BytesIO(content)

    def number(self, kind: str) -> int:
        (value,) = struct.unpack(f"<{kind}", self.bytes(struct.calcsize(kind)))
        return value

    def bytes(self, size: int) -> bytes:
        content = self.stream.read(size)
        if len(content) < size:
            raise AssetError("The model file must be complete. It ends early.")
        return content

    def text(self) -> str:
        return self.bytes(self.number("H")).rstrip(b"\0").decode("utf-8")


def read_tensors(parts: Iterable[bytes], architecture: str) -> dict[str, np.ndarray]:
    """Return the tensors of a model file by name.

    The file has: format version, architecture, its revision, the number of tensors, the tensors (name, shape, element
    type, bytes), and other names of some of them, which are left out here.

    Args:
        parts: Content of the file, in one or more parts.
        architecture: Name of the architecture that the file must have.

    Raises:
        AssetError: If the file has another architecture, or is not complete.
    """
    reader = _Reader(b"".join(parts))
    version, found = reader.number("I"), reader.text()
    if found != architecture:
        raise AssetError(f"The model file must have the architecture {architecture}. Got {found!r}.")
    reader.number("I")
    tensors = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        dtype, size = DTYPES[reader.number("B")], reader.number("I")
        tensors[name] = np.frombuffer(reader.bytes(size), dtype=dtype).reshape(shape)
    if version >= 3:
        for _ in range(reader.number("I")):
            reader.text(), reader.text()
    if reader.stream.read(1):
        raise AssetError("The model file must end after its tensors.")
    return tensors

"""Short hashes of inputs: saved, loaded, and counted."""

import numpy as np
from datasets import Dataset

from hf_finetune.data.content_hashes import count_known, read_hashes, short_hashes, write_hashes
from hf_finetune.data.tables import content_keys


def hashes_of(*texts):
    ids = [str(row) for row in range(len(texts))]
    return short_hashes(content_keys(Dataset.from_dict({"id": ids, "text": list(texts)})))


def test_copies_are_matched_whatever_their_case_and_spaces(tmp_path):
    write_hashes(tmp_path / "examples.npz", {"train": hashes_of("A film", "b", "c"), "test": hashes_of("d")})
    known = read_hashes(tmp_path / "examples.npz")
    assert known["train"].dtype == np.uint64 and list(known) == ["train", "test"]
    other = hashes_of("a  FILM", "c", "new", "c")
    assert (count_known(other, known["train"]), count_known(other, known["test"])) == (3, 0)
    assert (tmp_path / "examples.npz").stat().st_size < 1000


def test_missing_or_damaged_files_have_no_hash(tmp_path):
    assert read_hashes(tmp_path / "none.npz") is None
    (tmp_path / "bad.npz").write_bytes(b"PK not a zip")
    assert read_hashes(tmp_path / "bad.npz") is None
    write_hashes(tmp_path / "empty.npz", {})
    assert not (tmp_path / "empty.npz").exists()

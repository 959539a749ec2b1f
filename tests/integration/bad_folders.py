"""Bad inputs: run directories, runs to resume, full disks, and training that diverges."""

import contextlib
import resource
from collections.abc import Iterator

from bad_input_case import Case
from bad_input_steps import change, config, copy, cut, delete, do, write

__all__ = ["CASES"]

DIVERGING = "stages.0.optimizer=sgd stages.0.clip= stages.0.batch_size=1 stages.0.epochs=4"


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond a size in bytes: writing on fails in the middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


CASES = [
    Case("a run directory that is not empty", "run recipe.yaml --output-dir photos", "TODO"),
    Case("a file for a run directory", "run recipe.yaml --output-dir recipe.yaml", "TODO"),
    Case("a run directory that cannot be made, below a file", "run recipe.yaml --output-dir recipe.yaml/new", "TODO"),
    Case("a run directory that may not be written to", "run recipe.yaml --output-dir /proc/new", "TODO"),
    Case("nothing to resume", "run recipe.yaml --resume", "TODO"),
    Case("a folder to resume that is no run", "run recipe.yaml --output-dir photos --resume", "TODO"),
    Case("a run whose manifest is cut off", "run recipe.yaml --output-dir run --resume", "TODO", cut("run/manifest.json", 40)),
    Case("a run resumed with another recipe", "run recipe.yaml stages.0.lr=1e-3 --output-dir run --resume", "TODO"),
    Case("a run resumed with other data", "run recipe.yaml --output-dir run --resume", "TODO", delete("photos/tea/5.png")),
    Case("a run resumed with another checkpoint", "run recipe.yaml --output-dir run --resume", "TODO", config("vit/config.json", layer_norm_eps=1e-6)),
    Case("a rate at which the loss is no number", f"run recipe.yaml {DIVERGING} stages.0.lr=1e38 --output-dir new", "TODO", code=1, partial="new"),
    Case("a rate at which the model's output is no number", f"run recipe.yaml {DIVERGING} stages.0.lr=1e9 stages.0.batch_size=2 --output-dir new", "TODO", partial="new"),
    Case("a disk that fills up while a checkpoint is written", "run recipe.yaml --output-dir new", "TODO", code=1, partial="new", during=lambda: largest_file(20_000)),
    Case("a disk that fills up while predictions are written", "predict run photos --output found.csv", "TODO", code=1, during=lambda: largest_file(200)),
]

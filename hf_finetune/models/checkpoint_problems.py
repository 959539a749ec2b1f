"""Problems reported for a checkpoint that cannot be loaded."""

from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError

import timm
from safetensors import SafetensorError

from hf_finetune.errors import Problem, suggestion
from hf_finetune.tasks import Modality

__all__ = ["checkpoint_problem", "model_problem", "processor_problem", "unsafe_pickle", "weights_problem"]


def checkpoint_problem(path: str, error: Exception) -> Problem:
    """Return the problem of a path at which no checkpoint can be read, with the likely cause.

    Args:
        path: A Hub id, ``timm/NAME``, or a folder.
        error: Exception raised by transformers.
    """
    folder = Path(path).expanduser()
    siblings = {str(sibling): sibling.name for sibling in folder.absolute().parent.glob("*")}
    close = get_close_matches(folder.name, list(siblings.values()), n=1)
    is_path = path.startswith((".", "/", "~")) or path.count("/") > 1
    if folder.is_dir():
        repair = "It has no config.json."
        if (folder / "config.json").is_file():
            repair = f"Its config.json cannot be read: {_brief(error)}"
    elif path.startswith("timm/"):
        repair = suggestion(path, [f"timm/{name}" for name in timm.list_models()])
    elif close and (is_path or "/" not in path):
        repair = f"Nearest: {path.rstrip('/').removesuffix(folder.name) + close[0]!r}."
    elif is_path:
        repair = "There is no such folder."
    else:
        repair = "There is no such folder. If it is on the Hub, check the name, the network and your access."
    rule = "must be a checkpoint: a folder with config.json, or a name on the Hub"
    return Problem("model.path", rule, repr(path), repair)


def model_problem(path: str, error: Exception) -> Problem:
    """Return the problem of a config that can be read but does not build a model.

    Args:
        path: A Hub id, ``timm/NAME``, or a folder.
        error: Exception raised by the model's class.
    """
    rule = "must have a config.json from which a model can be built"
    return Problem("model.path", rule, repr(path), f"{type(error).__name__}: {_brief(error)}")


def processor_problem(path: str, modality: Modality, error: Exception | None = None) -> Problem:
    """Return the problem of a checkpoint whose image processor or tokenizer is missing or damaged.

    Args:
        path: A Hub id, ``timm/NAME``, or a folder.
        modality: Kind of input.
        error: Exception raised by transformers; None if it raised none.
    """
    kind, files = modality.processor_noun, modality.processor_files
    present = [name for name in files if (Path(path).expanduser() / name).is_file()]
    if error is None or not present:
        return Problem("model.path", f"must be a checkpoint with {kind}", repr(path), f"It lacks {files[0]}.")
    rule = f"must be a checkpoint with {kind} that can be loaded"
    repair = f"{' or '.join(present)} is damaged: {type(error).__name__}: {_brief(error)}"
    return Problem("model.path", rule, repr(path), repair)


def weights_problem(path: str, error: Exception) -> Problem:
    """Return the problem of weights that cannot be read, with its cause; arguments as for ``checkpoint_problem``."""
    if isinstance(error, UnpicklingError):
        return unsafe_pickle("model.path", path)
    if isinstance(error, SafetensorError):
        repair = "A file is damaged or truncated: download it again."
        return Problem("model.path", "must contain intact weight files", repr(path), repair)
    folder = Path(path)
    if folder.is_dir() and not any(any(folder.glob(pattern)) for pattern in ("*.safetensors", "*.bin")):
        return Problem("model.path", "must contain weights", repr(path), "It has no model.safetensors.")
    if isinstance(error, OSError) and not folder.is_dir():
        repair = "If it is on the Hub, check the name, the network and your access."
        return Problem("model.path", "must contain weights that can be loaded", repr(path), repair)
    return Problem("model.path", "must contain weights that can be loaded", repr(path), _brief(error))


def unsafe_pickle(place: str, path: str | Path) -> Problem:
    """Return the problem of weight files that contain objects other than tensors, which were not unpickled."""
    rule = "must have weight files that contain only tensors"
    repair = (
        "Its pickle file contains other objects, which could run code when loaded. No code was run. "
        "Use a checkpoint with model.safetensors."
    )
    return Problem(place, rule, repr(str(path)), repair)


def _brief(error: Exception) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first if len(first) <= 200 else f"{first[:197]}..."

"""A commented recipe for inspected data."""

from pathlib import Path

from hf_finetune.errors import InputError, Problem, join_words, short_repr, truncate
from hf_finetune.files import is_valid_path
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.recipe.yaml_text import read_yaml, write_flow_yaml
from hf_finetune.search.candidates import choose_at_hand, read_candidates
from hf_finetune.search.inspect_data import InspectedData
from hf_finetune.targets import TARGETS

__all__ = ["check_output", "describe", "draft_recipe", "write_draft"]

_COMMENTED_FIELDS = ("columns", "target", "split", "on_error")
"""Fields of ``data`` that have lines of their own, with comments."""
_STAGES = """\
stages: # the depth and the learning rates that are not set are the defaults of the checkpoint's architecture
  - {name: head, train: head, fit: auto, epochs: 10, early_stopping: 3} # a new head on frozen features
  - {name: fine-tune, train: auto, epochs: 6, warmup: 0.1, batch_size: 16, early_stopping: 3}
"""


_STAGE_OF_NEW_MODEL = """\
stages:
  - {name: all, train: all, epochs: 10, lr: 1e-3, warmup: 0.1, batch_size: 32, early_stopping: 3}
"""


def draft_recipe(data: InspectedData, model: str | None = None) -> str:
    """Return a commented recipe that runs as it is.

    Args:
        data: Inspected data.
        model: Checkpoint; None takes the first candidate that is on this machine, else the default candidate; or a new
            model if the modality has no checkpoints.

    Returns:
        Text of the recipe, in YAML.

    Raises:
        InputError: If the model is not a valid value of a recipe, or if none is given and the package has no list of
            checkpoints for the modality.
    """
    target = TARGETS[data.data.target]
    lines = [f"# {_one_line(sentence)}" for sentence in describe(data)]
    lines += [f"task: {data.task.name}", _model_line(data, model), "data:"]
    lines += [f"  {line}" for line in _data_lines(data)]
    is_new = model is None and data.task.modality.builds_new_models
    own_stages = data.task.draft_stages(model or _candidate(data)[0]) if not is_new else _STAGE_OF_NEW_MODEL
    lines += (own_stages or _STAGES).splitlines()
    metrics = write_flow_yaml(list(data.task.draft_metrics or target.default_metrics))
    lines += [f"metrics: {metrics} # the first one selects the epoch that is kept"]
    lines += ["speed: auto # precision, memory format and compilation are chosen by measuring them"]
    text = "\n".join(lines) + "\n"
    parse_recipe(read_yaml(text, "The recipe")[0])
    return text


def describe(data: InspectedData) -> list[str]:
    """Return sentences on what the data contains.

    Args:
        data: Inspected data.
    """
    modality, loaded = data.task.modality, data.data
    train = data.splits["train"]
    given = [split for split in data.splits if split in data.given_splits]
    new = [split for split in data.splits if split not in data.given_splits]
    counts = join_words(f"{len(dataset):,} {split}" for split, dataset in data.splits.items())
    total = sum(map(len, data.splits.values()))
    labels = [label for dataset in data.splits.values() for label in dataset["label"][:]]
    sentences = [
        f"{total:,} {modality.plural}; {TARGETS[loaded.target].describe_labels(labels, loaded.label_names)}.",
        modality.describe_sizes(train),
        f"Examples: {counts}; {join_words(given)} in the data"
        + (f", {join_words(new)} split off." if new else "."),
    ]
    return [sentence for sentence in sentences if sentence]


def write_draft(text: str, output: Path) -> None:
    """Write a recipe to a new file.

    Args:
        text: Text of the recipe.
        output: File to write.

    Raises:
        InputError: If the file exists, or cannot be created.
    """
    check_output(output)
    try:
        file = output.open("x", encoding="utf-8")
    except OSError as error:
        problem = Problem(str(output), "must be a file that can be created", repair=f"{error.strerror}.")
        raise InputError(problem) from error
    with file:
        file.write(text)


def check_output(output: Path) -> None:
    """Check that a recipe can be written to a file, before a long computation.

    Args:
        output: File to write.

    Raises:
        InputError: If the file exists, its folder does not, or its name is invalid.
    """
    if not is_valid_path(output):
        raise InputError(Problem("The recipe", "must have a valid file name", short_repr(str(output))))
    if not output.parent.is_dir():
        raise InputError(Problem(str(output.parent), "must be a folder"))
    if output.exists():
        repair = "Existing files are not overwritten. Choose another name."
        raise InputError(Problem(str(output), "must not exist", repair=repair))


def _model_line(data: InspectedData, model: str | None) -> str:
    if model is not None:
        return f"model: {write_flow_yaml(model)}"
    if data.task.modality.builds_new_models:
        return "model: {new: {layers: 2, hidden: 64}} # nothing is pretrained: random weights"
    chosen, here = _candidate(data)
    comment = "the first recommended checkpoint on this machine" if here else "downloaded from the Hub"
    return f"model: {write_flow_yaml(chosen)} # {comment}"


def _candidate(data: InspectedData) -> tuple[str, bool]:
    """Return the first recommended checkpoint that is on this machine, and True; else the default one, and False."""
    return choose_at_hand(read_candidates(data.task.modality))


def _data_lines(data: InspectedData) -> list[str]:
    loaded, fields = data.data, data.fields
    lines = [f"path: {write_flow_yaml(data.path)}"]
    lines += [
        f"{name}: {write_flow_yaml(value)}" for name, value in fields.items() if name not in _COMMENTED_FIELDS
    ]
    if "columns" in fields or data.other_columns:
        found = _columns_in_use(data)
        columns = {**found, **fields.get("columns", {})}
        guess = f"guessed: {join_words(data.guessed)}; " if data.guessed else ""
        others = f"not used: {join_words(data.other_columns)}" if data.other_columns else ""
        lines.append(_commented(f"columns: {write_flow_yaml(columns)}", (guess + others).rstrip("; ")))
    origin = "set" if fields.get("target", "auto") != "auto" else "inferred"
    other_targets = [name for name in TARGETS if name != loaded.target and data.task.accepts(name)]
    lines.append(
        f"target: {loaded.target} # {origin}{f'; or {join_words(other_targets)}' if other_targets else ''}"
    )
    if "split" in fields:
        split = fields["split"]
        comment = "stratified by class"
        if not TARGETS[loaded.target].has_classes:
            comment = "random: only classes are stratified"
        elif "time" in split:
            comment = "tested on what comes from this date on"
        elif data.is_random:
            comment = "random, because a class has too few examples"
        elif not split.get("stratify"):
            comment = "random"
        lines.append(_commented(f"split: {write_flow_yaml(dict(split))}", comment))
    for name, (value, comment) in data.task.modality.draft_fields(loaded.train).items():
        if name in fields:
            continue
        lines.append(_commented(f"{name}: {write_flow_yaml(value)}", comment))
    if "on_error" in fields:
        lines.append(
            _commented(
                f"on_error: {fields['on_error']}",
                f"else an error: {truncate(data.removed)}" if data.removed else "",
            )
        )
    return lines


def _columns_in_use(data: InspectedData) -> dict[str, str]:
    """Return the columns by role that the data has: where rows are joined to examples, those of the rows."""
    used = {role: name for role, name in data.data.columns.items() if name is not None}
    row_roles = [role.name for role in data.task.modality.row_roles]
    if not any(role in used for role in row_roles):
        return used
    return {role: name for role, name in used.items() if role in (*row_roles, "time")}


def _commented(line: str, comment: str) -> str:
    return f"{line} # {_one_line(comment)}" if comment else line


def _one_line(text: str) -> str:
    """Return a text for a comment, without line breaks and other characters that YAML does not allow there."""
    return "".join(character if character.isprintable() else " " for character in text)

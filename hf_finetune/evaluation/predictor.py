"""Finished model as a transformers pipeline, with the task and the labels declared in its config."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Pipeline,
    PreTrainedConfig,
    pipeline,
)
from transformers.pipelines.base import pad_collate_fn

from hf_finetune.cache.micro_batches import in_pieces
from hf_finetune.data.formatting import listed
from hf_finetune.data.labels import Target
from hf_finetune.data.texts import pad_right, resolve_max_length
from hf_finetune.data.truncation import CutTexts, cut_examples
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.error_text import cause_of
from hf_finetune.files import can_be_path
from hf_finetune.models.build import LOADING_ERRORS, SETTING_ERRORS
from hf_finetune.models.checkpoint_problems import unsafe_pickle
from hf_finetune.models.classifier_head import HeadModel, is_given
from hf_finetune.models.head_spec import load_config
from hf_finetune.models.library_logging import quiet_libraries
from hf_finetune.models.max_tokens import position_limit
from hf_finetune.models.remote_code import check_tokenizer, code_refused
from hf_finetune.performance.allocator import keep_freed_memory
from hf_finetune.recipe.paths import is_local
from hf_finetune.targets import TARGETS, Regression, SingleLabel

__all__ = [
    "COLUMNS",
    "TEMPERATURE",
    "THRESHOLDS",
    "Classifier",
    "Task",
    "compute_logits",
    "load_classifier",
    "logit_batches",
    "resolve_model_dir",
]

TEMPERATURE, THRESHOLDS, COLUMNS = "logit_temperature", "decision_thresholds", "training_columns"
"""Config attributes that ``predict`` and ``evaluate`` apply; plain transformers stores them without using them."""

Task = Literal["image-classification", "text-classification"]

_HEADS: dict[str, Task] = {
    "ForImageClassification": "image-classification",
    "ForSequenceClassification": "text-classification",
}


@dataclass(frozen=True)
class Classifier:
    """Model that is ready to predict.

    Attributes:
        pipe: Pipeline of transformers; for an exported model, a function from a list of examples to their logits
            [examples, classes].
        task: Pipeline task.
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        label_names: Class names in the order of the model, all distinct.
        batch_size: Examples per forward pass.
        temperature: Temperature to divide logits by; 1 unless it could not be folded into the weights of the head.
        thresholds: Decision threshold of each class (multi-label); None is 0.5 for all classes.
        columns: Columns of the training data by role: image, text, text_pair, label; None if they are not known.
    """

    pipe: Pipeline
    task: Task
    target: Target
    label_names: tuple[str, ...]
    batch_size: int
    temperature: float = 1.0
    thresholds: tuple[float, ...] | None = None
    columns: Mapping[str, Any] | None = None


def resolve_model_dir(model_or_run: str | Path) -> Path | str:
    """Return the checkpoint folder of a folder or a run. A Hub id is returned unchanged.

    Raises:
        InputError: If there is no checkpoint, or if the run is not finished.
    """
    place, rule = str(model_or_run), "must be a checkpoint folder, a run or a Hub id"
    if not can_be_path(place):
        raise InputError(Problem(place, rule, "a name that no file can have"))
    folder = Path(model_or_run).expanduser()
    for candidate in (folder, folder / "model"):
        if (candidate / "config.json").is_file():
            return candidate
    if folder.is_dir():
        if (folder / "adapter" / "adapter_config.json").is_file():
            repair = f"{folder / 'adapter' / 'README.md'} says how peft loads it."
            raise InputError(Problem(place, "must hold a finished model", "an adapter alone", repair))
        tasks = sorted(path for path in (folder / "tasks").glob("*") if (path / "model").is_dir())
        if tasks:
            repair = f"Give that of one task: {' or '.join(map(str, tasks))}."
            raise InputError(Problem(place, "must hold one model", "those of several tasks", repair))
        if any((folder / name).exists() for name in ("recipe.yaml", "manifest.json", "stages")):
            repair = f"Finish it: hf-finetune run {folder / 'recipe.yaml'} --output-dir {folder} --resume."
            raise InputError(Problem(place, "must hold a finished model", f"no {folder / 'model'}", repair))
        raise InputError(Problem(place, rule, "a folder with neither config.json nor model/config.json"))
    if folder.exists():
        raise InputError(Problem(place, rule, "a file", "Give the folder that holds it."))
    if is_local(str(model_or_run)):
        raise InputError(Problem(place, rule, "a path where nothing is"))
    return str(model_or_run)


@quiet_libraries()
def load_classifier(
    model_or_run: str | Path,
    *,
    task: Task | None = None,
    batch_size: int = 64,
    trust_remote_code: bool = False,
) -> Classifier:
    """Load a model as the pipeline of its task.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.
        task: Expected pipeline task; None takes the task of the model.
        batch_size: Examples per forward pass; 1 is used if the tokenizer has no padding token.
        trust_remote_code: Whether code stored next to the weights may run.

    Returns:
        The loaded model.

    Raises:
        InputError: If there is no such model, if it cannot be loaded, or if it is for another task.
    """
    source = resolve_model_dir(model_or_run)
    place = str(source)
    options = {"trust_remote_code": trust_remote_code}
    try:
        config = load_config(source, trust_remote_code=trust_remote_code)
    except LOADING_ERRORS as error:
        refused = None if trust_remote_code else code_refused(place, source)
        raise (refused or InputError(_no_checkpoint(source, error))) from error
    made_for = _task_of(config, place)
    if task is not None and task != made_for:
        raise InputError(Problem(place, f"must be a model for {task}", f"one for {made_for}"))
    image = made_for == "image-classification"
    model_class = AutoModelForImageClassification if image else AutoModelForSequenceClassification
    known: dict[str, Any] = {}
    if is_given(config):  # this package implements the head: the code next to the weights is not run
        model_class, known = HeadModel, {"config": config}
    if not image:
        check_tokenizer(place, source, trust_remote_code=trust_remote_code)
    try:
        model, loaded = model_class.from_pretrained(source, output_loading_info=True, **known, **options)
        preprocessor = (AutoImageProcessor if image else AutoTokenizer).from_pretrained(
            source, **({} if image else known), **options
        )
    except UnpicklingError as error:
        raise InputError(unsafe_pickle(place, source)) from error
    except SafetensorError as error:
        rule, value = "must hold whole weight files", "one that is damaged or cut off"
        raise InputError(Problem(place, rule, value, "Fetch or copy it again.")) from error
    except (*LOADING_ERRORS, *SETTING_ERRORS) as error:
        refused = None if trust_remote_code else code_refused(place, source)
        unreadable = Problem(place, "must be a checkpoint that can be loaded", cause_of(error))
        raise (refused or InputError(unreadable)) from error
    if loaded["missing_keys"]:
        missing = listed(sorted(loaded["missing_keys"]), most=4)
        raise InputError(Problem(place, "must hold every weight of its model", f"none for {missing}"))
    label_names = _distinct([model.config.id2label[index] for index in range(model.config.num_labels)])
    model.config.id2label = dict(enumerate(label_names))
    settings: dict[str, Any] = {}
    if image:
        settings["image_processor"] = preprocessor
    else:
        positions = position_limit(model)
        pad_right(preprocessor, positions)
        settings |= {
            "tokenizer": preprocessor,
            "truncation": True,
            "max_length": resolve_max_length(preprocessor, None, positions),
        }
        # an exported tokenizer then truncates at the same length
        preprocessor.model_max_length = settings["max_length"]
        batch_size = 1 if preprocessor.pad_token_id is None else batch_size
    pipe = pipeline(made_for, model=model, **settings)
    return Classifier(
        *(pipe, made_for, _target_of(model.config), label_names, batch_size),
        temperature=float(getattr(model.config, TEMPERATURE, None) or 1.0),
        thresholds=tuple(getattr(model.config, THRESHOLDS, None) or ()) or None,
        columns=_columns_of(model.config),
    )


def _columns_of(config: PreTrainedConfig) -> dict[str, Any] | None:
    """Return the training columns stored in a config, by role; None if they are missing or malformed."""
    columns = getattr(config, COLUMNS, None)
    if not isinstance(columns, dict):
        return None
    inputs = {key: columns.get(key) for key in ("image", "text", "text_pair") if key in columns}
    if not inputs or not all(name is None or isinstance(name, str) for name in inputs.values()):
        return None
    return {**inputs, "label": columns.get("label")}


def compute_logits(classifier: Classifier, examples: Iterable[Any]) -> Iterator[np.ndarray]:
    """Compute the logits of a stream of examples, one batch at a time.

    Args:
        classifier: The model.
        examples: RGB images; or texts, or dictionaries of ``text`` and ``text_pair``.

    Yields:
        Logits of one example [classes], in float32.
    """
    for logits in logit_batches(classifier, examples):
        yield from logits


def logit_batches(
    classifier: Classifier, examples: Iterable[Any], cut: CutTexts | None = None
) -> Iterator[np.ndarray]:
    """Compute the logits of a stream of examples, and yield them batch by batch.

    Preprocessing and forward pass are those of the pipeline, so that the model is evaluated exactly as its users will
    load it. Its ``postprocess`` is skipped: transformers 5.23 creates a dictionary for each class of each example
    there, which takes 30 ms per example with 2,000 classes.

    Args:
        classifier: The model.
        examples: RGB images; or texts, or dictionaries of ``text`` and ``text_pair``.
        cut: Counter of truncated texts; texts of an exported model are not counted.

    Yields:
        Logits of a batch [batch, classes], in float32.
    """
    pipe, waiting = classifier.pipe, iter(examples)
    is_text = classifier.task == "text-classification"
    with keep_freed_memory(isinstance(pipe, Pipeline) and pipe.device.type == "cpu"):
        while batch := _take(waiting, classifier):
            if not isinstance(pipe, Pipeline):
                logits = pipe(batch)
            else:
                inputs = _tokenized(pipe, batch, cut) if is_text else _collate(pipe, batch)
                pieces = [pipe.forward(piece)["logits"].float() for piece in in_pieces(inputs, pipe.device)]
                logits = torch.cat(pieces).numpy()
            yield np.asarray(logits, dtype=np.float32) / classifier.temperature


def _take(examples: Iterator[Any], classifier: Classifier) -> list[Any]:
    """Return the examples of the next batch.

    Images are preprocessed one by one as they are read, so that only one is in memory at full size.
    """
    pipe, batch = classifier.pipe, islice(examples, classifier.batch_size)
    if classifier.task == "image-classification" and isinstance(pipe, Pipeline):
        return [pipe.preprocess(image, **pipe._preprocess_params) for image in batch]
    return list(batch)


def _tokenized(pipe: Pipeline, examples: Sequence[Any], cut: CutTexts | None = None) -> Any:
    """Tokenize a batch in one call, which is many times faster than text by text.

    A batch that mixes single texts and pairs is tokenized one example at a time.
    """
    columns = [example if isinstance(example, Mapping) else {"text": example} for example in examples]
    if len({"text_pair" in example for example in columns}) > 1:
        inputs = [pipe.preprocess(dict(texts), **pipe._preprocess_params) for texts in columns]
        for example, encoding in zip(columns, inputs, strict=True):
            _count_cut(pipe, encoding, [example], cut)
        return _collate(pipe, inputs)
    batch = {name: [example[name] for example in columns] for name in columns[0]}
    inputs = pipe.preprocess({**batch, "padding": len(columns) > 1}, **pipe._preprocess_params)
    _count_cut(pipe, inputs, columns, cut)
    return inputs


def _count_cut(
    pipe: Pipeline, inputs: Any, examples: Sequence[Mapping[str, str]], cut: CutTexts | None
) -> None:
    if cut is not None:
        texts = list(zip(*(example.values() for example in examples), strict=True))
        cut.add(cut_examples(inputs, pipe.tokenizer, texts, pipe.tokenizer.model_max_length), pipe.tokenizer)


def _collate(pipe: Pipeline, inputs: list[Any]) -> Any:
    """Collate a batch in the same way as the pipeline."""
    return inputs[0] if len(inputs) == 1 else pad_collate_fn(pipe.tokenizer, pipe.image_processor)(inputs)


def _no_checkpoint(source: str | Path, error: Exception) -> Problem:
    if isinstance(source, Path):
        return Problem(str(source), "must be a checkpoint that can be loaded", cause_of(error))
    value = "no folder here, and nothing that the Hub gives"
    repair = "Check the name, the network and your access."
    return Problem(source, "must be a checkpoint folder, a run or a Hub id", value, repair)


def _task_of(config: PreTrainedConfig, place: str) -> Task:
    for name in config.architectures or ():
        for ending, task in _HEADS.items():
            if name.endswith(ending):
                return task
    value = ", ".join(config.architectures or ()) or "no architectures in its config"
    raise InputError(Problem(place, f"must be a model {' or '.join(_HEADS)}", value))


def _target_of(config: PreTrainedConfig) -> Target:
    """Return the label type of a config. As in transformers, one output without ``problem_type`` is regression."""
    for name, target in TARGETS.items():
        if target.problem_type == config.problem_type:
            return name
    return Regression.name if config.num_labels == 1 else SingleLabel.name


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return class names made distinct by appending the index to duplicates (ImageNet has two classes ``crane``)."""
    count = Counter(names)
    return tuple(name if count[name] == 1 else f"{name} ({index})" for index, name in enumerate(names))

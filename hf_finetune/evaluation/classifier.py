"""Fine-tuned model that is ready to predict: a transformers pipeline, with the task and the labels of its config."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from safetensors import SafetensorError
from transformers import Pipeline, PreTrainedConfig

from hf_finetune.cache.micro_batches import iter_micro_batches
from hf_finetune.errors import InputError, Problem, join_words
from hf_finetune.evaluation.error_text import cause_of
from hf_finetune.evaluation.similar_lengths import in_similar_batches
from hf_finetune.files import is_valid_path
from hf_finetune.models.build import LOADING_ERRORS, SETTING_ERRORS
from hf_finetune.models.checkpoint_problems import unsafe_pickle
from hf_finetune.models.classifier_head import HeadModel, is_given
from hf_finetune.models.head_spec import load_config
from hf_finetune.models.library_logging import quiet_libraries
from hf_finetune.models.remote_code import check_tokenizer, remote_code_error
from hf_finetune.performance.allocator import keep_freed_memory
from hf_finetune.recipe.paths import is_local
from hf_finetune.targets import TARGETS
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.labels import TargetName
from hf_finetune.targets.model_config import get_target
from hf_finetune.tasks import TASKS, Modality, Task
from hf_finetune.tasks.examples import Remarks
from hf_finetune.tasks.installed import register_installed

__all__ = [
    "COLUMNS",
    "TEMPERATURE",
    "THRESHOLDS",
    "Classifier",
    "iter_logits",
    "load_classifier",
    "logit_batches",
    "resolve_model_dir",
]

TEMPERATURE, THRESHOLDS, TOP_K = "logit_temperature", "decision_thresholds", "decision_top_k"
COLUMNS = "training_columns"
"""Config attributes that ``predict`` and ``evaluate`` apply; plain transformers stores them without using them."""

TEXTS_ON_CPU = 8
"""Largest number of texts in a forward pass on the CPU, where more gain nothing.

Measured with one core: MiniLM takes 4.5 ms per text of 16 tokens with 8 texts, and 4.4 ms with 64; MPNet 535 and 648 ms
per text of 256 tokens. With fewer texts, less of a batch is padding.
"""


@dataclass(frozen=True)
class Classifier:
    """Model that is ready to predict.

    Attributes:
        pipe: Pipeline of transformers; for an exported model, a function from a list of examples to their logits
            [examples, classes].
        task: Name of the task.
        target: Label type: ``single_label``, ``multi_label`` or ``regression``.
        label_names: Class names in the order of the model, all distinct.
        batch_size: Examples per forward pass.
        temperature: Temperature to divide logits by; 1 unless it could not be folded into the weights of the head.
        rule: Rule that decides the classes of multi-label examples.
        columns: Columns of the training data by role: those of the modality, and label; None if they are not known.
    """

    pipe: Pipeline
    task: str
    target: TargetName
    label_names: tuple[str, ...]
    batch_size: int
    temperature: float = 1.0
    rule: DecisionRule = DEFAULT_RULE
    columns: Mapping[str, Any] | None = None

    @property
    def modality(self) -> Modality:
        """Kind of input."""
        return TASKS[self.task].modality


def resolve_model_dir(model_or_run: str | Path) -> Path | str:
    """Return the checkpoint folder of a folder or a run. A Hub id is returned unchanged.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.

    Raises:
        InputError: If there is no checkpoint, or if the run is not finished.
    """
    place, rule = str(model_or_run), "must be a checkpoint folder, a run or a Hub id"
    if not is_valid_path(place):
        raise InputError(Problem(place, rule, "an invalid file name"))
    folder = Path(model_or_run).expanduser()
    for candidate in (folder, folder / "model"):
        if (candidate / "config.json").is_file():
            return candidate
    if folder.is_dir():
        if (folder / "adapter" / "adapter_config.json").is_file():
            repair = f"See {folder / 'adapter' / 'README.md'} for loading it with peft."
            raise InputError(Problem(place, "contains only an adapter", "", repair))
        tasks = sorted(path for path in (folder / "tasks").glob("*") if (path / "model").is_dir())
        if tasks:
            repair = f"Use the model of one task: {' or '.join(map(str, tasks))}."
            raise InputError(Problem(place, "contains the models of several tasks", "", repair))
        if any((folder / name).exists() for name in ("recipe.yaml", "manifest.json", "stages")):
            repair = (
                f"Finish the run: hf-finetune run {folder / 'recipe.yaml'} --output-dir {folder} --resume."
            )
            raise InputError(
                Problem(place, "is a run that is not finished", f"no {folder / 'model'}", repair)
            )
        raise InputError(Problem(place, rule, "a folder with neither config.json nor model/config.json"))
    if folder.exists():
        raise InputError(Problem(place, rule, "a file", "Use the folder that contains it."))
    if is_local(str(model_or_run)):
        raise InputError(Problem(place, rule, "a path that does not exist"))
    return str(model_or_run)


@quiet_libraries()
def load_classifier(
    model_or_run: str | Path,
    *,
    task: str | None = None,
    batch_size: int = 64,
    trust_remote_code: bool = False,
) -> Classifier:
    """Load a model as the pipeline of its task.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.
        task: Expected pipeline task; None takes the task of the model.
        batch_size: Examples per forward pass; 1 is used if inputs cannot be joined to batches.
        trust_remote_code: Whether code stored next to the weights may run.

    Returns:
        The loaded model.

    Raises:
        InputError: If there is no such model, if it cannot be loaded, or if it is for another task.
    """
    register_installed()
    source = resolve_model_dir(model_or_run)
    place = str(source)
    try:
        config = load_config(source, trust_remote_code=trust_remote_code)
    except LOADING_ERRORS as error:
        code_error = None if trust_remote_code else remote_code_error(place, source)
        raise (code_error or InputError(_no_checkpoint(source, error))) from error
    model_task = _task_of(config, place)
    if task is not None and task != model_task.name:
        raise InputError(Problem(place, f"must be a model for {task}", f"a model for {model_task.name}"))
    modality = model_task.modality
    if modality.has_tokens:
        check_tokenizer(place, source, trust_remote_code=trust_remote_code)
    model, processor = _load_model(source, config, model_task, trust_remote_code)
    label_names = _distinct([model.config.id2label[index] for index in range(model.config.num_labels)])
    model.config.id2label = dict(enumerate(label_names))
    pipe = model_task.build_pipeline(model, modality.pipeline_settings(processor, model))
    return Classifier(
        pipe,
        model_task.name,
        _target_of(model.config, model_task),
        label_names,
        batch_size=batch_size if modality.makes_batches(processor) else 1,
        temperature=float(getattr(model.config, TEMPERATURE, None) or 1.0),
        rule=_rule_of(model.config),
        columns=_columns_of(model.config, modality),
    )


def _load_model(
    source: str | Path, config: PreTrainedConfig, task: Task, trust_remote_code: bool
) -> tuple[Any, Any]:
    """Return the model with all of its weights, and its processor."""
    place = str(source)
    options = {"trust_remote_code": trust_remote_code}
    model_class, config_argument = task.auto_class_of(config), dict[str, Any]()
    if is_given(config):  # this package implements the head: the code next to the weights is not run
        model_class, config_argument = HeadModel, {"config": config}
    try:
        model, loaded = model_class.from_pretrained(
            source, output_loading_info=True, **config_argument, **options
        )
        processor = task.modality.load_processor(
            str(source), **(config_argument if task.modality.has_tokens else {}), **options
        )
    except UnpicklingError as error:
        raise InputError(unsafe_pickle(place, source)) from error
    except SafetensorError as error:
        rule = "contains a damaged or truncated weight file"
        raise InputError(Problem(place, rule, "", "Download or copy it again.")) from error
    except (*LOADING_ERRORS, *SETTING_ERRORS) as error:
        code_error = None if trust_remote_code else remote_code_error(place, source)
        unreadable = Problem(place, "must be a checkpoint that can be loaded", cause_of(error))
        raise (code_error or InputError(unreadable)) from error
    if loaded["missing_keys"]:
        missing = join_words(sorted(loaded["missing_keys"]), most=4)
        raise InputError(Problem(place, f"lacks weights of its model: {missing}"))
    return task.adapt_model(model), processor


def _rule_of(config: PreTrainedConfig) -> DecisionRule:
    """Return the decision rule stored in a config."""
    return DecisionRule(tuple(getattr(config, THRESHOLDS, None) or ()) or None, getattr(config, TOP_K, None))


def _columns_of(config: PreTrainedConfig, modality: Modality) -> dict[str, Any] | None:
    """Return the training columns stored in a config, by role; None if they are missing or malformed."""
    columns = getattr(config, COLUMNS, None)
    if not isinstance(columns, dict):
        return None
    inputs = {key: columns.get(key) for key in modality.columns_in(columns)}
    if not inputs or not all(name is None or isinstance(name, str) for name in inputs.values()):
        return None
    names = [*(role.name for role in modality.row_roles), *modality.row_settings]
    rows = {name: columns[name] for name in names if columns.get(name)}
    if rows and isinstance(columns.get("time"), str):
        rows["time"] = columns["time"]
    return {**inputs, **rows, "label": columns.get("label")}


def iter_logits(classifier: Classifier, examples: Iterable[Any]) -> Iterator[np.ndarray]:
    """Compute the logits of a stream of examples, one batch at a time.

    Args:
        classifier: The model.
        examples: Examples as ``Modality.pipeline_input`` returns them.

    Yields:
        Logits of one example [classes], divided by the temperature, in float32.
    """
    for logits in logit_batches(classifier, examples):
        yield from logits


def logit_batches(
    classifier: Classifier,
    examples: Iterable[Any],
    remarks: Remarks | None = None,
    *,
    reads_ahead: bool = True,
) -> Iterator[np.ndarray]:
    """Compute the logits of a stream of examples, and yield them batch by batch.

    Preprocessing and forward pass are those of the pipeline, so that the model is evaluated exactly as its users will
    load it, except that texts of similar length share a batch. The pipeline's ``postprocess`` is skipped: transformers
    5.23 creates a dictionary for each class of each example there, which takes 30 ms per example with 2,000 classes.

    Args:
        classifier: The model.
        examples: Examples as ``Modality.pipeline_input`` returns them.
        remarks: Collector of the modality, which counts truncated examples, though not those of an exported model.
        reads_ahead: Whether several batches of texts may be read at a time, so that similar ones share a batch.

    Yields:
        Logits of a batch [batch, classes], divided by the temperature, in float32; or an array of texts [batch].
    """
    pipe, stream = classifier.pipe, iter(examples)
    is_exported = not isinstance(pipe, Pipeline)
    with keep_freed_memory(not is_exported and pipe.device.type == "cpu"):
        is_text = TARGETS[classifier.target].is_text
        sorts = reads_ahead and classifier.modality.has_tokens
        size = classifier.batch_size
        if sorts and not is_exported and pipe.device.type == "cpu":
            size = min(size, TEXTS_ON_CPU)
        compute: Callable[[Iterator[Any]], Iterator[Any]] = partial(
            _logits, classifier, size=size, remarks=remarks
        )
        if is_exported:
            compute = partial(_exported_logits, classifier)
        batches: Iterable[Any] = compute(stream)
        if sorts:
            length, classes = classifier.modality.input_length, len(classifier.label_names)
            batches = in_similar_batches(compute, stream, length, classifier.batch_size, classes)
        for logits in batches:
            yield logits if is_text else np.asarray(logits, dtype=np.float32) / classifier.temperature


def _exported_logits(classifier: Classifier, examples: Iterator[Any]) -> Iterator[Any]:
    while batch := list(islice(examples, classifier.batch_size)):
        yield classifier.pipe(batch)


def _logits(
    classifier: Classifier, examples: Iterator[Any], size: int, remarks: Remarks | None
) -> Iterator[Any]:
    pipe, task = classifier.pipe, TASKS[classifier.task]
    read_batch = task.modality.read_batch
    while (inputs := read_batch(pipe, examples, size, remarks)) is not None:
        pieces = [task.outputs(pipe, piece) for piece in iter_micro_batches(inputs, pipe.device)]
        yield np.concatenate(pieces)


def _no_checkpoint(source: str | Path, error: Exception) -> Problem:
    if isinstance(source, Path):
        return Problem(str(source), "must be a checkpoint that can be loaded", cause_of(error))
    value = "neither a local folder nor a repository on the Hub"
    repair = "Check the name, the network and your access."
    return Problem(source, "must be a checkpoint folder, a run or a Hub id", value, repair)


def _task_of(config: PreTrainedConfig, place: str) -> Task:
    """Return the task of an architecture.

    Several tasks may have architectures of the same name. Then the task whose main column is among the training columns
    is chosen, or else the one whose auto class builds such models.
    """
    names = config.architectures or ()
    tasks = [task for name in names for task in TASKS.values() if name.endswith(task.suffixes)]
    if not tasks:
        value = ", ".join(names) or "no architectures in its config"
        suffixes = " or ".join(dict.fromkeys(suffix for task in TASKS.values() for suffix in task.suffixes))
        raise InputError(Problem(place, f"must be a model whose class name ends in {suffixes}", value))
    columns = getattr(config, COLUMNS, None) or {}
    trained = [task for task in tasks if task.modality.main_column in columns]
    built = [task for task in tasks if type(config) in task.auto_class_of(config)._model_mapping]
    return (trained or built or tasks)[0]


def _target_of(config: PreTrainedConfig, task: Task) -> TargetName:
    """Return the label type of a model; a model of another program may not state that of its task."""
    target = get_target(config)
    return target if task.accepts(target) else task.targets[0]


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return class names made distinct by appending the index to duplicates (ImageNet has two classes ``crane``)."""
    count = Counter(names)
    return tuple(name if count[name] == 1 else f"{name} ({index})" for index, name in enumerate(names))

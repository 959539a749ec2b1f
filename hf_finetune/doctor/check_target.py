"""Models to check: a recipe's checkpoint with its head, or two tiny models; all with synthetic inputs."""

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pixels
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from hf_finetune.data.labels import Target, label_feature
from hf_finetune.data.prepare import LabelledData
from hf_finetune.errors import DataNotThere, InputError, Problem
from hf_finetune.models.build import BuiltModel
from hf_finetune.recipe import Recipe, parse_recipe
from hf_finetune.recipe.multitask import refuse_several
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.forward_check import try_forward
from hf_finetune.runs.prepare import data_at_hand, prepare_with
from hf_finetune.runs.prepared import PreparedRun
from hf_finetune.targets import TARGETS, SingleLabel
from hf_finetune.tasks import TASKS, Inputs
from hf_finetune.tasks.inputs import prepare_inputs

__all__ = ["CheckTarget", "load_check_target", "made_up_data", "tiny_recipes"]

EXAMPLES = 8
PIXELS = 64
WORDS = ("good", "great", "fine", "bad", "poor", "dull", "film", "plot", "the", "a")


@dataclass(frozen=True)
class CheckTarget:
    """Model to check, with synthetic inputs. The checks copy the model before they train it.

    Attributes:
        prepared: Recipe with its processor, its plan and the synthetic data.
        model: Model from the checkpoint, with the head for the recipe's labels; on the CPU, in fp32.
        inputs: Synthetic examples, with the recipe's preprocessing and augmentation.
        examples: The same examples, preprocessed once, so that random augmentation cannot change them.
        notes: Sentences on the loaded weights.
        unaccounted: Problems with missing or unexpected weights.
        remark: Note for the user, printed before the checks; may be empty.
    """

    prepared: PreparedRun
    model: PreTrainedModel
    inputs: Inputs
    examples: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]
    unaccounted: tuple[Problem, ...] = ()
    remark: str = ""


def load_check_target(recipe: Recipe, *, trust_remote_code: bool = False) -> CheckTarget:
    """Load a recipe's checkpoint and create synthetic inputs; the recipe's data is used only for the class names.

    Args:
        recipe: Recipe whose checkpoint to load.
        trust_remote_code: Whether code from the checkpoint may run.

    Raises:
        InputError: If the recipe does not fit the checkpoint, or the checkpoint cannot be read.
    """
    refuse_several(recipe, "doctor")
    modality = TASKS[recipe.task].modality
    data, remark = None, ""
    with suppress(DataNotThere):
        data = data_at_hand(recipe)
    if data is not None:
        target, names = data.target, data.label_names
    else:
        target = SingleLabel.name if recipe.data.target == "auto" else recipe.data.target
        names = ("label",) if not TARGETS[target].has_classes else ("0", "1")
        remark = f"The data {recipe.data.path!r} is not at hand: its labels are counted as {len(names)}."
    pair = recipe.data.columns.text_pair is not None
    synthetic = made_up_data(modality, target, names, pair=pair)
    prepared = prepare_with(_without_metrics(recipe), synthetic, trust_remote_code=trust_remote_code)
    built, unaccounted = _load(prepared)
    inputs = prepare_inputs(prepared.task, prepared.data, prepared.processor, recipe.data, recipe.seed)
    try_forward(built.model, prepared, inputs)
    examples = tuple(inputs.train[index] for index in range(EXAMPLES))
    return CheckTarget(prepared, built.model, inputs, examples, built.notes, unaccounted, remark)


def made_up_data(
    modality: Literal["image", "text"],
    target: Target,
    names: Sequence[str],
    *,
    words: int = 16,
    pair: bool = False,
) -> LabelledData:
    """Return 8 synthetic labeled examples: noise images of 64 x 64 pixels, or texts of common words.

    The examples are the same at every call.

    Args:
        modality: Kind of the inputs.
        target: Kind of the labels.
        names: Class names; one name for regression.
        words: Number of words of the longest text; the others have at least a fourth of it.
        pair: Whether an example is a pair of texts.
    """
    chance = random.Random(0)
    columns: dict[str, list[Any]] = {"id": [f"made-up:{index}" for index in range(EXAMPLES)]}
    features: dict[str, Any] = {"id": Value("string")}
    if modality == "image":
        size = (PIXELS, PIXELS)
        columns["image"] = [
            Pixels.frombytes("RGB", size, chance.randbytes(3 * PIXELS * PIXELS)) for _ in range(EXAMPLES)
        ]
        features["image"] = Image()
    for column in ("text", "text_pair") if modality == "text" else ():
        if column == "text" or pair:
            lengths = [words, *(chance.randint(max(words // 4, 1), words) for _ in range(EXAMPLES - 1))]
            columns[column] = [" ".join(chance.choices(WORDS, k=length)) for length in lengths]
            features[column] = Value("string")
    label: Any = chance.random if not TARGETS[target].has_classes else lambda: chance.randrange(len(names))
    columns["label"] = [
        [label()] if TARGETS[target].has_several_classes else label() for _ in range(EXAMPLES)
    ]
    features["label"] = label_feature(target, names)
    dataset = Dataset.from_dict(columns, Features(features))
    return LabelledData(dataset, None, None, target, tuple(names), (), "made up")


def tiny_recipes(folder: Path) -> tuple[Recipe, ...]:
    """Write two tiny checkpoints with random weights, and return a recipe for each.

    Args:
        folder: Folder for the checkpoints.

    Returns:
        Recipes of the image model and of the text model.
    """
    torch.manual_seed(0)
    _tiny_image_model().save_pretrained(folder / "tiny-resnet")
    _tiny_text_model().save_pretrained(folder / "tiny-bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokens = {word: index for index, word in enumerate(vocabulary)}
    BertTokenizerFast(vocab=tokens, model_max_length=32).save_pretrained(folder / "tiny-bert")
    stages = [
        {"name": "head", "train": "head", "epochs": 1, "lr": 1e-2},
        {"name": "all", "train": "all", "epochs": 1, "lr": 1e-3, "layer_decay": 0.9},
    ]
    tasks = {"image-classification": "tiny-resnet", "text-classification": "tiny-bert"}
    return tuple(
        parse_recipe(
            {"task": task, "model": str(folder / name), "data": str(folder / "none"), "stages": stages}
        )
        for task, name in tasks.items()
    )


def _load(prepared: PreparedRun) -> tuple[BuiltModel, tuple[Problem, ...]]:
    """Load the model, even if weights are missing or unexpected.

    Returns:
        The model, and the problems with its weights.
    """
    try:
        return load_pretrained(prepared), ()
    except InputError as error:
        spec = prepared.recipe.model.model_copy(update={"allow_missing": (".*",)})
        lenient = replace(prepared, recipe=prepared.recipe.model_copy(update={"model": spec}))
        return load_pretrained(lenient), error.problems


def _without_metrics(recipe: Recipe) -> Recipe:
    """Return a copy of the recipe without metrics, best checkpoints, early stopping and pruning.

    All but pruning need the real data, and pruning would change the checkpoint that is to be checked.
    """
    unasked = {"best": None, "early_stopping": None, "compress": None}
    stages = tuple(stage.model_copy(update=unasked) for stage in recipe.stages)
    return recipe.model_copy(update={"metrics": (), "stages": stages})


def _tiny_image_model() -> PreTrainedModel:
    known = timm.get_pretrained_cfg("test_resnet").to_dict()
    fields = {key: known[key] for key in ("mean", "std", "interpolation", "crop_pct")}
    fields["input_size"] = [3, 32, 32]
    config = TimmWrapperConfig(architecture="test_resnet", pretrained_cfg=fields, num_labels=2, model_args={})
    model = TimmWrapperForImageClassification(config)
    # timm's default initialization yields features, and so gradients, as small as rounding errors
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def _tiny_text_model() -> PreTrainedModel:
    config = BertConfig(
        vocab_size=len(WORDS) + 5,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=2,
    )
    return BertForSequenceClassification(config).eval()

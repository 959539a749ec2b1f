"""The benchmarks and their contenders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from benchmarks import recipes
from benchmarks.inputs import Inputs

__all__ = ["BENCHMARKS", "Benchmark", "Contender", "choose"]

FASTAI = ("fastai", "timm")
LIGHTNING = ("lightning", "finetuning_scheduler")
STOCK = "stock Trainer"
OURS = "hf-finetune"


@dataclass(frozen=True)
class Contender:
    """Contender of a benchmark.

    Attributes:
        group: Title of its table; the first contender of a group is the reference.
        name: Name in the table.
        module: Module of ``benchmarks.contenders``.
        work: Its settings, without seed, device and folder.
        about: Description in the table.
        needs: Modules that must be installed.
        processes: Number of processes.
        rounds: Maximum number of rounds; None is the number of the others.
    """

    group: str
    name: str
    module: str
    work: dict[str, Any]
    about: str = ""
    needs: tuple[str, ...] = ()
    processes: int = 1
    rounds: int | None = None


@dataclass(frozen=True)
class Benchmark:
    """Benchmark: contenders on the same task.

    Attributes:
        title: Heading in the results.
        about: Description in the results.
        contenders: Function that returns the contenders, from the inputs, the option ``quick`` and the device.
        needs_gpu: Whether the figures are meaningful only on a GPU.
        compares_accuracy: Whether the accuracy is meaningful; with random weights it is not.
    """

    title: str
    about: str
    contenders: Callable[[Inputs, bool, str], list[Contender]]
    needs_gpu: bool = False
    compares_accuracy: bool = True


def choose(names: Sequence[str], device: str) -> list[str]:
    """Return the names of the benchmarks to run, in their order.

    Args:
        names: Names as typed; empty for all that the device allows.
        device: ``cpu`` or ``cuda``.
    Raises:
        ValueError: If a name is unknown.
    """
    for name in names:
        if name not in BENCHMARKS:
            close = get_close_matches(name, BENCHMARKS, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"NAMES must be of {', '.join(BENCHMARKS)}. Got {name!r}. {hint}".rstrip())
    if names:
        return [name for name in BENCHMARKS if name in names]
    return [name for name, each in BENCHMARKS.items() if device == "cuda" or not each.needs_gpu]


def _images(inputs: Inputs, quick: bool) -> dict[str, Any]:
    return {
        "checkpoint": inputs.lite0(),
        "data": inputs.dishes(64, 32) if quick else inputs.dishes(),
        "image_size": 64 if quick else recipes.IMAGE_SIZE,
        "batch_size": recipes.BATCH_SIZE,
        "precision": "fp32",
    }


def _recipe_of(content: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe with the checkpoint and the data of the benchmark."""
    data = {**content["data"], "path": common["data"]}
    if "image_size" in data:
        data["image_size"] = common["image_size"]
    return {**content, "model": common["checkpoint"], "data": data}


def _stages(trained: Sequence[Any], epochs: Sequence[int], rates: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {"trained": what, "epochs": count, "lr": rate}
        for what, count, rate in zip(trained, epochs, rates, strict=False)
    ]


def _two_phase(
    group: str, common: dict[str, Any], recipe: dict[str, Any], epochs: Sequence[int]
) -> list[Contender]:
    """Return the four contenders for images."""
    both = ("head", "all")
    stock = {**common, "stages": _stages(both, epochs, recipes.STOCK_RATES)}
    lightning = {**common, "stages": _stages(both, epochs, recipes.LIGHTNING_RATES)}
    fastai = {**common, "epochs": list(epochs), "lr": recipes.FASTAI_RATE}
    stock_about = "one Trainer per phase; backbone frozen with `requires_grad` in the first phase"
    return [
        Contender(group, STOCK, "stock_images", stock, stock_about),
        Contender(
            *(group, "fastai", "fastai_images", fastai),
            "`fine_tune` on timm's model with fastai's own head",
            FASTAI,
            rounds=1,
        ),
        Contender(
            *(group, "Lightning", "lightning_images", lightning),
            "two phases with finetuning-scheduler",
            LIGHTNING,
            rounds=1,
        ),
        Contender(group, OURS, "ours", {"recipe": _recipe_of(recipe, common)}, "a recipe, run with `run`"),
    ]


def _head(inputs: Inputs, quick: bool, device: str) -> list[Contender]:
    common = _images(inputs, quick)
    epochs, longer = (2, 3) if quick else (recipes.HEAD_EPOCHS, recipes.LONG_HEAD_EPOCHS)
    made = _two_phase(f"{epochs} epochs", common, recipes.head_recipe(epochs), [epochs])
    more = _two_phase(f"{longer} epochs", common, recipes.head_recipe(longer), [longer])
    return made + [replace(each, rounds=1) for each in more if each.name in (STOCK, OURS)]


def _recipe(inputs: Inputs, quick: bool, device: str) -> list[Contender]:
    epochs = (2, 1) if quick else recipes.RECIPE_EPOCHS
    ours = f"{4 * epochs[0]}, then {3 * epochs[1]} of the last 4 layer groups"
    group = f"{epochs[0]} epochs of the head, {epochs[1]} of all layers (hf-finetune: {ours})"
    return _two_phase(group, _images(inputs, quick), recipes.two_stage_recipe(epochs), epochs)


def _vit(inputs: Inputs, quick: bool, device: str) -> list[Contender]:
    vit = recipes.VIT
    epochs = 2 if quick else vit["epochs"]
    common: dict[str, Any] = {
        "checkpoint": inputs.vit(vit["architecture"], vit["image_size"]),
        "data": inputs.dishes(32, 16) if quick else inputs.dishes(vit["train"], vit["evaluation"]),
        "image_size": vit["image_size"],
        "batch_size": recipes.BATCH_SIZE,
    }
    stages = _stages([vit["prefixes"]], [epochs], [vit["lr"]])
    made = []
    for precision in ("fp32", "bf16"):
        group = f"{precision}, {epochs} epochs"
        recipe = recipes.vit_recipe(epochs, precision, vit["image_size"])
        work = {**common, "precision": precision, "stages": stages}
        made += [
            Contender(group, STOCK, "stock_images", work, f"{precision}, the first layers frozen"),
            Contender(group, OURS, "ours", {"recipe": _recipe_of(recipe, common)}, precision),
        ]
    return made


def _sentiment(inputs: Inputs, quick: bool, device: str) -> list[Contender]:
    settings = recipes.SENTIMENT
    epochs = (1, 1) if quick else settings["epochs"]
    counts = (64, 32) if quick else (settings["train"], settings["evaluation"])
    common: dict[str, Any] = {
        "checkpoint": inputs.mini_lm(),
        "data": inputs.reviews(*counts),
        "max_length": settings["max_length"],
        "batch_size": recipes.BATCH_SIZE,
        "stages": _stages(("head", "all"), epochs, settings["rates"]),
    }
    group = f"{epochs[0]} epoch of the head, {epochs[1]} of all layers, {counts[0]} reviews, fp32"
    recipe = _recipe_of(recipes.sentiment_recipe(epochs), common)
    longest = f"{STOCK}, padded to {settings['max_length']}"
    return [
        Contender(group, longest, "stock_texts", {**common, "pad": "max_length"}, "`padding='max_length'`"),
        Contender(
            *(group, f"{STOCK}, padded to the batch", "stock_texts"),
            {**common, "pad": "batch"},
            "`DataCollatorWithPadding`",
        ),
        Contender(group, OURS, "ours", {"recipe": recipe}, "a recipe, run with `run`"),
    ]


def _scale(inputs: Inputs, quick: bool, device: str) -> list[Contender]:
    settings = recipes.SCALE
    sizes = (64, 128) if quick else settings["examples"]
    common = {
        **{key: settings[key] for key in ("epochs", "image_size", "lr")},
        "checkpoint": inputs.lite0(),
        "data": inputs.dishes(64, 32) if quick else inputs.dishes(),
        "batch_size": recipes.BATCH_SIZE,
    }
    made = []
    for processes in settings["processes"]:
        group = f"{processes} process{'es' if processes > 1 else ''}"
        work = {**common, "examples": sizes[0], "cached": False}
        name = f"uncached, {sizes[0]:,} examples"
        made.append(Contender(group, name, "scale", work, "no cache", processes=processes))
        made += [
            Contender(
                *(group, f"cached, {count:,} examples", "scale", {**work, "examples": count, "cached": True}),
                f"{count:,} rows of 5 KB",
                processes=processes,
                rounds=1 if count >= 100_000 else None,
            )
            for count in sizes
        ]
    return made


def _overhead(inputs: Inputs, quick: bool, device: str) -> list[Contender]:
    settings = {**recipes.OVERHEAD, **({"steps": 3, "warmup_steps": 1, "image_size": 64} if quick else {})}
    work = {**settings, "checkpoint": inputs.lite0(), "batch_size": recipes.BATCH_SIZE}
    group = f"{settings['steps']} steps of {recipes.BATCH_SIZE} images"
    bare, stock = "backward, clip, AdamW, schedule; nothing else", "the Trainer's loop"
    return [
        Contender(group, title, "overhead", {**work, "loop": loop, "keeps_memory": keeps}, about)
        for title, loop, keeps, about in (
            ("bare loop, keeping freed memory", "bare", True, bare),
            (f"{STOCK}, keeping freed memory", "stock", True, stock),
            (OURS, "staged", True, "`train_stage`, as called by `run`; keeps freed memory"),
            ("bare loop", "bare", False, bare),
            (STOCK, "stock", False, stock),
        )
    ]


def _classes(inputs: Inputs, quick: bool, device: str) -> list[Contender]:
    settings = recipes.CLASSES
    examples, counts = (32, (300,)) if quick else (settings["examples"], settings["classes"])
    common = {
        "examples": examples,
        "image_size": 64 if quick else settings["image_size"],
        "repeats": 1 if quick else settings["repeats"],
    }
    models = {
        "MiniLM, texts of 80 words": ("text", inputs.mini_lm(), inputs.reviews(examples, 1)),
        f"EfficientNet-lite0, {common['image_size']} pixels": ("image", inputs.lite0(), inputs.dishes()),
    }
    made = []
    for title, (modality, checkpoint, data) in models.items():
        for classes in counts:
            model = {"modality": modality, "checkpoint": checkpoint, "data": data, "classes": classes}
            made += [
                Contender(
                    *(f"{title}, {examples:,} examples", f"{what}, {classes:,} classes", "many_classes"),
                    {**common, **model, "what": what},
                )
                for what in ("evaluation", "prediction")
            ]
    return made


def _gpu(inputs: Inputs, quick: bool, device: str) -> list[Contender]:
    settings = dict(recipes.GPU)
    if quick:
        layers = {
            "num_hidden_layers": 2,
            "hidden_size": 64,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        }
        settings.update(
            {"batch_size": 4, "workers": 0, "steps": 3, "warmup_steps": 1, "matrix": 256, "tokens": 16},
            head_examples=16,
            head_epochs=2,
            config={"vit": {**layers, "image_size": 64}, "bert": {**layers, "vocab_size": 1000}},
            speed={"precision": "bf16"},
        )
    config = settings.pop("config")
    titles = {"vit": "ViT-B/16", "bert": "BERT-base"}
    parts = {"full": "all layers trained", "head": "head only"}
    return [
        Contender(
            f"{title}, {part_title}, bf16",
            name,
            "gpu",
            {**settings, "model": model, "config": config[model], "part": part, "loop": loop},
            {STOCK: "the Trainer's loop", OURS: "`train_stage`, as called by `run`"}[name],
        )
        for model, title in titles.items()
        for part, part_title in parts.items()
        for name, loop in ((STOCK, "stock"), (OURS, "staged"))
    ]


BENCHMARKS = {
    "head": Benchmark(
        "Head stage",
        "The head of EfficientNet-lite0 on the dishes, images of 128 pixels, evaluated after each epoch. The stock "
        "script, Lightning and hf-finetune have the same learning rate.",
        _head,
    ),
    "recipe": Benchmark(
        "Head, then more layers",
        "EfficientNet-lite0 on the dishes, images of 128 pixels, evaluated after each epoch. The numbers of epochs "
        "differ: the others train the head, then all layers; hf-finetune trains the head with SGD for four times as "
        "many epochs, then the last 4 layer groups for three times as many. Its stages and learning rates were chosen "
        "by trials on these images, and so was the learning rate of the stock script, which Lightning shares.",
        _recipe,
    ),
    "vit": Benchmark(
        "The last third of a ViT-S/16",
        "Random weights, dishes at 224 pixels. Both contenders of a table compute in "
        "the same precision, so the ratio shows the other gains.",
        _vit,
        compares_accuracy=False,
    ),
    "sentiment": Benchmark(
        "Sentiment of film reviews",
        "all-MiniLM-L6-v2, at most 128 tokens, evaluated after each epoch.",
        _sentiment,
    ),
    "scale": Benchmark(
        "Many cached examples",
        "The head of EfficientNet-lite0 with the prefix cache, on repeated dishes. Time per example of the epochs "
        "after the first; peak memory of process 0, minus that of the uncached run.",
        _scale,
    ),
    "overhead": Benchmark(
        "Overhead of the loop",
        "EfficientNet-lite0, all layers trained, images of 128 pixels in memory, fp32, channels last: the same "
        "kernels, batches and optimizer for all.",
        _overhead,
    ),
    "classes": Benchmark(
        "Many classes",
        "Random weights. Evaluation includes reading, prediction, all metrics, the intervals of two of them, "
        "calibration and writing the predictions; prediction includes reading files and writing a Parquet file. The "
        "forward pass of the same batches is timed alternately, in the same process.",
        _classes,
        compares_accuracy=False,
    ),
    "gpu": Benchmark(
        "On a GPU",
        "Random weights, and inputs in memory. The matrix rate is that of a bf16 matrix product, measured before each "
        "run in the same process.",
        _gpu,
        needs_gpu=True,
    ),
}

"""Bad inputs with several errors, which are all reported together, and paths that can only be local."""

from bad_input_case import Case
from bad_input_steps import do, write

__all__ = ["CASES"]

FIELDS = (
    "'name', 'train', 'epochs', 'max_steps', 'lr', 'optimizer', 'schedule', 'warmup', 'weight_decay', 'layer_decay', "
    "'batch_size', 'accumulation', 'clip', 'label_smoothing', 'balance', 'regularize', 'early_stopping', 'best', "
    "'carry_optimizer', 'teacher', 'fit', 'seeds', 'compress'"
)

CASES = [
    Case(
        "errors in a field, a value, two paths, a selector, a metric and an optimizer",
        "plan wrong.yaml",
        (
            "4 problems:\n"
            f"  stages[0].lerning_rate must be a known field. Known: {FIELDS}.\n"
            "  stages[1].epochs must be above 0. Got -1.\n"
            "  data.path must be a folder, a data file or a Hub id. Got './revews.csv'. Nearest: './reviews.csv'.\n"
            "  model.path must be a checkpoint: a folder with config.json, or a name on the Hub. Got './brt'. "
            "Nearest: './bert'.\n"
            "The remaining checks found 3 more problems:\n"
            "  stages[1].optimizer must be an optimizer that the Trainer supports. Got 'adamv'. Nearest: "
            "'adam'.\n"
            "  metrics[0] must be a metric. Got 'acuracy'. Nearest: 'accuracy'.\n"
            "  stages[0].train must be a valid selector. Got 'hed'. Nearest: 'head'. Valid: head, all, norms, biases, "
            "last:N, layers[A:B], /regular expression/."
        ),
        do(
            write(
                "wrong.yaml",
                "task: text-classification\nmodel: ./brt\ndata: ./revews.csv\nmetrics: acuracy\nstages:\n"
                "  - {train: hed, epochs: 1, lr: 1e-3, lerning_rate: 3}\n"
                "  - {train: all, epochs: -1, lr: 1e-3, optimizer: adamv}\n",
            )
        ),
    ),
    Case(
        "an invalid value, a selector without match, and invalid data",
        "run text.yaml stages.0.batch_size=0 stages.0.train=/encodr/",
        (
            "Problem:\n"
            "  stages[0].batch_size must be at least 1. Got 0.\n"
            "The remaining checks found 2 more problems:\n"
            "  train:0 must contain text. Got an empty text. Replace or remove it, or set data.on_error: "
            "skip.\n"
            "  stages[0].train must match at least one parameter. Got '/encodr/'. Nearest: 'encoder'."
        ),
        write("reviews.csv", "text,label\n,a\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(20))),
    ),
    Case(
        "a missing checkpoint of `make assets`",
        "plan text.yaml model=assets/all-MiniLM-L6-v2",
        (
            "Problem:\n"
            "  model.path must be a checkpoint: a folder with config.json, or a name on the Hub. Got "
            "'assets/all-MiniLM-L6-v2'. Run `make assets` in the checkout of hf-finetune."
        ),
    ),
    Case(
        "a path to a missing checkpoint inside an existing folder",
        "plan text.yaml model=photos/nothing",
        (
            "Problem:\n"
            "  model.path must be a checkpoint: a folder with config.json, or a name on the Hub. Got "
            "'photos/nothing'. There is no such folder."
        ),
    ),
    Case(
        "a plan with missing data",
        "plan text.yaml data.path=./revews.csv",
        (
            "Problem:\n"
            "  data.path must be a folder, a data file or a Hub id. Got './revews.csv'. Nearest: './reviews.csv'."
        ),
    ),
    Case(
        "a misspelled suffix of a data file, and a misspelled selector",
        "plan text.yaml data.path=reviews.cvs stages.0.train=hed",
        (
            "Problem:\n"
            "  data.path must be a folder, a data file or a Hub id. Got 'reviews.cvs'. Nearest: './reviews.csv'.\n"
            "The remaining checks found 1 more problem:\n"
            "  stages[0].train must be a valid selector. Got 'hed'. Nearest: 'head'. Valid: head, all, norms, biases, "
            "last:N, layers[A:B], /regular expression/."
        ),
    ),
    Case(
        "a missing data folder whose name has the form of a Hub id, and a misspelled selector",
        "plan recipe.yaml data.path=photoz stages.0.train=hed",
        (
            "2 problems:\n"
            "  data.path must be local if the Hub cannot be reached. Got 'photoz'. Nearest: './photos'. "
            "Check the path, or connect to the Hub and try again.\n"
            "  stages[0].train must be a valid selector. Got 'hed'. Nearest: 'head'. Valid: head, all, norms, "
            "biases, last:N, layers[A:B], /regular expression/."
        ),
    ),
    Case(
        "prediction with a local model path that does not exist",
        "predict assets/nothing text",
        "Problem:\n  assets/nothing must be a checkpoint folder, a run or a Hub id. Got a path that does "
        "not exist.",
    ),
]

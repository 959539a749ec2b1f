"""Bad inputs: domain adaptation."""

from bad_input_case import RECIPE, TEXT_RECIPE, Case
from bad_input_steps import copy, do, rows, write

__all__ = ["CASES"]


def adapting(recipe: str, fields: str, train: str = "head") -> str:
    """Write a recipe with domain adaptation and a stage."""
    return recipe.replace("train: head", f"train: {train}") + f"domain_adaptation: {{{fields}}}\n"


def images(fields: str, train: str = "'last:1'") -> str:
    return adapting(RECIPE, fields, train)


def texts(fields: str, train: str = "'last:1'") -> str:
    return adapting(TEXT_RECIPE, fields, train)


CASES = [
    Case(
        "a misspelled method of domain adaptation",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  domain_adaptation.method must be 'continue_pretraining', 'coral' or 'dann'. Got 'corral'. "
            "Nearest: 'coral'."
        ),
        write("recipe.yaml", images("target: ./photos/tea, method: corral")),
    ),
    Case(
        "a misspelled path of the target domain",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  domain_adaptation.target must be a folder, a data file or a Hub id. Got './photoz/tea'. "
            "Nearest: './photos'."
        ),
        write("recipe.yaml", images("target: ./photoz/tea, method: coral")),
    ),
    Case(
        "an unreadable image of the target domain",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  domain_adaptation.target, cut.png must contain a readable image. Got a file in an unknown format. "
            "Replace or remove it, or set data.on_error: skip."
        ),
        do(
            copy("photos/tea", "drawings"),
            write("drawings/cut.png", "no image"),
            write("recipe.yaml", images("target: ./drawings, method: dann")),
        ),
    ),
    Case(
        "a target domain without texts",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  domain_adaptation.target, data.columns.text must be set, because no column looks like texts. "
            "Got columns 'stars', 'year'. Set data.columns.text to one of them."
        ),
        do(
            rows("films.csv", "stars,year", "1,1999"),
            write("recipe.yaml", texts("target: ./films.csv, method: dann")),
        ),
    ),
    Case(
        "text pairs in the target domain of a model for single texts",
        "run recipe.yaml",
        (
            "Problem:\n  domain_adaptation.target must have the input columns of the training data: text. "
            "Got text and text_pair."
        ),
        do(
            rows("films.csv", "premise,hypothesis", "a film,a plot", "a plot,no end"),
            write("recipe.yaml", texts("target: ./films.csv, method: dann")),
        ),
    ),
    Case(
        "`coral` with a stage that trains only the head",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  stages must train layers below the head for coral. Add a stage that trains them, for "
            "example train: last:1."
        ),
        write("recipe.yaml", images("target: ./photos/tea, method: coral", "head")),
    ),
    Case(
        "an unknown stage in `domain_adaptation.stages`",
        "run recipe.yaml",
        ("Problem:\n  domain_adaptation.stages[0] must be the name of a stage. Got 'haed'. Nearest: 'head'."),
        write("recipe.yaml", images("target: ./photos/tea, method: dann, stages: [haed]")),
    ),
    Case(
        "`weight` with `continue_pretraining`",
        "run recipe.yaml",
        ("Problem:\n  domain_adaptation.weight must not be set unless method is coral or dann. Got 0.5."),
        write("recipe.yaml", images("target: ./photos/tea, method: continue_pretraining, weight: 0.5")),
    ),
    Case(
        "an adapter with `continue_pretraining`",
        "run recipe.yaml 'model={path: ./bert, adapter: lora}' stages.0.train=lora",
        (
            "Problem:\n"
            "  model.adapter must not be set when domain_adaptation.method is continue_pretraining. "
            "An adapter requires the checkpoint's original weights. Remove the adapter, or use coral "
            "or dann."
        ),
        write("recipe.yaml", texts("target: ./reviews.csv, method: continue_pretraining")),
    ),
    Case(
        "`coral` with `compile: true`",
        "run recipe.yaml speed.compile=true",
        (
            "Problem:\n"
            "  speed.compile must not be true when domain_adaptation.method is coral. Got true. The "
            "method reads features inside the forward pass. Set it to false."
        ),
        write("recipe.yaml", images("target: ./photos/tea, method: coral")),
    ),
]

"""Bad inputs: what is to be evaluated or predicted, and commands that do not exist."""

from bad_input_case import Case
from bad_input_steps import change, config, copy, cut, delete, do, rows, write

__all__ = ["CASES"]

CASES = [
    Case("a model to evaluate that is not there", "evaluate ./runn", "TODO"),
    Case("a folder to evaluate that is no model", "evaluate photos", "TODO"),
    Case("a file to evaluate", "evaluate run/model/config.json", "TODO"),
    Case("a run to evaluate that is not finished", "evaluate run", "TODO", delete("run/model")),
    Case("a checkpoint to evaluate without data", "evaluate vit", "TODO"),
    Case("a checkpoint to evaluate that is no classifier", "evaluate vit --data photos", "TODO", config("vit/config.json", architectures=["ViTModel"])),
    Case("a run to evaluate whose weights are truncated", "evaluate run", "TODO", cut("run/model/model.safetensors", 9000)),
    Case("a run to evaluate whose data has moved", "evaluate run", "TODO", delete("photos")),
    Case("labels that the model does not know", "evaluate run --data fresh", "TODO", do(copy("photos/tea", "fresh/teas"), copy("photos/soup", "fresh/pizza"))),
    Case("texts for a model of images", "evaluate run --data reviews.csv", "TODO"),
    Case("a split that the run lacks", "evaluate run --split dev", "TODO"),
    Case("a split that the data lacks", "evaluate run --data photos --split test", "TODO"),
    Case("a batch size of 0", "evaluate run --batch-size 0", "TODO"),
    Case("a model to predict with that is not there", "predict ./runn photos", "TODO"),
    Case("an image to predict that is not there", "predict run photos/tea/9.png photos/tea/0.png", "TODO"),
    Case(
        "a damaged image among those to predict",
        "predict run photos/tea --output found.csv",
        "TODO",
        write("photos/tea/3.png", "no image"),
        partial="found.csv",
    ),
    Case("a table to predict that is not there", "predict run images.csv", "TODO"),
    Case("a table to predict without an image column", "predict run images.csv", "TODO", rows("images.csv", "a,b", "1,2")),
    Case("a folder to predict without images", "predict run vit", "TODO"),
    Case("predictions of an unknown format", "predict run photos --output found.txt", "TODO"),
    Case("predictions into a folder that is not there", "predict run photos --output out/found.csv", "TODO"),
    Case("a shipped recipe that is not there", "recipes show imdb-brt", "TODO"),
    Case("a copy over a file that is there", "recipes copy quickstart recipe.yaml", "TODO"),
    Case("an unknown command", "trian recipe.yaml", "TODO"),
    Case("an unknown option", "run recipe.yaml --output new", "TODO"),
    Case("a command without its recipe", "run", "TODO"),
]

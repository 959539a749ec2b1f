"""Bad inputs: models and inputs of ``evaluate`` and ``predict``, and commands that do not exist."""

from pathlib import Path

from bad_input_case import Case
from bad_input_steps import config, copy, cut, delete, do, rows, write

__all__ = ["CASES"]


def edited(pattern: str):
    """Change the files of images, but not their pixels."""

    def step(folder: Path) -> None:
        for file in sorted((folder / "photos").glob(pattern)):
            file.write_bytes(file.read_bytes() + b"edited")

    return step


CASES = [
    Case(
        "evaluation of a model that does not exist",
        "evaluate ./runn",
        (
            "Problem:\n  ./runn must be a checkpoint folder, a run or a Hub id. Got a path that does not exist."
        ),
    ),
    Case(
        "evaluation of a folder without a model",
        "evaluate photos",
        (
            "Problem:\n"
            "  photos must be a checkpoint folder, a run or a Hub id. Got a folder with neither "
            "config.json nor model/config.json."
        ),
    ),
    Case(
        "evaluation of a file",
        "evaluate run/model/config.json",
        (
            "Problem:\n"
            "  run/model/config.json must be a checkpoint folder, a run or a Hub id. Got a file. "
            "Use the folder that contains it."
        ),
    ),
    Case(
        "evaluation of an unfinished run",
        "evaluate run",
        (
            "Problem:\n"
            "  run is a run that is not finished. Got no run/model. Finish the run: hf-finetune run "
            "run/recipe.yaml --output-dir run --resume."
        ),
        delete("run/model"),
    ),
    Case(
        "evaluation of a checkpoint without `--data`",
        "evaluate vit",
        ("Problem:\n  --data is required unless the model is a run. Only a run records its data."),
    ),
    Case(
        "evaluation of a checkpoint that is not a classifier",
        "evaluate vit --data photos",
        (
            "Problem:\n"
            "  vit must be a model whose class name ends in ForImageClassification or "
            "ForSequenceClassification or ForAudioClassification or ForConditionalGeneration or ForSpeechSeq2Seq or "
            "ForCTC or ForMaskedLM or ForPrediction. Got ViTModel."
        ),
        config("vit/config.json", architectures=["ViTModel"]),
    ),
    Case(
        "evaluation of a run with truncated weights",
        "evaluate run",
        ("Problem:\n  run/model contains a damaged or truncated weight file. Download or copy it again."),
        cut("run/model/model.safetensors", 9000),
    ),
    Case(
        "evaluation of a run whose data has been moved",
        "evaluate run",
        (
            "Problem:\n"
            "  data.path must be a folder, a data file or a Hub id. Got './photos'. '.' contains no "
            "file or folder with this name."
        ),
        delete("photos"),
    ),
    Case(
        "new images in the data since the run",
        "evaluate run",
        (
            "The data has changed since the run. The examples of the run's test split are identified by "
            "their content: all 3. 2 new examples are ignored; use --data to include them."
        ),
        do(
            *(copy(f"photos/{name}/5.png", f"photos/{name}/00.png") for name in ("soup", "tea")),
            edited("*/00.png"),
        ),
        code=0,
    ),
    Case(
        "test examples removed from the data since the run",
        "evaluate run",
        (
            "The data has changed since the run. The examples of the run's test split are identified by "
            "their content: 2 of 3; the rest was removed or edited."
        ),
        delete("photos/tea/0.png", "photos/tea/1.png", "photos/tea/2.png"),
        code=0,
    ),
    Case(
        "all images of the data edited since the run",
        "evaluate run",
        (
            "Problem:\n"
            "  The data contains none of the 3 examples of the run's test split. Restore the data "
            "of the run, or evaluate on other data with --data."
        ),
        edited("*/*.png"),
    ),
    Case(
        "changed data of a run without examples.npz",
        "evaluate run",
        (
            "Problem:\n"
            "  The data has changed since the run, which stores no examples.npz to identify its examples. "
            "Restore the data of the run, or evaluate on other data with --data."
        ),
        do(delete("run/examples.npz"), copy("photos/tea/5.png", "photos/tea/00.png")),
    ),
    Case(
        "labels of unknown classes",
        "evaluate run --data fresh",
        (
            "2 problems:\n"
            "  Label 'pizza' in 'pizza/0.png', 'pizza/1.png', 'pizza/2.png', 'pizza/3.png', 'pizza/4.png', "
            "'pizza/5.png' must be a class of the model. Known: 'cake', 'soup', 'tea'.\n"
            "  Label 'teas' in 'teas/0.png', 'teas/1.png', 'teas/2.png', 'teas/3.png', 'teas/4.png', "
            "'teas/5.png' must be a class of the model. Nearest: 'tea'."
        ),
        do(copy("photos/tea", "fresh/teas"), copy("photos/soup", "fresh/pizza")),
    ),
    Case(
        "texts for an image model",
        "evaluate run --data reviews.csv",
        (
            "Problem:\n"
            "  data.columns.image must be set, because no column looks like images. Got columns 'text', "
            "'label'. Set data.columns.image to one of them."
        ),
    ),
    Case(
        "a split that the run does not have",
        "evaluate run --split dev",
        ("Problem:\n  --split must be a split of the run. Got 'dev'. Known: 'train', 'validation', 'test'."),
    ),
    Case(
        "a split that the data does not have",
        "evaluate run --data photos --split test",
        "Problem:\n  The split must exist in the data. Got 'test'. Known: 'train'.",
    ),
    Case(
        "a batch size of 0",
        "evaluate run --batch-size 0",
        (
            "Usage: hf-finetune evaluate [OPTIONS] {MODEL_OR_RUN}\n"
            "Try 'hf-finetune evaluate --help' for help.\n"
            "\n"
            "Error: Invalid value for '--batch-size': Input should be greater than or equal to 1"
        ),
    ),
    Case(
        "prediction with a model that does not exist",
        "predict ./runn photos",
        (
            "Problem:\n  ./runn must be a checkpoint folder, a run or a Hub id. Got a path that does not exist."
        ),
    ),
    Case(
        "prediction for an image that does not exist",
        "predict run photos/tea/9.png photos/tea/0.png",
        (
            "1 input could not be read; the output contains the errors:\n"
            "  photos/tea/9.png: The image cannot be read. FileNotFoundError: [Errno 2] No such "
            "file or directory: 'photos/tea/9.png'."
        ),
    ),
    Case(
        "prediction for a folder with a damaged image",
        "predict run photos/tea --output found.csv",
        (
            "5 predictions are in found.csv.\n"
            "1 input could not be read; the output contains the errors:\n"
            "  photos/tea/3.png: The image cannot be read. It is a file in an unknown format."
        ),
        write("photos/tea/3.png", "no image"),
        partial="found.csv",
    ),
    Case(
        "prediction for a table that does not exist",
        "predict run images.csv",
        ("Problem:\n  images.csv does not exist."),
    ),
    Case(
        "prediction for a table without an image column",
        "predict run images.csv",
        (
            "Problem:\n"
            "  images.csv must have the column 'image', which the model was trained on. Got columns 'a', "
            "'b'. Rename the column with the images, or set --column image=NAME."
        ),
        rows("images.csv", "a,b", "1,2"),
    ),
    Case(
        "prediction for a folder without images",
        "predict run vit",
        ("Problem:\n  vit contains no images at any depth."),
    ),
    Case(
        "an output file in an unknown format",
        "predict run photos --output found.txt",
        ("Problem:\n  --output must end in .csv, .jsonl or .parquet. Got 'found.txt'."),
    ),
    Case(
        "an output folder that does not exist",
        "predict run photos --output out/found.csv",
        ("Problem:\n  --output must be in a folder that exists. Got 'out/found.csv'."),
    ),
    Case(
        "an unknown shipped recipe",
        "recipes show imdb-brt",
        (
            "Problem:\n"
            "  'imdb-brt' must be a recipe file or the name of a shipped recipe. Nearest: "
            "'text/imdb-bert'."
        ),
    ),
    Case(
        "a copy to an existing file",
        "recipes copy quickstart recipe.yaml",
        ("Problem:\n  recipe.yaml must not exist. Existing files are not overwritten. Choose another name."),
    ),
    Case(
        "an unknown command",
        "trian recipe.yaml",
        (
            "Usage: hf-finetune [OPTIONS] COMMAND [ARGS]...\n"
            "Try 'hf-finetune --help' for help.\n"
            "\n"
            "Error: No such command 'trian'."
        ),
    ),
    Case(
        "an unknown option",
        "run recipe.yaml --output new",
        (
            "Usage: hf-finetune run [OPTIONS] [RECIPE] [[KEY=VALUE]...]...\n"
            "Try 'hf-finetune run --help' for help.\n"
            "\n"
            "Error: No such option: --output (Possible options: --output-dir)"
        ),
    ),
    Case(
        "a run without a recipe and without data",
        "run",
        "Problem:\n  RECIPE must be set. Name a recipe, or set --data.",
    ),
    Case(
        "a command without its recipe",
        "plan",
        (
            "Usage: hf-finetune plan [OPTIONS] {RECIPE} [[KEY=VALUE]...]...\n"
            "Try 'hf-finetune plan --help' for help.\n"
            "\n"
            "Error: Missing argument 'RECIPE'."
        ),
    ),
]

"""Bad inputs: recipes, their overrides, and what only the data or the checkpoint can tell of them."""

from bad_input_case import RECIPE, Case
from bad_input_steps import change, text, write

__all__ = ["CASES"]

CASES = [
    Case("a recipe's path with a typing error", "run recip.yaml", "TODO"),
    Case("a shipped recipe's name with a typing error", "run quikstart", "TODO"),
    Case("a folder for a recipe", "run photos", "TODO"),
    Case("an empty recipe", "run recipe.yaml", "TODO", write("recipe.yaml", "")),
    Case("a recipe that is a list", "run recipe.yaml", "TODO", write("recipe.yaml", "- task\n- model\n")),
    Case("a recipe in Latin-1", "run recipe.yaml", "TODO", write("recipe.yaml", "# Süßes\n".encode("latin-1"))),
    Case(
        "YAML with an open bracket",
        "run recipe.yaml",
        "TODO",
        change("recipe.yaml", "lr: 1e-2}", "lr: 1e-2"),
    ),
    Case("YAML indented with a tab", "run recipe.yaml", "TODO", change("recipe.yaml", "  - {", "\t- {")),
    Case(
        "layers[1:] without quotes",
        "run recipe.yaml",
        "TODO",
        change("recipe.yaml", "train: head", "train: layers[1:]"),
    ),
    Case("a key that is there twice", "run recipe.yaml", "TODO", text("recipe.yaml", "{}seed: 1\nmodel: ./bert\n")),
    Case("a recipe with nothing but its task", "run recipe.yaml", "TODO", write("recipe.yaml", RECIPE.split("model")[0])),
    Case(
        "misspelt fields, on two levels",
        "run recipe.yaml",
        "TODO",
        write("recipe.yaml", RECIPE.replace("epochs", "epocs").replace("stages", "seeds: 1\nstages")),
    ),
    Case(
        "values of the wrong type",
        "run recipe.yaml stages.0.lr=fast stages.0.batch_size='\"16\"' data.split.stratify=1 model=3",
        "TODO",
    ),
    Case(
        "values out of their range",
        "run recipe.yaml seed=-1 stages.0.lr=0 stages.0.label_smoothing=1 stages.0.batch_size=0 stages.0.warmup=1.5",
        "TODO",
    ),
    Case("an unknown task", "run recipe.yaml task=image-clasification", "TODO"),
    Case("no stages", "run recipe.yaml stages=[]", "TODO"),
    Case("epochs and max_steps together", "run recipe.yaml stages.0.max_steps=5", "TODO"),
    Case("neither epochs nor max_steps", "run recipe.yaml stages.0.epochs=", "TODO"),
    Case(
        "two stages that are the same, of the same name",
        "run recipe.yaml",
        "TODO",
        text("recipe.yaml", "{}  - {{name: head, train: head, epochs: 1, lr: 1e-2}}\n"),
    ),
    Case("splits that take everything", "run recipe.yaml data.split.validation=0.5 data.split.test=0.5", "TODO"),
    Case("image fields for texts", "run text.yaml data.image_size=32 data.augment=strong", "TODO"),
    Case(
        "arguments that are fields of the stage",
        "run recipe.yaml stages.0.optimizer.args.lr=1 stages.0.schedule.power=2",
        "TODO",
    ),
    Case("early stopping that may not look", "run recipe.yaml stages.0.early_stopping=2 stages.0.best=", "TODO"),
    Case("a broken regular expression", "run recipe.yaml model.allow_missing='[(head]'", "TODO"),
    Case("an override without =", "run recipe.yaml seed", "TODO"),
    Case("an override of an unknown field", "run recipe.yaml stages.0.learning_rate=0.1", "TODO"),
    Case("an override of a stage that is not there", "run recipe.yaml stages.1.lr=0.1", "TODO"),
    Case("an override that is not YAML", "run recipe.yaml 'stages.0.train=[head'", "TODO"),
    Case(
        "mistakes in the file, in an override and between fields, all at once",
        "run recipe.yaml seed=one data.pth=./photos stages.0.max_steps=3",
        "TODO",
        text("recipe.yaml", "{}speed: {{precision: fp8}}\nseed: 1\nseed: 2\n"),
    ),
    Case("a selector with a typing error", "run recipe.yaml stages.0.train=haed", "TODO"),
    Case("a selector that matches nothing", "run recipe.yaml stages.0.train=/encodr/", "TODO"),
    Case("a selector that is no regular expression", "run recipe.yaml stages.0.train='/layer[/'", "TODO"),
    Case("more layer groups than the model has", "run recipe.yaml stages.0.train=last:9", "TODO"),
    Case("a layer group that the model lacks", "run recipe.yaml 'stages.0.train=\"layers[7]\"'", "TODO"),
    Case("an optimizer with a typing error", "run recipe.yaml stages.0.optimizer=adamv", "TODO"),
    Case("an optimizer that takes no parameter groups", "run recipe.yaml stages.0.optimizer=galore_adamw", "TODO"),
    Case(
        "an argument that the optimizer lacks",
        "run recipe.yaml --output-dir new 'stages.0.optimizer={name: sgd, args: {momentun: 0.9}}'",
        "TODO",
    ),
    Case("an optimizer of a package that is not installed", "run recipe.yaml --output-dir new stages.0.optimizer=adamw_bnb_8bit", "TODO"),
    Case("a metric with a typing error", "run recipe.yaml 'metrics=[acuracy]'", "TODO"),
    Case("a metric of another target", "run recipe.yaml 'metrics=[accuracy, mae]' stages.0.best=rmse", "TODO"),
    Case("a best metric without a validation split", "run recipe.yaml data.split.validation=0 stages.0.best=accuracy", "TODO"),
    Case("early stopping without a validation split", "run recipe.yaml data.split.validation=0 stages.0.early_stopping=2", "TODO"),
    Case(
        "label smoothing for amounts",
        "run text.yaml data=amounts.csv stages.0.label_smoothing=0.1",
        "TODO",
        write("amounts.csv", "text,label\n" + "".join(f"the film {n},{n / 8}\n" for n in range(24))),
    ),
    Case(
        "a stage, the data and the checkpoint wrong together",
        "run recipe.yaml data.path=./photo model=./vitt stages.0.optimizer=adamv",
        "TODO",
    ),
    Case("a plan of a selector that matches nothing", "plan recipe.yaml stages.0.train=/encodr/", "TODO"),
]

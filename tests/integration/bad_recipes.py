"""Bad inputs: recipes and their overrides."""

from bad_input_case import RECIPE, Case
from bad_input_steps import change, text, write

from hf_finetune.tasks import TASKS

__all__ = ["CASES"]

KNOWN_FIELDS = (
    "Known: 'task', 'model', 'data', 'stages', 'strategy', 'domain_adaptation', 'metrics', 'evaluation', 'limit', "
    "'speed', 'track', 'seed', 'publish', 'search'."
)

CASES = [
    Case(
        "a misspelled recipe path",
        "run recip.yaml",
        ("Problem:\n  recip.yaml must exist. Nearest: 'recipe.yaml'."),
    ),
    Case(
        "a misspelled name of a shipped recipe",
        "run quikstart",
        (
            "Problem:\n"
            "  'quikstart' must be a recipe file or the name of a shipped recipe. Nearest: "
            "'quickstart'."
        ),
    ),
    Case(
        "a time limit with an unknown unit",
        "run recipe.yaml --time 20min",
        (
            "Problem:\n"
            "  limit.time must be a duration above 0, with units d, h, m, s, or a number of seconds. Got '20min'. For "
            "example 90s, 20m, 1h30m."
        ),
    ),
    Case(
        "a time limit of 0",
        "run recipe.yaml limit=0",
        (
            "Problem:\n"
            "  limit.time must be a duration above 0, with units d, h, m, s, or a number of seconds. Got 0. For "
            "example 90s, 20m, 1h30m."
        ),
    ),
    Case(
        "a folder instead of a recipe",
        "run photos",
        ("Problem:\n  photos must be a recipe file. Got a folder. It contains no recipe."),
    ),
    Case(
        "an empty recipe",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  recipe.yaml must contain a recipe. Got an empty file. Start with the fields task, model, "
            "data and stages."
        ),
        write("recipe.yaml", ""),
    ),
    Case(
        "a recipe with thousands of unknown fields",
        "run recipe.yaml",
        (
            "2,000 problems:\n"
            + "".join(f"  field{index} must be a known field. {KNOWN_FIELDS}\n" for index in range(20))
            + "  ... and 1,980 more."
        ),
        write("recipe.yaml", RECIPE + "".join(f"field{index}: 1\n" for index in range(2000))),
    ),
    Case(
        "a recipe that is a list",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  recipe.yaml must contain a mapping of fields. Got ['task', 'model']. Start with the fields "
            "task, model, data and stages."
        ),
        write("recipe.yaml", "- task\n- model\n"),
    ),
    Case(
        "a recipe in Latin-1",
        "run recipe.yaml",
        ("Problem:\n  recipe.yaml must be UTF-8 text. Got byte 0xfc at offset 3. Save it again as UTF-8."),
        write("recipe.yaml", "# Süßes\n".encode("latin-1")),
    ),
    Case(
        "YAML with an open bracket",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  recipe.yaml, line 5, column 5 must be valid YAML. Got '- {name: head, train: head, "
            "epochs: 1, lr: 1e-2'. YAML parser error: while parsing a flow mapping, expected ',' "
            "or '}', but got '<stream end>'."
        ),
        change("recipe.yaml", "lr: 1e-2}", "lr: 1e-2"),
    ),
    Case(
        "YAML indented with a tab",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  recipe.yaml, line 5, column 1 must be valid YAML. Got '- {name: head, train: head, "
            "epochs: 1, lr: 1e-2}'. Indent with spaces, not tabs."
        ),
        change("recipe.yaml", "  - {", "\t- {"),
    ),
    Case(
        "layers[1:] without quotes",
        "run recipe.yaml",
        (
            "Problem:\n"
            "  recipe.yaml, line 5, column 31 must be valid YAML. Got '- {name: head, train: "
            "layers[1:], epochs: 1, lr: 1e-2}'. Inside [] and {}, put a selector such as "
            "layers[8:] in quotes."
        ),
        change("recipe.yaml", "train: head", "train: layers[1:]"),
    ),
    Case(
        "a duplicate key",
        "run recipe.yaml",
        ("Problem:\n  recipe.yaml, line 7 must not repeat the key 'model' of line 2. Keep one of them."),
        text("recipe.yaml", "{}seed: 1\nmodel: ./bert\n"),
    ),
    Case(
        "a recipe with only the field task",
        "run recipe.yaml",
        (
            "3 problems:\n"
            "  model must be set. Pretrained checkpoint: a Hub id or a local folder.\n"
            "  data must be set. Labeled data: a Hub id, a table or a folder.\n"
            "  stages must be set. Write a list of stages, or set strategy to gradual_unfreeze or "
            "features."
        ),
        write("recipe.yaml", RECIPE.split("model")[0]),
    ),
    Case(
        "misspelled fields at two levels",
        "run recipe.yaml",
        (
            "3 problems:\n"
            "  stages[0].epocs must be a known field. Nearest: 'epochs'.\n"
            "  seeds must be a known field. Nearest: 'seed'.\n"
            "  stages[0] must have either epochs (passes over the training split) or max_steps "
            "(optimizer steps). Got neither."
        ),
        write("recipe.yaml", RECIPE.replace("epochs", "epocs").replace("stages", "seeds: 1\nstages")),
    ),
    Case(
        "values of the wrong type",
        "run recipe.yaml stages.0.lr=fast stages.0.batch_size='\"16\"' data.split.stratify=1 model=3",
        (
            "4 problems:\n"
            "  model.path must be text. Got 3. Put it in quotes.\n"
            "  data.split.stratify must be true or false. Got 1.\n"
            "  stages[0].lr must be a number. Got 'fast'.\n"
            "  stages[0].batch_size must be a whole number. Got '16'. Remove the quotes."
        ),
    ),
    Case(
        "values out of their range",
        "run recipe.yaml seed=-1 stages.0.lr=0 stages.0.label_smoothing=1 stages.0.batch_size=0 "
        "stages.0.warmup=1.5",
        (
            "5 problems:\n"
            "  stages[0].lr must be above 0. Got 0.\n"
            "  stages[0].warmup must be a whole number of steps, or a fraction below 1 of the stage's "
            "steps. Got 1.5.\n"
            "  stages[0].batch_size must be at least 1. Got 0.\n"
            "  stages[0].label_smoothing must be below 1. Got 1.\n"
            "  seed must be at least 0. Got -1."
        ),
    ),
    Case(
        "an unknown task",
        "run recipe.yaml task=image-clasification",
        (
            "Problem:\n"
            f"  task must be {', '.join(map(repr, [*TASKS][:-1]))} or {[*TASKS][-1]!r}. Got "
            "'image-clasification'. Nearest: 'image-classification'."
        ),
    ),
    Case("no stages", "run recipe.yaml stages=[]", ("Problem:\n  stages must not be empty. Got [].")),
    Case(
        "epochs and max_steps together",
        "run recipe.yaml stages.0.max_steps=5",
        (
            "Problem:\n"
            "  stages[0] must have either epochs (passes over the training split) or max_steps "
            "(optimizer steps). Got epochs 1 and max_steps 5."
        ),
    ),
    Case(
        "neither epochs nor max_steps",
        "run recipe.yaml stages.0.epochs=",
        (
            "Problem:\n"
            "  stages[0] must have either epochs (passes over the training split) or max_steps "
            "(optimizer steps). Got neither."
        ),
    ),
    Case(
        "two identical stages",
        "run recipe.yaml",
        (
            "2 problems:\n"
            "  stages[1].name must be unique. Got 'head'. stages[0] already has this name.\n"
            "  stages[1] must differ from the previous stage. Got 'head'. Increase the epochs of the previous "
            "stage, or change this one."
        ),
        text("recipe.yaml", "{}  - {{name: head, train: head, epochs: 1, lr: 1e-2}}\n"),
    ),
    Case(
        "validation and test fractions that sum to 1",
        "run recipe.yaml data.split.validation=0.5 data.split.test=0.5",
        (
            "Problem:\n"
            "  data.split must have validation + test below 1. Got 0.5 + 0.5. The rest is used for "
            "training."
        ),
    ),
    Case(
        "image fields in a text recipe",
        "run text.yaml data.image_size=32 data.augment=strong",
        (
            "2 problems:\n"
            "  data.image_size must not be set when the task is text-classification. Got 32.\n"
            "  data.augment must not be set when the task is text-classification. Got 'strong'. It "
            "applies to images; for texts, use mask and drop."
        ),
    ),
    Case(
        "word dropout in an image recipe",
        "run recipe.yaml data.augment.drop=0.1",
        (
            "Problem:\n"
            "  data.augment.drop must not be set when the task is image-classification. Got 0.1. It "
            "applies to texts; for images, use a preset, erase and transforms."
        ),
    ),
    Case(
        "misspelled transforms",
        "run recipe.yaml 'data.augment={transforms: [RandomRotate, {name: RandomRotation, args: {degree: 20}}]}'",
        (
            "2 problems:\n"
            "  data.augment.transforms[0].name must be a supported transform of torchvision or timm for "
            "single images. Got 'RandomRotate'. Nearest: 'RandomRotation'.\n"
            "  data.augment.transforms[1].args.degree must be an argument of RandomRotation. Got 20. "
            "Nearest: 'degrees'."
        ),
    ),
    Case(
        "a transform that needs larger images",
        "run recipe.yaml 'data.augment={transforms: [{name: RandomCrop, args: {size: 64}}]}'",
        (
            "Problem:\n"
            "  data.augment.transforms failed on the first training image: Required crop size (64, 64) is "
            "larger than input image size (32, 32). Got 'RandomCrop'."
        ),
    ),
    Case(
        "`hidden` for a head type without hidden layers",
        "run recipe.yaml 'model.head={type: cosine, hidden: [64]}'",
        "Problem:\n  model.head.hidden must not be set unless type is mlp. Got [64].",
    ),
    Case(
        "an image file as output of a text preview",
        "preview text.yaml --output sheet.png",
        (
            "Problem:\n"
            "  --output must end in .html or .htm for texts. Got 'sheet.png'. For example preview.html."
        ),
    ),
    Case(
        "optimizer and schedule arguments that are fields of the stage or of another schedule",
        "run recipe.yaml stages.0.optimizer.args.lr=1 stages.0.schedule.power=2",
        (
            "2 problems:\n"
            "  stages[0].schedule.power must not be set unless name is polynomial. Got 2.\n"
            "  stages[0].optimizer.args.lr must not be set. Got 1. Set the stage's lr instead."
        ),
    ),
    Case(
        "early stopping with `best: null`",
        "run recipe.yaml stages.0.early_stopping=2 stages.0.best=",
        (
            "Problem:\n"
            "  stages[0].best must not be null when early_stopping is set. Early stopping monitors the metric "
            "of best. Remove best, or set best.metric."
        ),
    ),
    Case(
        "an invalid regular expression",
        "run recipe.yaml model.allow_missing='[(head]'",
        (
            "Problem:\n"
            "  model.allow_missing[0] must be a valid regular expression (missing ), unterminated "
            "subpattern at position 0). Got '(head'."
        ),
    ),
    Case(
        "an override without =",
        "run recipe.yaml seed",
        ("Problem:\n  seed must have the form KEY=VALUE. For example seed=1."),
    ),
    Case(
        "an override of an unknown field",
        "run recipe.yaml stages.0.learning_rate=0.1",
        (
            "Problem:\n"
            "  stages.0.learning_rate=0.1 must set a known field. Got 'learning_rate'. Known: "
            "'name', 'train', 'epochs', 'max_steps', 'lr', 'optimizer', 'schedule', 'warmup', "
            "'weight_decay', 'layer_decay', 'batch_size', 'accumulation', 'clip', "
            "'label_smoothing', 'balance', 'regularize', 'early_stopping', 'best', 'carry_optimizer', "
            "'teacher', 'fit', 'seeds', 'compress'."
        ),
    ),
    Case(
        "an override of a stage that does not exist",
        "run recipe.yaml stages.1.lr=0.1",
        (
            "Problem:\n"
            "  stages.1.lr=0.1 must refer to an existing entry of stages. Got 1. stages has 1 entry; "
            "indices start at 0."
        ),
    ),
    Case(
        "an override with invalid YAML",
        "run recipe.yaml 'stages.0.train=[head'",
        (
            "Problem:\n"
            "  stages.0.train=[head must have a valid YAML value. Got '[head'. YAML parser error: "
            "while parsing a flow sequence, expected ',' or ']', but got '<stream end>'."
        ),
    ),
    Case(
        "errors in the file, in overrides and between fields",
        "run recipe.yaml seed=one data.pth=./photos stages.0.max_steps=3",
        (
            "5 problems:\n"
            "  recipe.yaml, line 8 must not repeat the key 'seed' of line 7. Keep one of them.\n"
            "  data.pth=./photos must set a known field. Got 'pth'. Nearest: 'path'.\n"
            "  speed.precision must be 'auto', 'fp32', 'bf16' or 'fp16'. Got 'fp8'.\n"
            "  seed must be a whole number. Got 'one'.\n"
            "  stages[0] must have either epochs (passes over the training split) or max_steps "
            "(optimizer steps). Got epochs 1 and max_steps 3."
        ),
        text("recipe.yaml", "{}speed: {{precision: fp8}}\nseed: 1\nseed: 2\n"),
    ),
]

"""Bad inputs: recipes of several tasks."""

from bad_input_case import Case
from bad_input_steps import do, rows, write

__all__ = ["CASES"]

TASKS = """\
task: multi-task
model: ./vit
tasks:
  dish: {task: image-classification, data: ./photos}
  size: {task: image-classification, data: {path: ./sizes.csv, columns: {label: size}}}
stages:
  - {name: head, train: head, epochs: 1, lr: 1e-2}
"""
SIZES = do(
    rows(
        "sizes.csv",
        "image,size",
        *(
            f"photos/{dish}/{index}.png,{'large' if index % 2 else 'small'}"
            for dish in ("cake", "soup", "tea")
            for index in range(6)
        ),
    ),
    write("tasks.yaml", TASKS),
)
"""A valid recipe of two tasks, and the data of the second one."""

CASES = [
    Case(
        "a multi-task recipe with one task",
        "run tasks.yaml",
        (
            "Problem:\n"
            "  tasks must have at least two tasks. Got 'dish'. Add a task, or write a single-task "
            "recipe."
        ),
        do(SIZES, write("tasks.yaml", TASKS.replace("  size:", "  #size:"))),
    ),
    Case(
        "a multi-task recipe without tasks",
        "run recipe.yaml task=multi-task",
        (
            "2 problems:\n"
            "  data must be a mapping of fields. Got './photos'.\n"
            "  tasks must be set. Multi-task: at least two tasks by name, each with its own data."
        ),
    ),
    Case(
        "tasks of different types",
        "run tasks.yaml tasks.size.task=text-classification",
        (
            "Problem:\n"
            "  tasks.size.task must be 'image-classification', the same as tasks.dish.task. Got "
            "'text-classification'. All tasks share one model."
        ),
        SIZES,
    ),
    Case(
        "a task name that is not a valid folder name",
        "run tasks.yaml",
        (
            "Problem:\n"
            "  The name of tasks.a/b must start with a letter or digit and contain only letters, digits,"
            " '_' and '-'. Got 'a/b'. It is used in the names of folders and weights."
        ),
        do(SIZES, write("tasks.yaml", TASKS.replace("  dish:", "  a/b:"))),
    ),
    Case(
        "a misspelled field of a task",
        "run tasks.yaml tasks.size.wieght=2",
        ("Problem:\n  tasks.size.wieght=2 must set a known field. Got 'wieght'. Nearest: 'weight'."),
        SIZES,
    ),
    Case(
        "single-task options in a multi-task recipe",
        "run tasks.yaml model.adapter=lora evaluation.folds=3 publish=me/x stages.0.balance=sampler "
        "stages.0.compress=0.3 stages.0.teacher=run",
        (
            "7 problems:\n"
            "  stages[0].compress must not be set when model.adapter is set. Got 0.3. An adapter "
            "requires the checkpoint's original weights. Prune the merged model in a separate run.\n"
            "  model.adapter must not be set when the task is multi-task. Got 'lora'. All tasks share "
            "one backbone. Train it with a low learning rate instead.\n"
            "  evaluation.folds must not be set when the task is multi-task. Got 3. Each task has its "
            "own test split.\n"
            "  publish must not be set when the task is multi-task. Got 'me/x'. When the run is done, "
            "publish the tasks' models: hf-finetune publish RUN/tasks/NAME --to ...\n"
            "  stages[0].teacher must not be set when the task is multi-task. Got 'run'. A teacher "
            "has the classes of a single task.\n"
            "  stages[0].compress must not be set when the task is multi-task. Got 0.3. Prune the "
            "model of a single task in a separate run.\n"
            "  stages[0].balance must not be sampler when the task is multi-task. Examples are sampled "
            "as set in mixing. Use class_weights."
        ),
        SIZES,
    ),
    Case(
        "`mixing.temperature` with another method, and `weight` with learned weighting",
        "run tasks.yaml mixing.temperature=3 weighting=uncertainty tasks.size.weight=0.5",
        (
            "2 problems:\n"
            "  mixing.temperature must not be set unless method is temperature. Got 3.\n"
            "  tasks.size.weight must not be set when weighting is uncertainty. Got 0.5. It is "
            "learned."
        ),
        SIZES,
    ),
    Case(
        "a shared data field set for one task",
        "run tasks.yaml tasks.size.data.image_size=64",
        (
            "Problem:\n"
            "  tasks.size.data.image_size=64 must set a known field. Got 'image_size'. Known: "
            "'path', 'config', 'revision', 'encoding', 'separator', 'decimal', 'nested', 'columns', "
            "'split', 'target', 'on_error', 'limit'."
        ),
        SIZES,
    ),
    Case(
        "a text field in a recipe with image tasks",
        "run tasks.yaml data.max_length=64",
        ("Problem:\n  data.max_length must not be set when the task is image-classification. Got 64."),
        SIZES,
    ),
    Case(
        "`best` with the name of an unknown task",
        "run tasks.yaml stages.0.best=sise/accuracy",
        (
            "Problem:\n"
            "  stages[0].best.metric must be mean, loss, or TASK/METRIC of one of the tasks. Got "
            "'sise/accuracy'. Nearest: 'size/accuracy'."
        ),
        SIZES,
    ),
    Case(
        "missing data of two tasks",
        "run tasks.yaml tasks.dish.data.path=./photo tasks.size.data.path=./size.csv",
        (
            "2 problems:\n"
            "  tasks.dish.data.path must be a folder, a data file or a Hub id. Got './photo'. "
            "Nearest: './photos'.\n"
            "  tasks.size.data.path must be a folder, a data file or a Hub id. Got './size.csv'. "
            "Nearest: './sizes.csv'."
        ),
        SIZES,
    ),
    Case(
        "a metric that is not defined for a task",
        "run tasks.yaml tasks.size.metrics=rmse",
        (
            "Problem:\n"
            "  tasks.size.metrics[0] must be a metric for the label type single_label. Got 'rmse'. Known: "
            "'accuracy', 'balanced_accuracy', 'precision_macro', 'recall_macro', 'f1_macro', "
            "'precision_weighted', 'recall_weighted', 'f1_weighted', "
            "'matthews_correlation', 'cohen_kappa', 'top5_accuracy', 'roc_auc', "
            "'mean_average_precision', 'log_loss', 'precision_micro', 'recall_micro', "
            "'f1_micro', 'cohen_kappa_linear', 'cohen_kappa_quadratic', 'mrr'."
        ),
        SIZES,
    ),
]

"""Bad inputs: errors that depend on the data or the checkpoint, in selectors, optimizers and metrics."""

from bad_input_case import Case
from bad_input_steps import config, rows, write

__all__ = ["CASES"]

CASES = [
    Case(
        "a new head that no stage trains",
        "run text.yaml data.path=soups.csv 'stages=[{train: \"layers[0:1]\", epochs: 1, lr: 1e-3}]'",
        (
            "Problem:\n"
            "  stages must train the head, whose weights are random. Got 'layers[0:1]'. Add head to a stage, such as "
            "train: [head, 'layers[1:]']."
        ),
        rows(
            "soups.csv",
            "text,label",
            *(f"text {number},{'soup' if number % 2 else 'tea'}" for number in range(20)),
        ),
    ),
    Case(
        "a misspelled selector",
        "run recipe.yaml stages.0.train=haed",
        (
            "Problem:\n"
            "  stages[0].train must be a valid selector. Got 'haed'. Nearest: 'head'. Valid: head, all, "
            "norms, biases, last:N, layers[A:B], /regular expression/."
        ),
    ),
    Case(
        "a selector that matches nothing",
        "run recipe.yaml stages.0.train=/encodr/",
        (
            "Problem:\n"
            "  stages[0].train must match at least one parameter. Got '/encodr/'. The names of "
            "this model's 24 parameter tensors range from 'vit.embeddings.cls_token' to 'classifier.bias'."
        ),
    ),
    Case(
        "a selector that is an invalid regular expression",
        "run recipe.yaml stages.0.train='/layer[/'",
        (
            "Problem:\n"
            "  stages[0].train must be a valid regular expression (unterminated character set at "
            "position 5). Got '/layer[/'."
        ),
    ),
    Case(
        "more layer groups than the model has",
        "run recipe.yaml stages.0.train=last:9",
        (
            "Problem:\n"
            "  stages[0].train must select between 1 and 2 layer groups, the number in this model. "
            "Got 'last:9'. For no layer group use 'head', for the whole model 'all'."
        ),
    ),
    Case(
        "a layer group that the model does not have",
        "run recipe.yaml 'stages.0.train=\"layers[7]\"'",
        ("Problem:\n  stages[0].train must index one of the 2 layer groups, 0 to 1. Got 'layers[7]'."),
    ),
    Case(
        "`logistic_regression` for regression labels",
        "run text.yaml stages=null strategy=features data.path=ratings.csv",
        (
            "Problem:\n  strategy.classifier must be ridge for the label type regression. Got 'logistic_regression'."
        ),
        write("ratings.csv", "text,label\n" + "".join(f"film {n},{n}.5\n" for n in range(20))),
    ),
    Case(
        "`lr` for a head that a solver fits",
        "run recipe.yaml stages.0.fit=logistic_regression stages.0.epochs=null",
        (
            "Problem:\n"
            "  stages[0].lr must not be set when fit is logistic_regression. Got 0.01. A solver fits the head, "
            "without optimizer steps."
        ),
    ),
    Case(
        "a solver for a head with hidden layers",
        "run recipe.yaml stages=null strategy=features model.head=mlp",
        (
            "Problem:\n"
            "  stages[0].fit must be gradient unless the head is one linear layer with a bias; this one has "
            "classifier.layers.0.weight, classifier.layers.0.bias, classifier.layers.3.weight, "
            "classifier.layers.3.bias. Got 'logistic_regression'."
        ),
    ),
    Case(
        "a misspelled optimizer",
        "run recipe.yaml stages.0.optimizer=adamv",
        (
            "Problem:\n"
            "  stages[0].optimizer must be an optimizer that the Trainer supports. Got 'adamv'. "
            "Nearest: 'adam'."
        ),
    ),
    Case(
        "an optimizer without support for parameter groups",
        "run recipe.yaml stages.0.optimizer=galore_adamw",
        (
            "Problem:\n"
            "  stages[0].optimizer must accept parameter groups. Got 'galore_adamw'. Choose another one, "
            "such as adamw: this one builds its own parameter groups."
        ),
    ),
    Case(
        "a misspelled optimizer argument",
        "run recipe.yaml --output-dir new 'stages.0.optimizer={name: sgd, args: {momentun: 0.9}}'",
        (
            "Problem:\n"
            "  stages[0].optimizer.args.momentun must be an argument of SGD. Got 0.9. Nearest: "
            "'momentum'."
        ),
    ),
    Case(
        "structured pruning of a model without a feed-forward width in its config",
        "run recipe.yaml stages.0.compress=0.3",
        (
            "Problem:\n"
            "  stages[0].compress.method must be unstructured for a model whose config has no single "
            "feed-forward width. Got 'structured', for 'resnet'. Unstructured pruning sets "
            "single weights to 0."
        ),
        config("vit/config.json", model_type="resnet", architectures=["ResNetForImageClassification"]),
    ),
    Case(
        "a pruning fraction that is too small",
        "run text.yaml stages.0.compress=0.1",
        (
            "Problem:\n"
            "  stages[0].compress.prune must be greater: widths are rounded to multiples of 8, so all 16 "
            "neurons of a layer would be kept. Got 0.1, for 'bert'."
        ),
    ),
    Case(
        "pruning of a model with an adapter",
        "run text.yaml model.adapter=lora 'stages.0={train: lora, epochs: 1, lr: 1e-3, compress: 0.3}'",
        (
            "Problem:\n"
            "  stages[0].compress must not be set when model.adapter is set. Got 0.3. An adapter "
            "requires the checkpoint's original weights. Prune the merged model in a separate run."
        ),
    ),
    Case(
        "a misspelled metric",
        "run recipe.yaml 'metrics=[acuracy]'",
        (
            "Problem:\n"
            "  metrics[0] must be a metric of this package for the label type single_label unless "
            "--trust-remote-code is given. Got 'acuracy'. Nearest: 'accuracy'. With the option, "
            "evaluate.load runs the script 'acuracy' of the Hub, or its cached copy."
        ),
    ),
    Case(
        "regression metrics for class labels",
        "run recipe.yaml 'metrics=[accuracy, mae]' stages.0.best=rmse",
        (
            "2 problems:\n"
            "  metrics[1] must be a metric for the label type single_label. Got 'mae'. Known: 'accuracy', "
            "'balanced_accuracy', 'precision_macro', 'recall_macro', 'f1_macro', "
            "'precision_weighted', 'recall_weighted', 'f1_weighted', "
            "'matthews_correlation', 'cohen_kappa', 'top5_accuracy', 'roc_auc', "
            "'mean_average_precision', 'log_loss', 'precision_micro', 'recall_micro', "
            "'f1_micro', 'cohen_kappa_linear', 'cohen_kappa_quadratic', 'mrr'.\n"
            "  stages[0].best.metric must be a metric for the label type single_label. Got 'rmse'. Known: "
            "'accuracy', 'balanced_accuracy', 'precision_macro', 'recall_macro', 'f1_macro', "
            "'precision_weighted', 'recall_weighted', 'f1_weighted', "
            "'matthews_correlation', 'cohen_kappa', 'top5_accuracy', 'roc_auc', "
            "'mean_average_precision', 'log_loss', 'precision_micro', 'recall_micro', "
            "'f1_micro', 'cohen_kappa_linear', 'cohen_kappa_quadratic', 'mrr'."
        ),
    ),
    Case(
        "`best` without a validation split",
        "run recipe.yaml data.split.validation=0 stages.0.best=accuracy",
        (
            "Problem:\n"
            "  stages[0].best.metric must not be set without a validation split. Set data.split.validation "
            "above 0, or remove the field."
        ),
    ),
    Case(
        "early stopping without a validation split",
        "run recipe.yaml data.split.validation=0 stages.0.early_stopping=2",
        (
            "Problem:\n"
            "  stages[0].early_stopping must not be set without a validation split. Set "
            "data.split.validation above 0, or remove the field."
        ),
    ),
    Case(
        "label smoothing for regression labels",
        "run text.yaml data=amounts.csv stages.0.label_smoothing=0.1",
        (
            "Problem:\n  stages[0].label_smoothing must be 0 unless each example has exactly one class. Got 0.1."
        ),
        write("amounts.csv", "text,label\n" + "".join(f"the film {n},{n / 8}\n" for n in range(24))),
    ),
    Case(
        "a class weight for an unknown class",
        "run recipe.yaml 'stages.0.balance={method: class_weights, weights: {soop: 3}}'",
        (
            "Problem:\n  stages[0].balance.weights must contain only classes of the data. Got 'soop'. Nearest: 'soup'."
        ),
    ),
    Case(
        "`balance` for regression labels",
        "run text.yaml data=amounts.csv stages.0.balance=focal",
        ("Problem:\n  stages[0].balance must be none for regression labels. Got 'focal'."),
        write("amounts.csv", "text,label\n" + "".join(f"the film {n},{n / 8}\n" for n in range(24))),
    ),
    Case(
        "`sampler` for multi-label data",
        "run text.yaml data=topics.jsonl stages.0.balance=sampler",
        (
            "Problem:\n"
            "  stages[0].balance must not be sampler for multi-label data. Oversampling a rare class also "
            "oversamples the other classes of its examples. Use class_weights."
        ),
        write(
            "topics.jsonl",
            "".join(
                f'{{"text": "the film {n}", "label": {labels}}}\n'
                for n, labels in enumerate(['["a"]', '["b"]', '["a", "b"]'] * 8)
            ),
        ),
    ),
    Case(
        "`r_drop` for regression labels",
        "run text.yaml data=amounts.csv 'stages.0.regularize={r_drop: 1.0}'",
        (
            "Problem:\n"
            "  stages[0].regularize.r_drop is not supported for regression labels. Got 1.0. It compares class "
            "probabilities."
        ),
        write("amounts.csv", "text,label\n" + "".join(f"the film {n},{n / 8}\n" for n in range(24))),
    ),
    Case(
        "`drop_path` for an architecture without stochastic depth",
        "run recipe.yaml model.drop_path=0.1",
        (
            "Problem:\n"
            "  model.drop_path must not be set for an architecture without stochastic depth. Got 0.1."
        ),
    ),
    Case(
        "`r_drop` for images, and an invalid `ema`",
        "run recipe.yaml 'stages.0.regularize={r_drop: 1.0, ema: 1.5}'",
        (
            "2 problems:\n"
            "  stages[0].regularize.ema must be below 1. Got 1.5.\n"
            "  stages[0].regularize.r_drop must not be set when the task is image-classification. Got "
            "1.0. It applies to texts and histories; for images, use mixup or cutmix."
        ),
    ),
    Case(
        "`mixup` for a text task",
        "run text.yaml 'stages.0.regularize={mixup: 0.2}'",
        (
            "Problem:\n"
            "  stages[0].regularize.mixup must not be set when the task is text-classification. Got "
            "0.2. It applies to images; for texts, use r_drop."
        ),
    ),
    Case(
        "`l2_sp` together with an adapter",
        "run recipe.yaml model.adapter=lora stages.0.train=lora 'stages.0.regularize={l2_sp: 0.1}'",
        (
            "Problem:\n"
            "  stages[0].regularize.l2_sp must not be set when model.adapter is set. Got 0.1. The "
            "checkpoint's weights are frozen. Use weight_decay, which moves the adapter towards no "
            "change."
        ),
    ),
    Case(
        "`warmup` with a schedule that has its own warmup",
        "run recipe.yaml stages.0.schedule=one_cycle stages.0.warmup=10",
        (
            "Problem:\n"
            "  stages[0].warmup must not be set with the one_cycle schedule. Got 10. The schedule has "
            "its own warmup. Set schedule.pct_start."
        ),
    ),
    Case(
        "errors in a stage, the data path and the checkpoint path",
        "run recipe.yaml data.path=./photo model=./vitt stages.0.optimizer=adamv",
        (
            "2 problems:\n"
            "  data.path must be a folder, a data file or a Hub id. Got './photo'. Nearest: "
            "'./photos'.\n"
            "  model.path must be a checkpoint: a folder with config.json, or a name on the Hub. "
            "Got './vitt'. Nearest: './vit'.\n"
            "The remaining checks found 1 more problem:\n"
            "  stages[0].optimizer must be an optimizer that the Trainer supports. Got 'adamv'. "
            "Nearest: 'adam'."
        ),
    ),
    Case(
        "a plan with a selector that matches nothing",
        "plan recipe.yaml stages.0.train=/encodr/",
        (
            "Problem:\n"
            "  stages[0].train must match at least one parameter. Got '/encodr/'. The names of "
            "this model's 24 parameter tensors range from 'vit.embeddings.cls_token' to 'classifier.bias'."
        ),
    ),
    Case(
        "an adapter selector without an adapter",
        "run recipe.yaml stages.0.train=lora",
        (
            "Problem:\n"
            "  stages[0].train must be the adapter of the model. Got 'lora'. Add it with "
            "model.adapter=lora."
        ),
    ),
    Case(
        "an adapter that no stage trains",
        "run recipe.yaml model.adapter=dora",
        (
            "Problem:\n"
            "  model.adapter must be trained by a stage. Got 'dora'. Add or change a stage: train: dora."
        ),
    ),
    Case(
        "a misspelled adapter target",
        "run recipe.yaml model.adapter=lora model.adapter.target=q_prj stages.0.train=lora",
        (
            "Problem:\n"
            "  model.adapter.target must match at least one linear or plain convolutional layer of the "
            "backbone. Got 'q_prj'. Nearest: 'q_proj'."
        ),
    ),
    Case(
        "`adapter.save` together with a stage that trains other weights",
        "run recipe.yaml model.adapter=lora model.adapter.save=both stages.0.train=all",
        (
            "Problem:\n"
            "  stages[0].train must train only the adapter and the head when model.adapter.save is not "
            "merged. Got 'all'. Set model.adapter.save to merged, or train lora."
        ),
    ),
]

"""Stages on a user's model and examples, on tiny models."""

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from stage_helpers import Examples, StageWatch, differing, state_of
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback, TrainingArguments
from transformers.utils import logging

from hf_finetune import InputError, Predictor, Stage, StagedTrainer
from hf_finetune.methods import ClassBalance
from hf_finetune.methods.carried_optimizer import OPTIMIZER_FILE
from hf_finetune.training import staged_trainer

STAGES = [
    Stage("head", epochs=1, lr=1e-2),
    Stage("last:1", epochs=2, lr=1e-2),
    Stage("all", epochs=1, lr=1e-3),
]


def arguments(folder, **options):
    settings = {"per_device_train_batch_size": 4, "report_to": "none", "dataloader_pin_memory": False}
    return TrainingArguments(str(folder), **{**settings, **options})


def make(model, folder, stages=STAGES, *, evaluates=True, callbacks=(), data=None, **options):
    data = Examples(model, 8) if data is None else data
    return StagedTrainer(
        model,
        stages,
        args=arguments(folder, **options),
        train_dataset=data,
        eval_dataset=data if evaluates else None,
        compute_metrics=lambda found: {
            "accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())
        },
        callbacks=callbacks,
    )


class Watch(TrainerCallback):
    """Record the arguments and the changed parameters of each stage."""

    def __init__(self, model):
        self.model, self.stages, self.arguments, self.changed = model, [], [], []

    def on_train_begin(self, args, state, control, **kwargs):
        self.arguments.append(args)
        self.stages.append(StageWatch(self.model))
        self.stages[-1].on_train_begin(args, state, control, **kwargs)

    def on_train_end(self, args, state, control, **kwargs):
        self.stages[-1].on_train_end(args, state, control, **kwargs)
        self.changed.append(differing(self.stages[-1].before, self.stages[-1].after))


@pytest.mark.parametrize("name", ["bert", "timm/test_resnet"])
def test_each_stage_trains_its_selected_parameters_with_its_own_optimizer(tmp_path, tiny_model, name):
    model = tiny_model(name)
    watch = Watch(model)
    trainer = make(model, tmp_path, evaluates=False, callbacks=[watch])
    assert trainer.train() == {"head": {}, "last-1": {}, "all": {}}
    for plan, stage, changed in zip(trainer.plan.stages, watch.stages, watch.changed, strict=True):
        parameters = {name for name, _ in model.named_parameters()}
        assert changed & parameters <= set(plan.trainable)
        assert {name for names, _, _ in stage.groups for name in names} == set(plan.trainable)
        assert changed & parameters >= stage.moved_by_gradient


def test_the_best_weights_are_restored_and_evaluated(tmp_path, tiny_model):
    trainer = make(tiny_model("bert"), tmp_path, metric_for_best_model="accuracy")
    metrics = trainer.train()
    assert list(metrics) == ["head", "last-1", "all"]
    accuracies = [values["accuracy"] for values in metrics.values()]
    assert accuracies == sorted(accuracies)
    again = trainer.evaluate()
    assert again["eval_accuracy"] == metrics["all"]["accuracy"]
    assert again["eval_loss"] == pytest.approx(metrics["all"]["loss"])


def test_evaluate_prints_nothing_at_any_verbosity(tmp_path, tiny_model, capsys):
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # from here on the Trainer of transformers prints its metrics
    try:
        make(tiny_model("bert"), tmp_path).evaluate()
    finally:
        logging.set_verbosity(verbosity)
    assert capsys.readouterr().out == ""


def test_the_loss_is_the_mean_over_all_examples(tmp_path, tiny_model):
    model = tiny_model("bert")
    data = Examples(model, 7)
    found = make(model, tmp_path, data=data, per_device_eval_batch_size=3).evaluate()["eval_loss"]
    with torch.no_grad():
        logits = model(**data.inputs).logits
    assert found == pytest.approx(functional.cross_entropy(logits, data.labels).item())


def test_arguments_fill_the_fields_that_a_stage_leaves_out(tmp_path, tiny_model):
    model = tiny_model("bert")
    watch = Watch(model)
    trainer = make(
        model,
        tmp_path,
        [Stage("head"), Stage("all", batch_size=2, lr=1e-4, max_steps=1, schedule="constant", clip=None)],
        callbacks=[watch],
        learning_rate=3e-3,
        num_train_epochs=2,
        lr_scheduler_type="cosine",
        warmup_steps=0.5,
        weight_decay=0.2,
        optim="adamw_torch",
        adam_beta1=0.8,
        seed=5,
    )
    first, second = trainer.stages
    assert (first.epochs, first.lr, first.batch_size, first.warmup) == (2.0, 3e-3, 4, 0.5)
    assert (first.schedule.name, first.weight_decay, first.clip) == ("cosine", 0.2, 1.0)
    assert (second.epochs, second.max_steps, second.lr, second.batch_size) == (None, 1, 1e-4, 2)
    assert (second.schedule.name, second.weight_decay, second.clip) == ("constant", 0.2, None)
    trainer.train()
    assert [args.adam_beta1 for args in watch.arguments] == [0.8, 0.8]
    assert [args.seed for args in watch.arguments] == [5, 6]
    assert [args.learning_rate for args in watch.arguments] == [3e-3, 1e-4]
    assert [Path(args.output_dir).name for args in watch.arguments] == ["01-head", "02-all"]


class Interrupt(TrainerCallback):
    """End the training in the second epoch of the second stage."""

    def on_step_end(self, args, state, control, **kwargs):
        if "last-1" in args.output_dir and state.global_step == 3:
            raise RuntimeError("interrupted")


def test_interrupted_and_resumed_equals_straight_through(tmp_path, tiny_model):
    straight = make(tiny_model("bert"), tmp_path / "straight")
    expected = straight.train()
    with pytest.raises(RuntimeError, match="interrupted"):
        make(tiny_model("bert"), tmp_path / "resumed", callbacks=[Interrupt()]).train()
    resumed = make(tiny_model("bert"), tmp_path / "resumed")
    assert resumed.train(resume_from_checkpoint=True) == expected
    assert not differing(state_of(straight.model), state_of(resumed.model))
    finished = make(tiny_model("bert"), tmp_path / "resumed")
    assert finished.train(resume_from_checkpoint=True) == expected
    assert not differing(state_of(straight.model), state_of(finished.model))


def test_the_state_of_the_optimizer_can_be_kept(tmp_path, tiny_model):
    stages = [STAGES[0], Stage("all", epochs=1, lr=1e-3, carry_optimizer=True)]
    trainer = make(tiny_model("bert"), tmp_path, stages, evaluates=False)
    trainer.train()
    assert trainer.plan.stages[1].carried == trainer.plan.stages[0].trainable
    assert (tmp_path / "stages/01-head" / OPTIMIZER_FILE).is_file()


def test_texts_are_padded_and_other_columns_left_out(tmp_path, bert_checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(bert_checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(bert_checkpoint, num_labels=3)
    texts = ["good film", "the bad plot", "dull", "a great film"]
    data = Dataset.from_dict({"text": texts, **tokenizer(texts), "label": [0, 1, 2, 0]})
    trainer = StagedTrainer(
        model,
        [Stage("head", epochs=1, lr=1e-2), Stage("all", fit="gradient", epochs=1, lr=1e-3)],
        args=arguments(tmp_path),
        train_dataset=data,
        eval_dataset=data,
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(tmp_path / "model")
    (found,) = Predictor(tmp_path / "model").predict("good film")
    with torch.no_grad():
        shares = model.eval()(**tokenizer("good film", return_tensors="pt")).logits.softmax(-1)[0]
    assert list(found.scores.values()) == pytest.approx(shares.tolist(), abs=1e-6)


class Several(Examples):
    """Examples with any of three labels."""

    def __getitem__(self, index):
        labels = torch.tensor([1.0, float(index % 2), 0.0])
        return {**super().__getitem__(index), "labels": labels}


def test_several_labels_are_balanced(tmp_path, tiny_model, monkeypatch):
    built = []
    build = staged_trainer.build_methods
    monkeypatch.setattr(
        staged_trainer, "build_methods", lambda context: built.append(build(context)) or built[-1]
    )
    model = tiny_model("bert", problem_type="multi_label_classification")
    stages = [Stage("head", epochs=1, lr=1e-2, balance="class_weights")]
    StagedTrainer(
        model,
        stages,
        args=arguments(tmp_path),
        train_dataset=Several(model, 8),
        eval_dataset=Several(model, 8),
    ).train()
    (balance,) = [method for method in built[0] if isinstance(method, ClassBalance)]
    assert balance.class_weights[1] == 1.0  # as many negatives as positives


def test_a_head_can_be_fitted(tmp_path, tiny_model):
    trainer = make(tiny_model("bert"), tmp_path, [Stage("head", fit="logistic_regression"), STAGES[2]])
    assert trainer.plan.stages[0].steps == 0
    before = trainer.evaluate()["eval_loss"]
    assert trainer.train()["head"]["loss"] < before


@pytest.mark.parametrize(
    ("stages", "options", "message"),
    [
        ([Stage("hed")], {}, "stages[0].train must be a valid selector. Got 'hed'. Nearest: 'head'."),
        ([STAGES[0], STAGES[0]], {}, "stages[1] must differ from the previous stage."),
        (
            [Stage("head", teacher="runs/large")],
            {},
            "stages[0].teacher must not be set in a StagedTrainer. Write a recipe, and use hf_finetune.run.",
        ),
        ([Stage("head")], {"optim": "galore_adamw"}, "stages[0].optimizer must accept parameter groups."),
        (
            [Stage("head")],
            {"lr_scheduler_type": "inverse_sqrt"},
            "args.lr_scheduler_type must be one of linear, cosine, constant, constant_with_warmup. Got 'inverse_sqrt'. "
            "Set one of them, or a schedule in each stage.",
        ),
        ([Stage("head", regularize={"mixup": 0.2})], {}, "It applies to images; for texts, use r_drop."),
    ],
)
def test_untrainable_selections_are_refused(tmp_path, tiny_model, stages, options, message):
    with pytest.raises(InputError) as caught:
        make(tiny_model("bert"), tmp_path, stages, **options)
    assert message in str(caught.value)


def test_continuous_targets_are_not_mixed(tmp_path, tiny_model):
    model = tiny_model("vit", num_labels=1)
    with pytest.raises(InputError, match="mixup must not be set for regression labels"):
        make(model, tmp_path, [Stage("all", regularize={"mixup": 0.2})])


def test_a_divided_model_is_refused(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="must be used without FSDP and DeepSpeed"):
        StagedTrainer(tiny_model("bert"), STAGES, train_dataset=[])


def test_stages_of_before_are_not_overwritten(tmp_path, tiny_model):
    make(tiny_model("bert"), tmp_path, STAGES[:1]).train()
    written = json.loads((tmp_path / "stages/stages.json").read_text())
    assert list(written["metrics"]) == ["head"]
    with pytest.raises(InputError, match="must not contain stages of an earlier training"):
        make(tiny_model("bert"), tmp_path, STAGES[:1]).train()
    with pytest.raises(InputError, match="must contain the same stages to resume"):
        make(tiny_model("bert"), tmp_path, STAGES[:2]).train(resume_from_checkpoint=True)

"""Records of finished runs for reports, with any number of classes, target and text."""

from dataclasses import replace

import numpy as np

from hf_finetune.evaluation.calibration import calibration_error, reliability
from hf_finetune.evaluation.metrics import compute_metrics, decide, default_metrics, probabilities
from hf_finetune.evaluation.predictions import Predictions
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.report.run_record import RunRecord, StageLog
from hf_finetune.targets import TARGETS
from hf_finetune.targets.scored_examples import ScoredExamples

STEPS = 60


def make_record(target="single_label", names=("cake", "soup", "tea"), examples=240, skill=2.0, **changes):
    """Return a run with the given class names and model quality; ``changes`` are fields of it.

    Args:
        target: ``single_label``, ``multi_label`` or ``regression``.
        names: The classes.
        examples: Number of test examples.
        skill: How much greater the logit of the right class is; 50 has no mistake.
    """
    predictions = _predictions(target, tuple(names), examples, skill)
    metric_names = default_metrics(target)
    metrics = compute_metrics(metric_names, ScoredExamples(predictions.labels, predictions.scores, target))
    test = {name: float(value) if np.isfinite(value) else None for name, value in metrics.items()}
    content = {
        "wall_seconds": 754.2,
        "stages": [_stage("head", 0.6, 1), _stage("all", 0.8, 2)],
        "test": test,
        "test_interval": {
            name: None if value is None else [value - 0.02, min(1.0, value + 0.02)]
            for name, value in test.items()
        },
        "baselines": {
            "majority": dict.fromkeys(metric_names, 0.1),
            "linear_probe": dict.fromkeys(metric_names, 0.3),
        },
    }
    if target != "regression":
        bins = [vars(each) for each in reliability(predictions.scores, predictions.labels)]
        content["test_calibration"] = {
            "ece": calibration_error(predictions.scores, predictions.labels),
            "bins": bins,
        }
    counted = {} if target == "regression" else {name: 40 + index % 7 for index, name in enumerate(names)}
    record = RunRecord(
        name="dishes",
        recipe=_recipe(),
        manifest={
            "seed": 0,
            "processes": 1,
            "versions": {"torch": "2.9.0", "transformers": "5.23.0"},
            "determinism": {"bit_for_bit": True, "obstacles": []},
        },
        metrics=content,
        metric_names=metric_names,
        logs=(_log(2.0), _log(1.0)),
        predictions=predictions,
        data={
            "splits": {
                "train": {"examples": 1200, "classes": counted},
                "test": {"examples": examples, "classes": {}},
            },
            "notes": ["Left out 3 copies of examples.", "The test split was made of 0.2 of the examples."],
        },
        mistakes=_mistakes(predictions),
    )
    return replace(record, **changes)


def _predictions(target, names, examples, skill):
    random = np.random.default_rng(0)
    ids = tuple(f"{index}.png" for index in range(examples))
    if target == "regression":
        labels = random.normal(100, 30, examples)
        return Predictions(ids, labels, labels + random.normal(0, 5, examples), target, ("label",))
    logits = random.normal(size=(examples, len(names)))
    if target == "multi_label":
        labels = (random.random((examples, len(names))) < 0.3).astype(np.int64)
        return Predictions(
            ids, labels, probabilities(logits + skill * (2 * labels - 1), target), target, names
        )
    labels = np.arange(examples) % len(names)
    logits[np.arange(examples), labels] += skill
    return Predictions(ids, labels, probabilities(logits, target), target, names)


def _mistakes(found):
    decisions = decide(found.scores, found.target)
    wrong = np.asarray(found.labels != decisions).reshape(len(found.ids), -1).any(axis=1)
    return [
        {
            "id": found.ids[row],
            "label": TARGETS[found.target].decode(found.labels[row], found.label_names),
            "prediction": TARGETS[found.target].decode(decisions[row], found.label_names),
            "confidence": 0.9,
            "text": "It was not at all what I had expected from this director. " * 6,
        }
        for row in np.flatnonzero(wrong)[:12].tolist()
    ]


def _recipe():
    stages = [
        {"name": "head", "train": "head", "epochs": 2, "lr": 1e-2},
        {"name": "all", "train": ["last:3", "norms"], "epochs": 4, "lr": 1e-4, "layer_decay": 0.9},
    ]
    content = {
        "task": "text-classification",
        "model": "some/checkpoint",
        "data": {"path": "some/data.csv"},
        "stages": stages,
    }
    return parse_recipe(content).model_dump(mode="json")


def _stage(name, value, best):
    return {
        "name": name,
        "epochs": 2.0,
        "steps": STEPS,
        "best_step": 30 * best,
        "train_seconds": 100.0 * best,
        "trainable_parameters": 1_000 * best,
        "total_parameters": 23_000_000,
        "speed": {"precision": "fp32", "memory_format": "channels_last", "compile": False},
        "prefix_cache": {
            "used": best == 1,
            "reason": "" if best == 1 else "the first layer is trained",
            "views": 1,
            "bytes": 3_400_000,
        },
        "validation": {"accuracy": value, "f1_micro": value, "rmse": value},
    }


def _log(height):
    steps = [
        {
            "step": step,
            "loss": height / (1 + 0.1 * step),
            "learning_rates": [["embeddings", 1e-5], ["layers.0", 1e-5], ["head", 1e-4]],
        }
        for step in range(2, STEPS + 1, 2)
    ]
    evaluations = [
        {"step": step, "eval_accuracy": 0.5 + step / 200, "eval_loss": 1 / step}
        for step in range(30, STEPS + 1, 30)
    ]
    return StageLog(tuple(steps), tuple(evaluations))

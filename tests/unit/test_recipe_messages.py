"""Error messages of recipes: complete texts, all errors at once, and no wording of pydantic."""

# ruff: noqa: E501 (error texts are tested whole)

import re

import pytest
from pydantic import BaseModel, ValidationError

from hf_finetune.errors import InputError
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.recipe.messages import RULES, problems_of
from hf_finetune.tasks import TASKS

*_FIRST, _LAST = map(repr, TASKS)
TASK_NAMES = f"{', '.join(_FIRST)} or {_LAST}"
STAGE = {"train": "head", "epochs": 1, "lr": 0.1}
STRATEGY = {"name": "gradual_unfreeze"}
EITHER = "must have either epochs (passes over the training split) or max_steps (optimizer steps)."


def image(**changes):
    fields = {
        "task": "image-classification",
        "model": "resnet",
        "data": {"path": "photos"},
        "stages": [STAGE],
    }
    return {**fields, **changes}


def text(**changes):
    return image(task="text-classification", **changes)


def stage(**changes):
    """Return a recipe whose second stage is wrong; None removes a field."""
    fields = {**STAGE, "train": "all", **changes}
    return image(stages=[STAGE, {name: value for name, value in fields.items() if value is not None}])


def said(recipe, overrides=()):
    with pytest.raises(InputError) as caught:
        parse_recipe(recipe, overrides)
    return str(caught.value).splitlines()


SINGLE = [
    (image(task="image_classification"), f"task must be {TASK_NAMES}. Got 'image_classification'. Nearest: 'image-classification'."),
    (image(task=3), f"task must be {TASK_NAMES}. Got 3."),
    (image(model=None), "model must be a mapping of fields. Got None."),
    (image(model=5), "model.path must be text. Got 5. Put it in quotes."),
    (image(model=" "), "model.path must not be empty. Got ' '."),
    (image(model={"path": "x", "dropout": 1}), "model.dropout must be below 1. Got 1."),
    (image(model={"path": "x", "dropout": -0.5}), "model.dropout must be at least 0. Got -0.5."),
    (image(model={"path": "x", "adapter": "lore"}), "model.adapter.type must be 'lora', 'dora' or 'ia3'. Got 'lore'. Nearest: 'lora'."),
    (image(model={"path": "x", "adapter": {"r": 4}}), "model.adapter.type must be set. Kind of adapter: lora = low-rank adaptation: a product of two matrices is added to the weights (Hu et al. 2022); dora = like lora, with a separately trained magnitude vector (Liu et al. 2024); ia3 = trained factors on activations (Liu et al. 2022)."),
    (image(model={"path": "x", "adapter": {"type": "lora", "r": 0}}), "model.adapter.r must be at least 1. Got 0."),
    (image(model={"path": "x", "adapter": {"type": "lora", "rank": 4}}), "model.adapter.rank must be a known field. Known: 'type', 'r', 'alpha', 'dropout', 'target', 'save'."),
    (image(model={"path": "x", "adapter": {"type": "lora", "save": "merge"}}), "model.adapter.save must be 'merged', 'adapter' or 'both'. Got 'merge'. Nearest: 'merged'."),
    (image(model={"path": "x", "adapter": {"type": "ia3", "alpha": 8}}), "model.adapter.alpha must not be set unless type is lora or dora. Got 8."),
    (image(model={"path": "x", "adapter": {"type": "lora", "save": "both"}, "allow_missing": "pooler"}), "model.adapter.save must be merged when model.allow_missing is set. Got 'both'. The saved adapter does not contain weights that are missing from the checkpoint."),
    (stage(compress=0), "stages[1].compress.prune must be above 0. Got 0."),
    (stage(compress=1.0), "stages[1].compress.prune must be below 1. Got 1.0."),
    (stage(compress={"method": "structured"}), "stages[1].compress.prune must be set. Fraction to remove of the neurons of each feed-forward layer (structured) or of the weights (unstructured)."),
    (stage(compress={"prune": 0.3, "method": "channels"}), "stages[1].compress.method must be 'structured' or 'unstructured'. Got 'channels'."),
    (stage(compress={"prun": 0.3, "prune": 0.3}), "stages[1].compress.prun must be a known field. Nearest: 'prune'."),
    (stage(compress=0.3, carry_optimizer=True), "stages[1].carry_optimizer must not be set in a stage with structured pruning. Got true. The optimizer state does not match the pruned shapes."),
    (image(model={"path": "x", "adapter": "lora"}, stages=[{**STAGE, "train": "lora", "compress": 0.3}]), "stages[0].compress must not be set when model.adapter is set. Got 0.3. An adapter requires the checkpoint's original weights. Prune the merged model in a separate run."),
    (image(stages=[{**STAGE, "compress": {"prune": 0.5, "method": "unstructured"}}, {**STAGE, "train": "all", "compress": {"prune": 0.5, "method": "unstructured"}}]), "stages[1].compress.prune must be above 0.5, the fraction that is already pruned. Got 0.5."),
    (image(model={"path": "x", "allow_missing": ["head", "("]}), "model.allow_missing[1] must be a valid regular expression (missing ), unterminated subpattern at position 0). Got '('."),
    (image(model={"path": "x", "trust_remote_code": "yes"}), "model.trust_remote_code must be true or false. Got 'yes'."),
    (image(model={"pth": "x", "path": "x"}), "model.pth must be a known field. Nearest: 'path'."),
    (image(data={"path": "x", "encoding": "utf-99"}), "data.encoding must be an encoding supported by Python. Got 'utf-99'. For example utf-8, cp1252, gbk."),
    (image(data={"path": "x", "encoding": "rot13"}), "data.encoding must be an encoding supported by Python. Got 'rot13'. For example utf-8, cp1252, gbk."),
    (image(data={"path": "x", "separator": ", "}), "data.separator must be one character, or comma, semicolon, tab or pipe. Got ', '."),
    (image(data={"path": "x", "separator": "\n"}), "data.separator must be one character, or comma, semicolon, tab or pipe. Got '\\n'."),
    (image(data={"path": "x", "decimal": "'"}), "data.decimal must be '.' or ','. Got \"'\"."),
    (image(data={}), "data.path must be set. Hub id, saved dataset, table (csv, tsv, json, jsonl, parquet, xlsx), or folder: class folders, tables, or images with metadata."),
    (image(data={"path": "x", "columns": {"label": True}}), "data.columns.label.name must be the name of a column or a list of names. Got True."),
    (image(data={"path": "x", "columns": ["label"]}), "data.columns must be a mapping of fields. Got ['label']."),
    (image(data={"path": "x", "image_size": 22.5}), "data.image_size must be a whole number. Got 22.5."),
    (image(data={"path": "x", "limit": "100"}), "data.limit must be a whole number. Got '100'. Remove the quotes."),
    (image(data={"path": "x", "split": {"validation": 1}}), "data.split.validation must be below 1. Got 1."),
    (image(data={"path": "x", "split": {"test": 0.95}}), "data.split must have validation + test below 1. Got 0.1 + 0.95. The rest is used for training."),
    (image(data={"path": "x", "split": {"group": "a"}, "columns": {"group": "b"}}), "data.split.group must not differ from data.columns.group 'b'. Got 'a'. Both set the group column. Set only one of them."),
    (image(data={"path": "x", "columns": {"text": "review"}}), "data.columns.text must not be set when the task is image-classification. Got 'review'."),
    (image(data={"path": "x", "columns": {"text_pair": "b"}}), "data.columns.text_pair must not be set when the task is image-classification. Got 'b'."),
    (image(data={"path": "x", "max_length": 128}), "data.max_length must not be set when the task is image-classification. Got 128."),
    (image(data={"path": "x", "truncation_side": "left"}), "data.truncation_side must not be set when the task is image-classification. Got 'left'."),
    (text(data={"path": "x", "image_size": 224}), "data.image_size must not be set when the task is text-classification. Got 224."),
    (text(data={"path": "x", "columns": {"image": "photo"}}), "data.columns.image must not be set when the task is text-classification. Got 'photo'."),
    (text(data={"path": "x", "augment": "strong"}), "data.augment must not be set when the task is text-classification. Got 'strong'. It applies to images; for texts, use mask and drop."),
    (text(data={"path": "x", "augment": "standard"}), "data.augment must not be set when the task is text-classification. Got 'standard'. It applies to images; for texts, use mask and drop."),
    (text(data={"path": "x", "augment": {"erase": 0.1}}), "data.augment.erase must not be set when the task is text-classification. Got 0.1. It applies to images; for texts, use mask and drop."),
    (text(data={"path": "x", "augment": {"transforms": ["Resize"]}}), "data.augment.transforms must not be set when the task is text-classification. Got ['Resize']. It applies to images; for texts, use mask and drop."),
    (text(data={"path": "x", "augment": {"mask": 1}}), "data.augment.mask must be below 1. Got 1."),
    (image(data={"path": "x", "augment": {"mask": 0.1}}), "data.augment.mask must not be set when the task is image-classification. Got 0.1. It applies to texts; for images, use a preset, erase and transforms."),
    (image(data={"path": "x", "augment": {"drop": 0.1}}), "data.augment.drop must not be set when the task is image-classification. Got 0.1. It applies to texts; for images, use a preset, erase and transforms."),
    (image(data={"path": "x", "augment": "strongest"}), "data.augment.preset must be 'none', 'light', 'standard', 'strong', 'seeds', 'trivial' or 'randaugment'. Got 'strongest'. Nearest: 'strong'."),
    (image(data={"path": "x", "augment": {"preset": "light", "transforms": ["Resize"]}}), (
        "data.augment.preset must not be set when transforms are given. Got 'light'. Set only one of them: "
        "transforms replace the preset."
    )),
    (image(data={"path": "x", "augment": {"preset": "none", "erase": 0.1}}), (
        "data.augment.erase must not be set when the preset is none. Got 0.1. Set another preset, such as "
        "light, to augment the images."
    )),
    (image(data={"path": "x", "augment": {"transforms": [{"args": {}}]}}), "data.augment.transforms[0].name must be set. Name of a transform in torchvision.transforms.v2 or timm.data, such as RandomRotation."),
    (image(model={"path": "x", "head": "mpl"}), "model.head.type must be 'linear', 'mlp' or 'cosine'. Got 'mpl'. Nearest: 'mlp'."),
    (image(model={"path": "x", "head": {"hidden": [8]}}), "model.head.hidden must not be set unless type is mlp. Got [8]."),
    (image(model={"path": "x", "head": {"type": "cosine", "dropout": 0.5}}), "model.head.dropout must not be set unless type is mlp. Got 0.5."),
    (image(model={"path": "x", "head": {"type": "mlp", "hidden": []}}), "model.head.hidden must not be empty. Got []."),
    (image(model={"path": "x", "head": {"type": "mlp", "hidden": [0]}}), "model.head.hidden[0] must be at least 1. Got 0."),
    (image(model={"path": "x", "head": {"pool": "max"}}), "model.head.pool must be 'auto', 'own', 'cls', 'mean' or 'attention'. Got 'max'."),
    (image(model={"path": "x", "head": "mlp", "adapter": {"type": "lora", "save": "both"}}), "model.adapter.save must be merged unless the head is linear. Got 'both'. peft would load the adapter into a checkpoint with the architecture's own head."),
    (text(speed={"memory_format": "channels_last"}), "speed.memory_format must not be set when the task is text-classification. Got 'channels_last'. It is a memory format for images."),
    (image(stages=[]), "stages must not be empty. Got []."),
    (image(stages=STAGE), "stages must be a list. Got {'epochs': 1, 'lr': 0.1, 'train': 'head'}."),
    (image(stages=[STAGE, "all"]), "stages[1] must be a mapping of fields. Got 'all'."),
    (stage(train=[]), "stages[1].train must be a selector or a list of selectors. Got []. For example head, last:3, all."),
    (stage(train=["head", 3]), "stages[1].train must be a selector or a list of selectors. Got ['head', 3]. For example head, last:3, all."),
    (stage(name="-head"), "stages[1].name must start with a letter or digit and contain only letters, digits, '.', '_' and '-'. Got '-head'."),
    (stage(name="a" * 101), f"stages[1].name must have at most 100 characters. Got '{'a' * 47}...{'a' * 48}'."),
    (stage(lr=None, optimizer="sgd"), "stages[1].lr must be set when the optimizer is sgd. The default learning rates (docs/rates.md) are for AdamW."),
    (stage(lr=0), "stages[1].lr must be above 0. Got 0."),
    (stage(lr="1e-3"), "stages[1].lr must be a number. Got '1e-3'. Remove the quotes."),
    (stage(lr="fast"), "stages[1].lr must be a number. Got 'fast'."),
    (stage(lr=True), "stages[1].lr must be a number. Got True."),
    (stage(lr=float("nan")), "stages[1].lr must be a finite number. Got nan."),
    (stage(lr={}), "stages[1].lr.head must be set. Peak learning rate of the head.\nstages[1].lr.backbone must be set. Peak learning rate of the layer groups; or a pair [first layer group, last layer group], interpolated geometrically."),
    (stage(lr={"head": 0.1, "backbon": 0.1}), "stages[1].lr.backbone must be set. Peak learning rate of the layer groups; or a pair [first layer group, last layer group], interpolated geometrically.\nstages[1].lr.backbon must be a known field. Nearest: 'backbone'."),
    (stage(lr={"head": 0, "backbone": 0.1}), "stages[1].lr.head must be above 0. Got 0."),
    (stage(lr={"head": 1, "backbone": "1e-5"}), "stages[1].lr.backbone must be a learning rate above 0, or a pair of them: first and last layer group. Got '1e-5'. For example 1e-5, or [1e-6, 1e-5]."),
    (stage(lr={"head": 1, "backbone": [1e-5, 0]}), "stages[1].lr.backbone must be a learning rate above 0, or a pair of them: first and last layer group. Got [1e-05, 0]. For example 1e-5, or [1e-6, 1e-5]."),
    (stage(lr={"head": 1, "backbone": [1e-5]}), "stages[1].lr.backbone must be a learning rate above 0, or a pair of them: first and last layer group. Got [1e-05]. For example 1e-5, or [1e-6, 1e-5]."),
    (stage(lr={"head": 1, "backbone": 0.1}, layer_decay=0.9), "stages[1].layer_decay must not be set when lr has a rate for the backbone. Got 0.9. To decrease the rates towards the input, set lr.backbone to a pair such as [1e-6, 1e-5]."),
    (stage(epochs=None), f"stages[1] {EITHER} Got neither."),
    (stage(max_steps=10), f"stages[1] {EITHER} Got epochs 1 and max_steps 10."),
    (stage(warmup=1.0), "stages[1].warmup must be a whole number of steps, or a fraction below 1 of the stage's steps. Got 1.0."),
    (stage(warmup=-1), "stages[1].warmup must be a whole number of steps, or a fraction below 1 of the stage's steps. Got -1."),
    (stage(layer_decay=1.5), "stages[1].layer_decay must be at most 1. Got 1.5."),
    (stage(optimizer={"args": {"momentum": {"a": 1}}}), "stages[1].optimizer.args.momentum must be a finite number, true, false, text, or a list of finite numbers. Got {'a': 1}."),
    (stage(optimizer={"args": {"betas": [0.9, "x"]}}), "stages[1].optimizer.args.betas must be a finite number, true, false, text, or a list of finite numbers. Got [0.9, 'x']."),
    (stage(optimizer={"args": {"eps": float("inf")}}), "stages[1].optimizer.args.eps must be a finite number, true, false, text, or a list of finite numbers. Got inf."),
    (stage(optimizer={"args": [0.9]}), "stages[1].optimizer.args must be a mapping. Got [0.9]."),
    (stage(optimizer={"args": {"lr": 0.1}}), "stages[1].optimizer.args.lr must not be set. Got 0.1. Set the stage's lr instead."),
    (stage(schedule="cosin"), "stages[1].schedule.name must be 'linear', 'cosine', 'constant', 'polynomial', 'exponential', 'step', 'cosine_with_restarts', 'one_cycle', 'warmup_stable_decay' or 'slanted_triangular'. Got 'cosin'. Nearest: 'cosine'."),
    (stage(schedule={"power": 2}), "stages[1].schedule.power must not be set unless name is polynomial. Got 2."),
    (stage(schedule={"hed": "linear"}), "stages[1].schedule.hed must be a known field. Nearest: 'head'."),
    (stage(schedule={"head": "linear"}), "stages[1].schedule.backbone must be set. Schedule of all layer groups below the head."),
    (stage(schedule={"head": "linea", "backbone": "linear"}), "stages[1].schedule.head.name must be 'linear', 'cosine', 'constant', 'polynomial', 'exponential', 'step', 'cosine_with_restarts', 'one_cycle', 'warmup_stable_decay' or 'slanted_triangular'. Got 'linea'. Nearest: 'linear'."),
    (stage(schedule={"head": "linear", "backbone": {"name": "cosine", "power": 2}}), "stages[1].schedule.backbone.power must not be set unless name is polynomial. Got 2."),
    (stage(schedule={"head": "linear", "backbone": "cosine", "power": 2}), "stages[1].schedule.power must be a known field. Known: 'head', 'backbone'."),
    (stage(schedule={"name": "polynomal", "power": 0}), "stages[1].schedule.name must be 'linear', 'cosine', 'constant', 'polynomial', 'exponential', 'step', 'cosine_with_restarts', 'one_cycle', 'warmup_stable_decay' or 'slanted_triangular'. Got 'polynomal'. Nearest: 'polynomial'.\nstages[1].schedule.power must be above 0. Got 0."),
    (stage(schedule={"name": "step", "factor": 2}), "stages[1].schedule.factor must be at most 1. Got 2."),
    (stage(schedule={"name": "step", "every": 1.5}), "stages[1].schedule.every must be a whole number of steps, or a fraction below 1 of the stage's steps. Got 1.5."),
    (stage(schedule={"name": "step", "every": 0}), "stages[1].schedule.every must be at least 1 step, or a fraction above 0. Got 0."),
    (stage(schedule={"name": "linear", "cycles": 3}), "stages[1].schedule.cycles must not be set unless name is cosine_with_restarts. Got 3."),
    (stage(schedule={"name": "one_cycle", "cut_frac": 0.3}), "stages[1].schedule.cut_frac must not be set unless name is slanted_triangular. Got 0.3."),
    (stage(schedule="one_cycle", warmup=10), "stages[1].warmup must not be set with the one_cycle schedule. Got 10. The schedule has its own warmup. Set schedule.pct_start."),
    (stage(schedule={"head": "linear", "backbone": "slanted_triangular"}, warmup=0.1), "stages[1].warmup must not be set with the slanted_triangular schedule. Got 0.1. The schedule has its own warmup. Set schedule.backbone.cut_frac."),
    (stage(balance="class_weight"), "stages[1].balance.method must be 'none', 'class_weights', 'effective_number', 'sampler', 'focal' or 'logit_adjustment'. Got 'class_weight'. Nearest: 'class_weights'."),
    (stage(balance={"method": "focal", "gama": 2}), "stages[1].balance.gama must be a known field. Nearest: 'gamma'."),
    (stage(balance={"method": "focal", "tau": 2}), "stages[1].balance.tau must not be set unless method is logit_adjustment. Got 2."),
    (stage(balance={"method": "sampler", "weights": {"a": 2}}), "stages[1].balance.weights must not be set unless method is class_weights or focal. Got {'a': 2}."),
    (stage(balance={"method": "class_weights", "weights": {"a": 0}}), "stages[1].balance.weights.a must be above 0. Got 0."),
    (stage(balance={"method": "class_weights", "weights": {True: 2.0}}), "stages[1].balance.weights must have class names as keys. Got True. Put the key in quotes."),
    (stage(balance={"method": "effective_number", "beta": 1}), "stages[1].balance.beta must be below 1. Got 1."),
    (stage(balance="focal", label_smoothing=0.1), "stages[1].label_smoothing must be 0 when balance is focal. Got 0.1. The focal loss is defined for hard labels."),
    (stage(regularize={"l1": -1}), "stages[1].regularize.l1 must be at least 0. Got -1."),
    (stage(regularize={"ema": 1}), "stages[1].regularize.ema must be below 1. Got 1."),
    (stage(regularize={"ema": 0.0}), "stages[1].regularize.ema must be above 0. Got 0.0."),
    (stage(regularize={"l2": 0.1}), "stages[1].regularize.l2 must be a known field. Known: 'l1', 'l2_sp', 'r_drop', 'ema', 'mixup', 'cutmix', 'gradient_noise'."),
    (stage(regularize={"r_drop": 1.0}), "stages[1].regularize.r_drop must not be set when the task is image-classification. Got 1.0. It applies to texts and histories; for images, use mixup or cutmix."),
    (text(stages=[{**STAGE, "regularize": {"mixup": 0.2}}]), "stages[0].regularize.mixup must not be set when the task is text-classification. Got 0.2. It applies to images; for texts, use r_drop."),
    (text(stages=[{**STAGE, "regularize": {"cutmix": 1}}]), "stages[0].regularize.cutmix must not be set when the task is text-classification. Got 1. It applies to images; for texts, use r_drop."),
    (stage(regularize={"cutmix": 1.0}, batch_size=1), "stages[1].regularize.cutmix must not be set when batch_size is 1. Got 1.0. Mixing needs at least two images per batch."),
    (stage(regularize={"l2_sp": 0.1}, compress=0.3), "stages[1].regularize.l2_sp must not be set after structured pruning. Got 0.1. The checkpoint's weights do not match the pruned shapes."),
    (image(model={"path": "x", "adapter": "lora"}, stages=[{**STAGE, "train": "lora", "regularize": {"l2_sp": 0.1}}]), "stages[0].regularize.l2_sp must not be set when model.adapter is set. Got 0.1. The checkpoint's weights are frozen. Use weight_decay, which moves the adapter towards no change."),
    (image(stages=None, strategy={**STRATEGY, "regularize": {"r_drop": 1.0}}), "strategy.regularize.r_drop must not be set when the task is image-classification. Got 1.0. It applies to texts and histories; for images, use mixup or cutmix."),
    (stage(carry_optimizer=1), "stages[1].carry_optimizer must be true or false. Got 1."),
    (stage(carry_optimizer=True, optimizer="sgd"), "stages[1].optimizer must be the same as in the previous stage, including args, when carry_optimizer is true. Got 'sgd'. Optimizer state cannot be loaded into a different optimizer."),
    (stage(carry_optimizer=True, optimizer={"args": {"amsgrad": True}}), "stages[1].optimizer must be the same as in the previous stage, including args, when carry_optimizer is true. Got {'args': {'amsgrad': True}}. Optimizer state cannot be loaded into a different optimizer."),
    (image(stages=[{**STAGE, "carry_optimizer": True}]), "stages[0].carry_optimizer must not be set in the first stage. Got true. There is no earlier optimizer state."),
    (image(stages=None), "stages must be set. Write a list of stages, or set strategy to gradual_unfreeze or features."),
    (image(strategy="gradual_unfreeze"), "strategy must not be set when stages are set. Got 'gradual_unfreeze'. A strategy generates the stages. To use it, set stages to null."),
    (image(stages=None, strategy="gradual_unfreze"), "strategy.name must be 'gradual_unfreeze' or 'features'. Got 'gradual_unfreze'. Nearest: 'gradual_unfreeze'."),
    (image(stages=None, strategy={"epochs": 1}), "strategy.name must be set. Strategy from which the stages are generated: gradual_unfreeze = stages that train the head, then more and more of the last layer groups, then all parameters; features = one stage that trains only the head, on the outputs of the frozen layers; no measured benefit."),
    (image(stages=None, strategy={**STRATEGY, "epochs": 1, "max_steps": 2}), f"strategy {EITHER} Got epochs 1 and max_steps 2."),
    (image(stages=None, strategy={**STRATEGY, "groups_per_stage": 0}), "strategy.groups_per_stage must be at least 1. Got 0."),
    (image(stages=None, strategy={**STRATEGY, "train": "all"}), "strategy.train must be a known field. Known: 'name', 'groups_per_stage', 'epochs', 'max_steps', 'lr', 'optimizer', 'schedule', 'warmup', 'weight_decay', 'layer_decay', 'batch_size', 'accumulation', 'clip', 'label_smoothing', 'balance', 'regularize', 'early_stopping', 'best', 'carry_optimizer', 'teacher', 'classifier'."),
    (image(stages=None, strategy={**STRATEGY, "lr": {"head": 1, "backbone": 0.1}, "layer_decay": 0.9}), "strategy.layer_decay must not be set when lr has a rate for the backbone. Got 0.9. To decrease the rates towards the input, set lr.backbone to a pair such as [1e-6, 1e-5]."),
    (stage(early_stopping=0), "stages[1].early_stopping.patience must be at least 1. Got 0."),
    (image(stages=[{**STAGE, "early_stopping": 2, "best": None}]), "stages[0].best must not be null when early_stopping is set. Early stopping monitors the metric of best. Remove best, or set best.metric."),
    (image(stages=[{**STAGE, "name": "a"}, {**STAGE, "train": "all", "name": "a"}]), "stages[1].name must be unique. Got 'a'. stages[0] already has this name."),
    (image(stages=[STAGE, {**STAGE, "name": "again"}]), "stages[1] must differ from the previous stage. Got 'head'. Increase the epochs of the previous stage, or change this one."),
    (image(metrics=5), "metrics must be a list. Got 5."),
    (image(evaluation={"batch_size": 0}), "evaluation.batch_size must be at least 1. Got 0."),
    (image(seed=2**32), "seed must be at most 4294967295. Got 4294967296."),
    (image(sed=1), "sed must be a known field. Nearest: 'seed'."),
    (image(colour=1), "colour must be a known field. Known: 'task', 'model', 'data', 'stages', 'strategy', 'domain_adaptation', 'metrics', 'evaluation', 'limit', 'speed', 'track', 'seed', 'publish', 'search'."),
    ({**image(), 1: 2}, "recipe must have text as keys. Got 1. Put the key in quotes."),
    ([1], "recipe must contain a mapping of fields. Got [1]. Start with the fields task, model, data and stages."),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "expected"), SINGLE, ids=[expected[:50] for _, expected in SINGLE])
def test_message_for_one_error(recipe, expected):
    assert said(recipe) == expected.splitlines()


def test_all_errors_are_reported_together():
    recipe = {
        "task": "text-classification",
        "model": {"dropout": 2, "pth": "x"},
        "data": {"path": "x", "limit": 0, "image_size": 224, "split": {"validation": 0.5, "test": 0.6}},
        "stages": [
            {"name": "a", "train": "head", "epochs": 1, "lr": -1},
            {"name": "a", "train": "all", "lr": 1, "early_stoping": 2},
        ],
    }
    assert said(recipe, ["sead=1", "seed=-1"]) == [
        "sead=1 must set a known field. Got 'sead'. Nearest: 'seed'.",
        "model.dropout must be below 1. Got 2.",
        "model.pth must be a known field. Nearest: 'path'.",
        "data.limit must be at least 1. Got 0.",
        "stages[0].lr must be above 0. Got -1.",
        "stages[1].early_stoping must be a known field. Nearest: 'early_stopping'.",
        "seed must be at least 0. Got -1.",
        "data.image_size must not be set when the task is text-classification. Got 224.",
        "data.split must have validation + test below 1. Got 0.5 + 0.6. The rest is used for training.",
        "model.path must be set. Checkpoint: a Hub id (timm/... for timm's) or a local folder; required unless new is "
        "set.",
        f"stages[1] {EITHER} Got neither.",
        "stages[1].name must be unique. Got 'a'. stages[0] already has this name.",
    ]


def test_an_empty_call_reports_all_required_fields():
    assert [line.partition(" ")[0] for line in said({})] == ["task", "model", "data", "stages"]


def test_stages_that_are_all_wrong_are_not_called_missing():
    assert said(image(stages=[{**STAGE, "lr": 0}])) == ["stages[0].lr must be above 0. Got 0."]


def test_long_and_circular_values_are_cut_short():
    circle: list = []
    circle.append(circle)
    assert said(image(task=circle)) == [f"task must be {TASK_NAMES}. Got [[[[...]]]]."]
    assert len(said(image(model={"path": list(range(10_000))}))[0]) < 100


def test_an_error_without_a_message_of_the_package_is_still_a_clause():
    class Dated(BaseModel):
        seed: bytes

    assert "bytes_type" not in RULES, "take a type that the table lacks"
    with pytest.raises(ValidationError) as caught:
        Dated(seed=5)
    assert [str(problem) for problem in problems_of(caught.value)] == ["seed must be a valid bytes. Got 5."]


def test_messages_contain_no_wording_of_pydantic():
    texts = [line for recipe, _ in SINGLE for line in said(recipe)]
    assert not [
        line for line in texts if re.search(r"Input should|Value error|valid (string|integer)|pydantic", line)
    ]

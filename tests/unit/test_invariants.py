"""The central guarantee, on every family: a stage trains exactly the parameters that it declares.

Each model is trained in four stages of ``train_stage``, as in a run. The expected values come from the model's modules
and parameters here, not from the package.
"""

import pytest
import torch
from removals import mean_loss, mode_of_the_module, only_with_parameters
from stage_helpers import Examples, WholeBatch, differing, state_of, train_stages
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_finetune.models.layout import read_layout
from hf_finetune.training.freezing import freeze_all_but

pytestmark = pytest.mark.slow

ARCHITECTURES = [
    *("timm/test_resnet", "timm/vgg11_bn", "timm/inception_v3", "timm/test_efficientnet"),
    *("timm/test_convnext", "timm/test_vit", "timm/swin_tiny_patch4_window7_224"),
    *("vit", "deit", "dinov2", "swin", "resnet", "convnext"),
    *("bert", "distilbert", "roberta", "albert", "deberta-v2", "modernbert", "gpt2", "electra"),
]
SLOW = ("timm/inception_v3", "timm/test_convnext", "timm/test_vit")
EVERY_ARCHITECTURE = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in ARCHITECTURES],
)
STAGES = ["head", "last:1", "norms", "all"]
# Pretrained weights that no classifier uses: no stage can change them.
UNUSED = {"dinov2": {"dinov2.embeddings.mask_token"}}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def one_rate(original, layout, trainable, lr, weight_decay, *factors):
    """One learning rate for all groups."""
    return original(layout, trainable, lr, weight_decay)


@pytest.mark.defends(
    "hf_finetune.training.trainer:SingleStageTrainer.create_optimizer",
    why="The optimizer holds the planned groups with their learning rates and weight decay",
    ids=["bert"],
)
@pytest.mark.defends(
    "hf_finetune.training.freezing:_StaysInEval.__call__",
    why="Frozen modules stay in eval mode whatever calls `train()`",
    by=mode_of_the_module,
    ids=["timm/test_resnet"],
)
@pytest.mark.defends(
    "hf_finetune.training.freezing:release_eval_mode",
    why="A stage puts the modules that it trains back into training mode",
    ids=["timm/test_resnet"],
)
@pytest.mark.defends(
    "hf_finetune.planning.groups:plan_groups",
    why="Rates decrease towards the input",
    by=one_rate,
    ids=["vit"],
)
@EVERY_ARCHITECTURE
def test_what_a_stage_says_is_trained_is_trained_and_nothing_else_moves(tmp_path, tiny_model, name):
    model = with_dropout(tiny_model(name))
    layout = read_layout(model)
    initial = state_of(model)
    stages, seen = train_stages(model, tmp_path, STAGES)
    for before, watch in zip([initial, *(watch.after for watch in seen)], seen, strict=False):
        assert differing(before, watch.before) == set()  # nor does anything change between two stages
    for plan, watch in zip(stages, seen, strict=True):
        trained = set(plan.trainable)

        # the optimizer: each trained parameter once, at the rate of its depth
        settings = {parameter: (rate, decay) for names, rate, decay in watch.groups for parameter in names}
        assert sum(len(names) for names, _, _ in watch.groups) == len(settings)
        assert settings == {
            parameter.name: (
                pytest.approx(0.01 * 0.5 ** (layout.head_group - parameter.group)),
                0.05 if parameter.decays else 0.0,
            )
            for parameter in layout.parameters
            if parameter.name in trained
        }

        # what changed: exactly the trained parameters and the statistics of the trained BatchNorms, bit for bit
        owners = {parameter.rpartition(".")[0] for parameter in trained}
        norms = {name for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
        assert set(plan.frozen_batch_norms) == norms - owners
        changed = differing(watch.before, watch.after)
        assert changed - trained == {f"{norm}.{buffer}" for norm in norms & owners for buffer in STATISTICS}
        assert trained - changed == trained - watch.moved_by_gradient == trained & UNUSED.get(name, set())

        # the mode: a module without trained parameters, and all its children, ran in eval mode
        frozen = {
            path
            for path, module in model.named_modules()
            if any(True for _ in module.parameters()) and not any(_is_in(owner, path) for owner in owners)
        }
        in_eval = {path for path in watch.modes if any(_is_in(path, top) for top in frozen)}
        assert {path: watch.modes[path] for path in in_eval} == {path: {False} for path in in_eval}
        in_training = owners & watch.modes.keys()
        assert {path: watch.modes[path] for path in in_training} == {path: {True} for path in in_training}
    assert set(stages[-1].trainable) == {path for path, _ in model.named_parameters()}


@pytest.mark.defends(
    "hf_finetune.targets.losses:loss_for",
    why="The loss is divided by the number of labels in the whole batch",
    by=mean_loss,
    ids=["vit"],
)
@EVERY_ARCHITECTURE
def test_the_gradient_of_every_stage_is_that_of_its_whole_batch(tmp_path, tiny_model, name, monkeypatch):
    """Accumulated over three micro-batches, of which the last is smaller."""
    monkeypatch.setattr(_BatchNorm, "train", lambda self, mode=True: nn.Module.train(self, False))
    model = with_dropout(tiny_model(name), 0.0)
    whole = WholeBatch(model)
    stages, _ = train_stages(
        model,
        tmp_path,
        STAGES,
        data=Examples(model, 5),
        collator=whole.collate,
        callbacks=[whole],
        batch_size=2,
        accumulation=3,
        max_steps=1,
    )
    for plan, (taken, expected) in zip(stages, whole.pairs, strict=True):
        assert taken.keys() == expected.keys() == set(plan.trainable) - UNUSED.get(name, set())
        norms = [torch.stack([value.norm() for value in each.values()]).norm() for each in (taken, expected)]
        assert norms[0].item() == pytest.approx(norms[1].item(), rel=1e-4)
        errors = {each: ((taken[each] - expected[each]).norm() / norms[1]).item() for each in taken}
        assert {each: error for each, error in errors.items() if error > 1e-4} == {}


@pytest.mark.defends(
    "hf_finetune.training.freezing:frozen_modules",
    why="Dropout before the first trained layer is off",
    by=only_with_parameters,
    ids=["bert"],
)
@EVERY_ARCHITECTURE
def test_what_stands_before_the_first_trained_layer_gives_the_same_each_time(tiny_model, name):
    """Dropout and stochastic depth are off there, wherever the architecture registers them."""
    model = with_dropout(tiny_model(name))
    layout = read_layout(model)
    batch = Examples(model, 4).inputs
    for group in range(1, len(layout.groups)):
        trained = {parameter.name for parameter in layout.parameters if parameter.group >= group}
        freeze_all_but(model, trained)
        first = [_input_of_first(model, trained, batch) for _ in range(2)]
        assert torch.equal(*first), layout.groups[group]


def with_dropout(model, rate=0.2):
    """Set every dropout and stochastic depth of the architecture."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
        elif "DropPath" in type(module).__name__:
            module.drop_prob = rate
    return model


def _is_in(path, module):
    return path == module or module == "" or path.startswith(f"{module}.")


def _input_of_first(model, trained, batch):
    """Return the input of the first module that computes with trained parameters only."""
    whole = [
        path
        for path, module in model.named_modules()
        if (names := {f"{path}.{name}" for name, _ in module.named_parameters()}) and names <= trained
    ]
    found = []
    hooks = [
        model.get_submodule(path).register_forward_pre_hook(lambda module, inputs: found.append(inputs))
        for path in whole
    ]
    model.train()
    with torch.no_grad():
        model(**batch)
    for hook in hooks:
        hook.remove()
    return next(value for inputs in found for value in inputs if isinstance(value, torch.Tensor))

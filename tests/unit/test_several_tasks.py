"""Several tasks in one model: shares of an epoch, labels, the loss, the heads, and the parameters of a step."""

import math

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_finetune.data.distributed_sampling import PaddedDataset, count_labels
from hf_finetune.data.joint_tasks import MultiTaskDataset, task_columns
from hf_finetune.methods.class_balance import balanced_loss
from hf_finetune.methods.task_mixing import FreezeIdleHeads, TaskMixture, TaskSampler, mixed_loss
from hf_finetune.models.find_head import head_names
from hf_finetune.models.joining import extract_task_weights, join_tasks, task_heads
from hf_finetune.models.layout import read_layout
from hf_finetune.models.task_heads import TaskHeads
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.recipe.mixing import MixingSpec
from hf_finetune.recipe.multitask import task_problems
from hf_finetune.runs.joint import epoch_counts
from hf_finetune.tasks.seeded_augmentation import set_epoch

COLUMNS = task_columns({"type": ("single_label", 3), "tags": ("multi_label", 2), "price": ("regression", 1)})
NAN = math.nan


@pytest.mark.parametrize(
    ("sizes", "mixing", "expected"),
    [
        ((100, 25), {"method": "size"}, (100, 25)),
        ((100, 25), {"method": "temperature", "temperature": 1.0}, (100, 25)),
        ((100, 25), {"method": "temperature"}, (83, 42)),  # 10 to 5 of 125: 83.33 and 41.67
        ((5, 5, 1), {"method": "equal"}, (4, 4, 3)),  # 3.67 each
        ((10, 0), {"method": "equal"}, (5, 5)),
        ((8, 1), {"method": "temperature", "temperature": 3.0}, (6, 3)),  # 2 to 1 of 9
    ],
)
def test_an_epoch_is_shared_as_computed_by_hand(sizes, mixing, expected):
    assert epoch_counts(sizes, MixingSpec(**mixing).exponent) == expected
    assert sum(expected) == sum(sizes)


def test_the_sampler_draws_the_given_counts_and_cycles_through_each_task():
    sampler = TaskSampler((4, 10), (9, 5), seed=1)
    drawn = list(sampler)
    first = [index for index in drawn if index < 4]
    second = [index for index in drawn if index >= 4]
    assert len(drawn) == len(sampler) == 14
    assert sorted(first.count(index) for index in range(4)) == [2, 2, 2, 3]
    assert len(second) == len(set(second)) == 5
    assert max(second) < 14


@pytest.mark.defends(
    "hf_finetune.methods.task_mixing:TaskSampler.set_epoch", why="Each epoch mixes the tasks differently"
)
def test_the_sampling_of_tasks_depends_on_seed_and_epoch_only():
    one, other = TaskSampler((6, 6), (8, 4), seed=5), TaskSampler((6, 6), (8, 4), seed=5)
    torch.manual_seed(1)
    first = list(one)
    torch.manual_seed(2)
    assert list(other) == first
    one.set_epoch(1)
    assert list(one) != first
    one.set_epoch(0)
    assert list(one) == first
    assert list(TaskSampler((6, 6), (8, 4), seed=6)) != first


def test_examples_of_similar_length_are_batched_together():
    lengths = [1] * 64 + [50] * 64
    drawn = list(TaskSampler((64, 64), (64, 64), seed=0, lengths=lengths, examples_per_step=4))
    batches = [{lengths[index] for index in drawn[start : start + 4]} for start in range(0, 128, 4)]
    assert sorted(drawn) == list(range(128))
    assert sum(len(batch) == 1 for batch in batches) >= 28


def test_a_label_has_numbers_in_the_columns_of_its_task_only():
    parts = [
        [{"labels": 2}],
        [{"labels": [0.0, 1.0]}, {"labels": torch.tensor([1.0, 1.0])}],
        [{"labels": -100.0}],
    ]
    mixed = MultiTaskDataset(parts, COLUMNS, COLUMNS[-1].labels[1])
    rows = torch.tensor([mixed[index]["labels"] for index in range(len(mixed))])
    expected = [[2, NAN, NAN, NAN], [NAN, 0, 1, NAN], [NAN, 1, 1, NAN], [NAN, NAN, NAN, -100]]
    torch.testing.assert_close(rows, torch.tensor(expected), equal_nan=True)
    filler = torch.tensor(PaddedDataset(mixed)[len(mixed)]["labels"])
    assert filler.isnan().all()


class Versions(list):
    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch


@pytest.mark.defends(
    "hf_finetune.data.joint_tasks:MultiTaskDataset.set_epoch",
    why="Each epoch augments the examples of every task differently",
)
def test_the_epoch_reaches_the_examples_of_every_task():
    parts = [Versions([{"labels": 0}]), Versions([{"labels": 1}])]
    set_epoch(MultiTaskDataset(parts, COLUMNS[:2], 4), 3)
    assert [part.epoch for part in parts] == [3, 3]


LOGITS = torch.tensor(
    [[0.0, 1.0, 2.0, 0.5, -0.5, 3.0], [1.0, 0.0, 0.0, 2.0, 1.0, 0.5], [0.0, 0.0, 0.0, 0.0, 0.0, 4.0]]
)
LABELS = torch.tensor([[2, NAN, NAN, NAN], [NAN, 1, 0, NAN], [NAN, NAN, NAN, 1.5]])
TYPE = math.log(1 + math.exp(-1) + math.exp(-2))  # -log softmax([0, 1, 2])[2]
TAGS = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2
PRICE = 2.5**2


def losses():
    return [balanced_loss(task.target, None) for task in COLUMNS]


def test_the_loss_with_fixed_weights_is_the_mean_over_examples_each_times_its_weight():
    loss = mixed_loss(COLUMNS, losses(), [1.0, 0.5, 0.25])
    expected = (TYPE + 0.5 * TAGS + 0.25 * PRICE) / 3
    assert loss((LOGITS,), LABELS).item() == pytest.approx(expected, rel=1e-6)
    assert loss((LOGITS,), LABELS, torch.tensor(6)).item() == pytest.approx(expected / 2, rel=1e-6)


def test_one_task_alone_has_the_loss_of_a_run_of_one_task():
    for index, task in enumerate(COLUMNS):
        rows = slice(index, index + 1)
        found = mixed_loss(COLUMNS, losses(), [1.0, 1.0, 1.0])((LOGITS[rows],), LABELS[rows])
        labels = task.select_labels(LABELS[rows])
        labels = labels[:, 0].long() if task.target == "single_label" else labels
        assert found.item() == pytest.approx(
            losses()[index]((task.select_logits(LOGITS[rows]),), labels).item()
        )


def test_the_loss_with_learnt_weights_and_its_gradient_are_those_of_kendall():
    variances = torch.tensor([0.3, -0.2, 0.7], requires_grad=True)
    logits = torch.cat([LOGITS, variances.expand(3, 3)], dim=-1)
    found = mixed_loss(COLUMNS, losses(), None)((logits,), LABELS)
    parts = [(1.0, TYPE, 0.3), (1.0, TAGS, -0.2), (0.5, PRICE, 0.7)]
    expected = sum(c * math.exp(-s) * each + s / 2 for c, each, s in parts) / 3
    assert found.item() == pytest.approx(expected, rel=1e-6)
    found.backward()
    slopes = [(-c * math.exp(-s) * each + 0.5) / 3 for c, each, s in parts]
    assert variances.grad.tolist() == pytest.approx(slopes, rel=1e-5)


@pytest.mark.parametrize("weights", [[1.0, 0.5, 2.0], None], ids=["fixed", "learnt"])
def test_the_gradient_does_not_depend_on_how_a_step_is_divided(weights):
    torch.manual_seed(0)
    logits = torch.randn(8, 9)
    labels = torch.cat([LABELS, LABELS.flip(0), LABELS[:2]])
    loss = mixed_loss(COLUMNS, losses(), weights)

    def gradient(cuts):
        given = logits.clone().requires_grad_()
        variances = torch.tensor([0.1, 0.2, 0.3], requires_grad=True)
        for start, end in cuts:
            whole = torch.cat([given[start:end, :6], variances.expand(end - start, 3)], dim=-1)
            loss((whole,), labels[start:end], torch.tensor(8)).backward()
        learnt = variances.grad if weights is None else torch.zeros(3)
        return torch.cat([given.grad[:, :6].flatten(), learnt])

    torch.testing.assert_close(gradient([(0, 8)]), gradient([(0, 1), (1, 5), (5, 8)]))


def test_a_task_without_examples_in_a_batch_has_a_gradient_of_zero_and_not_none():
    heads = TaskHeads({"a": nn.Linear(3, 2), "b": nn.Linear(3, 2)}, learns_weights=True)
    columns = task_columns({"a": ("single_label", 2), "b": ("single_label", 2)})
    loss = mixed_loss(columns, [balanced_loss("single_label", None)] * 2, None)
    loss((heads(torch.randn(4, 3)),), torch.tensor([[0.0, NAN]] * 4)).backward()
    assert all(parameter.grad is not None for parameter in heads.parameters())
    assert all(not parameter.grad.any() for parameter in heads.task_parameters("b"))
    assert all(parameter.grad.any() for parameter in heads.task_parameters("a"))


@pytest.mark.defends(
    "hf_finetune.methods.task_mixing:FreezeIdleHeads.on_pre_optimizer_step",
    why="A step without examples of a task leaves the head of the task unchanged",
)
def test_a_step_without_examples_of_a_task_leaves_its_head_unchanged_despite_decay_and_momentum(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 3), TaskHeads({"a": nn.Linear(3, 2), "b": nn.Linear(3, 2)}, learns_weights=True)
    )
    columns = task_columns({"a": ("single_label", 2), "b": ("single_label", 2)})
    loss = mixed_loss(columns, [balanced_loss("single_label", None)] * 2, None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)

    def step(labels):
        optimizer.zero_grad()
        loss((model(torch.randn(4, 3)),), torch.tensor(labels)).backward()
        FreezeIdleHeads().on_pre_optimizer_step(arguments, TrainerState(), TrainerControl(), model=model)
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        optimizer.step()
        return {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}

    everything = {name for name, _ in model.named_parameters()}
    assert step([[0.0, NAN], [1.0, NAN], [NAN, 1.0], [NAN, 0.0]]) == everything
    of_b = {"1.task_b.weight", "1.task_b.bias", "1.log_variance_b"}
    assert step([[0.0, NAN], [1.0, NAN], [1.0, NAN], [0.0, NAN]]) == everything - of_b


def count_numbers(original, self, batches, gather):
    """The count of the numbers in the labels."""
    return count_labels(batches, gather)


@pytest.mark.defends(
    "hf_finetune.methods.task_mixing:TaskMixture.loss_denominator",
    why="A step of several tasks is divided by its number of examples",
    by=count_numbers,
)
def test_a_step_counts_examples_however_many_numbers_a_label_is_made_of():
    mix = TaskMixture(COLUMNS, (3, 2, 1), (3, 2, 1), mixed_loss(COLUMNS, losses(), None))
    filler = torch.full((1, 4), NAN)
    batches = [{"labels": LABELS}, {"labels": torch.cat([LABELS[1:2], filler])}]
    assert mix.loss_denominator(batches, lambda number: number).item() == 4


TWO = {
    name: {"task": "image-classification", "data": {"path": name, "split": {"validation": 0.2}}}
    for name in ("dish", "style")
}
SEVERAL = {
    "task": "multi-task",
    "model": "x",
    "tasks": TWO,
    "stages": [{"train": "head", "epochs": 1, "lr": 0.1}],
}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"domain_adaptation": {"target": "x"}}, "domain_adaptation"),
        ({"model": {"path": "x", "adapter": "lora"}}, "model.adapter"),
        ({"stages": [{"regularize": {"mixup": 0.2}}]}, "stages[0].regularize.mixup"),
        ({"stages": [{"regularize": {"r_drop": 1.0}}]}, "stages[0].regularize.r_drop"),
        ({"stages": [{"fit": "logistic_regression"}]}, "stages[0].fit"),
        (
            {"stages": [{"balance": {"method": "class_weights", "weights": {"a": 2.0}}}]},
            "stages[0].balance.weights",
        ),
        ({"stages": [{"balance": {"method": "sampler"}}]}, "stages[0].balance"),
        ({"strategy": "features"}, "strategy"),
        ({"strategy": {"name": "gradual_unfreeze", "teacher": "run"}}, "strategy.teacher"),
    ],
)
def test_fields_of_one_task_are_refused_at_the_top_level(change, place):
    assert task_problems(SEVERAL) == []
    assert [problem.place for problem in task_problems({**SEVERAL, **change})] == [place]
    assert task_problems({**SEVERAL, **change, "task": "image-classification"}) == []


def test_the_recipe_of_one_task_has_its_data_and_the_shared_fields():
    shared = {"image_size": 96, "augment": "light"}
    recipe = parse_recipe({**SEVERAL, "data": shared, "metrics": ["accuracy"], "seed": 4})
    alone = recipe.task_recipe("style")
    assert (alone.task, alone.data.path, alone.seed) == ("image-classification", "style", 4)
    assert (alone.data.image_size, alone.data.augment.preset) == (96, "light")
    assert (alone.data.split.validation, alone.metrics) == (0.2, ("accuracy",))


ARCHITECTURES = [
    *("bert", "roberta", "electra", "deberta-v2", "distilbert", "modernbert", "gpt2"),
    *("vit", "deit", "dinov2", "swin", "resnet", "convnext"),
    *("timm/test_resnet", "timm/test_vit", "timm/test_efficientnet", "timm/test_convnext"),
    *("timm/swin_tiny_patch4_window7_224", "timm/vgg11_bn"),
]


def inputs_for(name):
    generator = torch.Generator().manual_seed(1)
    if name.startswith("timm/") or name in ("vit", "deit", "dinov2", "swin", "resnet", "convnext"):
        return {"pixel_values": torch.randn(3, 3, 32, 32, generator=generator)}
    return {"input_ids": torch.randint(5, 15, (3, 6), generator=generator)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_joint_model_gives_the_logits_of_each_task_and_can_be_split_by_task(tiny_model, name):
    models = {
        "type": tiny_model(name, num_labels=3),
        "b": tiny_model(name, num_labels=2),
        "c": tiny_model(name),
    }
    alone = {task: tiny_model(name, num_labels=model.num_labels) for task, model in models.items()}
    for task, model in models.items():  # heads that differ, over one backbone
        for parameter in (model.get_parameter(one) for one in head_names(model)):
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(task)))
    joined = join_tasks(models).eval()
    batch = inputs_for(name)
    with torch.no_grad():
        logits = joined(**batch).logits
        assert logits.shape == (3, 8)
        start = 0
        for task, model in alone.items():
            weights = extract_task_weights(joined, task)
            model.load_state_dict(weights)
            own = model.eval()(**batch).logits
            assert own.abs().sum() > 0
            torch.testing.assert_close(logits[:, start : start + model.num_labels], own, rtol=0, atol=0)
            start += model.num_labels


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_heads_of_all_tasks_are_the_head_and_the_layer_groups_stay_as_they_were(tiny_model, name):
    single = tiny_model(name)
    before = read_layout(single)
    joined = join_tasks({"a": tiny_model(name), "b": tiny_model(name, num_labels=2)})
    after = read_layout(joined)
    assert after.groups == before.groups
    head = {parameter.name for parameter in after.parameters if parameter.group == after.head_group}
    own = {
        f"{place}.{key}"
        for place, module in task_heads(joined).items()
        for key, _ in module.named_parameters()
    }
    assert own <= head == set(head_names(joined))
    rest = {parameter.name: parameter.group for parameter in after.parameters if parameter.name not in own}
    assert rest.items() <= {parameter.name: parameter.group for parameter in before.parameters}.items()

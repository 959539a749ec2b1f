"""KEY=VALUE overrides."""

# ruff: noqa: E501 (error texts are tested whole)

import copy

import pytest

from hf_finetune.errors import InputError
from hf_finetune.recipe.load import load_recipe, parse_recipe


def plain():
    return {
        "task": "image-classification",
        "model": "resnet",
        "data": "photos",
        "stages": [
            {
                "train": "head",
                "epochs": 1,
                "lr": 0.1,
                "optimizer": "sgd",
                "early_stopping": 2,
                "schedule": "cosine",
            },
            {"train": "all", "epochs": 1, "lr": 0.01, "best": None},
        ],
    }


def value_of(recipe, path):
    for step in path.split("."):
        recipe = recipe[int(step)] if step.isdigit() else recipe[step]
    return recipe


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=7", "seed", 7),
        ("stages.0.lr=2e-2", "stages.0.lr", 0.02),
        ("stages[1].lr=2E-2", "stages.1.lr", 0.02),
        (" seed =7", "seed", 7),
        ("data.path=./photos=2024", "data.path", "./photos=2024"),
        ("data.columns.label=dish", "data.columns.label", "dish"),
        ("data.split={validation: 0.2, test: 0}", "data.split.validation", 0.2),
        ("data.separator=tab", "data.separator", "\t"),
        ("data.separator=\\t", "data.separator", "\t"),
        ("data.separator=';'", "data.separator", ";"),
        ("data.columns.split=null", "data.columns.split", None),
        ("data.encoding=cp1252", "data.encoding", "cp1252"),
        ("model.dropout=0.1", "model.dropout", 0.1),
        ("model.dropout=0.1", "model.path", "resnet"),
        ("model=vgg", "model.path", "vgg"),
        ("metrics=[accuracy, f1_macro]", "metrics", ("accuracy", "f1_macro")),
        ("stages.0.train=layers[8:]", "stages.0.train", "layers[8:]"),
        ("stages.0.train.0=all", "stages.0.train", ("all",)),
        ("stages.0.optimizer.args.momentum=0.9", "stages.0.optimizer", {"name": "sgd", "args": {"momentum": 0.9}}),
        ("stages.0.early_stopping.threshold=0.01", "stages.0.early_stopping", {"patience": 2, "threshold": 0.01}),
        ("stages.0.early_stopping=", "stages.0.early_stopping", None),
        ("stages.1.best.metric=f1_macro", "stages.1.best.metric", "f1_macro"),
        ("stages.1.clip=null", "stages.1.clip", None),
        ("stages.1.lr.backbone=1e-5", "stages.1.lr", {"head": 0.01, "backbone": 1e-5}),
        ("stages.1.lr={head: 1, backbone: [1e-5, 1e-4]}", "stages.1.lr.backbone", (1e-5, 1e-4)),
        ("stages.1.schedule.name=cosine", "stages.1.schedule.name", "cosine"),
        ("stages.1.schedule={name: step, every: 10}", "stages.1.schedule.every", 10),
        ("stages.1.balance=focal", "stages.1.balance.gamma", 2.0),
        ("stages.1.balance={method: class_weights, weights: {soup: 3}}", "stages.1.balance.weights", {"soup": 3.0}),
        ("stages.0.schedule.head.name=linear", "stages.0.schedule.head.name", "linear"),
        ("stages.0.schedule.head=linear", "stages.0.schedule.backbone.name", "cosine"),
        ("stages.1.carry_optimizer=false", "stages.1.carry_optimizer", False),
    ],
)  # fmt: skip
def test_an_override_changes_its_field(override, path, value):
    assert value_of(parse_recipe(plain(), [override]).model_dump(), path) == value


def test_stages_can_be_exchanged_for_a_strategy_and_its_fields_changed():
    changes = ["stages=null", "strategy=gradual_unfreeze", "strategy.lr=0.1", "strategy.lr.backbone=1e-4"]
    made = parse_recipe(
        plain(), [*changes, "strategy.early_stopping.threshold=0.1", "strategy.early_stopping=2"]
    )
    assert made.stages == ()
    assert made.strategy.lr.model_dump() == {"head": 0.1, "backbone": 1e-4}
    assert made.strategy.early_stopping.patience == 2


def test_an_override_changes_no_other_field():
    expected = parse_recipe(plain()).model_dump()
    expected["stages"][0]["lr"] = 0.5
    given = plain()
    assert parse_recipe(given, ["stages.0.lr=0.5"]).model_dump() == expected
    assert given == plain(), "the mapping that was passed in must stay as it was"


def test_an_alias_in_the_yaml_does_not_spread_an_override():
    shared = {"train": "head", "epochs": 1, "lr": 0.1}
    content = {**plain(), "stages": [shared, shared]}
    changed = parse_recipe(content, ["stages.1.lr=0.2"])
    assert [stage.lr for stage in changed.stages] == [0.1, 0.2]


def test_overrides_apply_in_order_and_fix_errors_of_the_recipe():
    broken = copy.deepcopy(plain())
    broken["stages"][0]["lr"] = -1
    made = parse_recipe(broken, ["stages.0.lr=1", "stages.0.lr=2", "model={path: a}", "model.revision=main"])
    assert (made.stages[0].lr, made.model.path, made.model.revision) == (2.0, "a", "main")


BAD = [
    ("seed", "seed must have the form KEY=VALUE. For example seed=1."),
    ("=1", "=1 must have the form KEY=VALUE. For example seed=1."),
    ("sede=1", "sede=1 must set a known field. Got 'sede'. Nearest: 'seed'."),
    ("model.dropot=1", "model.dropot=1 must set a known field. Got 'dropot'. Nearest: 'dropout'."),
    ("stages.0.lrr=1", "stages.0.lrr=1 must set a known field. Got 'lrr'. Nearest: 'lr'."),
    ("stages.0.best.metrc=f1", "stages.0.best.metrc=f1 must set a known field. Got 'metrc'. Nearest: 'metric'."),
    ("stages.2.lr=1", "stages.2.lr=1 must refer to an existing entry of stages. Got 2. stages has 2 entries; indices start at 0."),
    ("stages.0.train.1=all", "stages.0.train.1=all must refer to an existing entry of stages.0.train. Got 1. stages.0.train has 1 entry; indices start at 0."),
    ("stages.head.lr=1", "stages.head.lr=1 must have an integer index after stages. Got 'head'. Indices start at 0."),
    ("stages.-1.lr=1", "stages.-1.lr=1 must have an integer index after stages. Got '-1'. Indices start at 0."),
    ("stages.².lr=1", "stages.².lr=1 must have an integer index after stages. Got '²'. Indices start at 0."),
    ("seed.x=1", "seed.x=1 must end at seed, which has no fields. Got 'x'."),
    ("metrics=[a", "metrics=[a must have a valid YAML value. Got '[a'. YAML parser error: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'."),
    ("stages.0.train=[head, layers[8:]]", "stages.0.train=[head, layers[8:]] must have a valid YAML value. Got '[head, layers[8:]]'. Inside [] and {}, put a selector such as layers[8:] in quotes."),
    ("stages.0.lr.hed=1", "stages.0.lr.hed=1 must set a known field. Got 'hed'. Nearest: 'head'."),
    ("stages.0.schedule.hed=1", "stages.0.schedule.hed=1 must set a known field. Got 'hed'. Nearest: 'head'."),
    ("strategy.epocs=1", "strategy.epocs=1 must set a known field. Got 'epocs'. Nearest: 'epochs'."),
    ("stages.0.lr=-1", "stages[0].lr must be above 0. Got -1."),
]  # fmt: skip


@pytest.mark.parametrize(("override", "expected"), BAD)
def test_messages_for_bad_overrides(override, expected):
    with pytest.raises(InputError) as caught:
        parse_recipe(plain(), [override])
    assert str(caught.value) == expected


def test_bad_overrides_are_reported_together():
    with pytest.raises(InputError) as caught:
        parse_recipe(plain(), [override for override, _ in BAD])
    assert sorted(str(problem) for problem in caught.value.problems) == sorted(
        expected for _, expected in BAD
    )


def test_an_override_without_a_target_is_reported_with_the_error_in_its_way():
    with pytest.raises(InputError) as caught:
        parse_recipe({**plain(), "data": ["photos"]}, ["data.limit=5"])
    assert [str(problem) for problem in caught.value.problems] == [
        "data.limit=5 must refer to an existing field or entry of data. Got ['photos'].",
        "data must be a mapping of fields. Got ['photos'].",
    ]


def test_overrides_of_several_tasks_are_no_problems_of_a_file_that_is_no_yaml(tmp_path):
    (tmp_path / "recipe.yaml").write_text("task: [multi-task\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_recipe(tmp_path / "recipe.yaml", ["mixing=equal", "tasks.a.weight=0.5"])
    assert len(caught.value.problems) == 1 and "mixing" not in str(caught.value)
    with pytest.raises(InputError, match="mixin=equal must set a known field"):
        load_recipe(tmp_path / "recipe.yaml", ["mixin=equal"])


def test_an_override_of_the_task_decides_which_fields_the_others_may_change():
    several = {key: value for key, value in plain().items() if key not in ("task", "data")}
    several["tasks"] = {name: {"task": "image-classification", "data": name} for name in ("a", "b")}
    recipe = parse_recipe(several, ["mixing=equal", "task=multi-task"])
    assert recipe.mixing.method == "equal"

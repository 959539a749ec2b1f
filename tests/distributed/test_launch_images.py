"""Images on two processes: class balancing, schedules, fitted head, domains, several tasks; as on one, and resumed."""

import shutil

import pytest
from alike import cached_runs_on_two
from kit_stages import kit_stages
from launching import spread
from multitask_data import image_recipe, squares_by_shade
from PIL import Image
from safetensors.torch import load_file
from test_interrupted import close, same
from test_processes import log_of, values

from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.run import run

NAMES = ("kit", "fit", "own-mlp", "coral", "dann", "continue_pretraining", "tasks")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, tiny_model):
    """Return models without BatchNorm, whose statistics would depend on the number of processes."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in ("test_vit", "test_convnext"):
        tiny_model(f"timm/{name}").save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def skewed(tmp_path_factory, squares):
    """Return a csv of the squares without five of the red ones."""
    path = tmp_path_factory.mktemp("skewed") / "squares.csv"
    files = [file for file in sorted(squares.rglob("*.png")) if file.parent.name != "red" or file.stem > "04"]
    path.write_text("\n".join(["image,label", *(f"{file},{file.parent.name}" for file in files), ""]))
    return path


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unlabelled")
    for index in range(10):
        shade = (20 * index, 255 - 20 * index, 90)
        Image.new("RGB", (40, 40), shade).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def recipes(tmp_path_factory, squares, checkpoints, skewed, unlabelled):
    """Return the recipe of a name with a number of examples for each process and step."""
    shades = squares_by_shade(squares, tmp_path_factory.mktemp("shades") / "shades.csv")

    def get(name, batch_size):
        common = {"epochs": 2.0, "batch_size": batch_size, "optimizer": "sgd", "best": None}
        head = {"name": "head", "train": "head", "lr": 0.05, **common}
        everything = {"name": "all", "train": "all", "lr": 0.01, **common}
        if name == "tasks":
            return image_recipe(
                squares,
                shades,
                checkpoints / "test_vit",
                stages=[head, everything],
                evaluation={"linear_probe": None},
            )
        content = {
            "task": "image-classification",
            "model": {"path": str(checkpoints / "test_vit")},
            "data": {
                "path": str(squares),
                "augment": "standard",
                "split": {"validation": 0.2, "test": 0.2, "stratify": False},
            },
            "stages": [head, everything],
            "evaluation": {"linear_probe": None},
        }
        if name == "kit":
            content["data"] |= {"path": str(skewed), "columns": {"image": "image", "label": "label"}}
            content["stages"] = kit_stages(**common)
            for stage in content["stages"]:
                if isinstance(stage["balance"], dict) and "weights" in stage["balance"]:
                    stage["balance"] = {**stage["balance"], "weights": {"red": 3.0}}
        elif name == "fit":
            fitted = {"name": "head", "train": "head", "fit": "logistic_regression"}
            content["stages"] = [fitted, {**everything, "best": "loss", "early_stopping": 1}]
        elif name == "own-mlp":
            own = {"type": "mlp", "hidden": [8], "dropout": 0.0}
            content["model"] = {"path": str(checkpoints / "test_convnext"), "head": own}
        else:
            domain = {"target": str(unlabelled), "method": name}
            if name == "continue_pretraining":
                domain |= {"epochs": 2.0, "batch_size": batch_size, "lr": 1e-3, "source": True}
            content["domain_adaptation"] = domain
        return parse_recipe(content)

    return get


@pytest.fixture(scope="module")
def twos(tmp_path_factory, recipes):
    return cached_runs_on_two(tmp_path_factory, lambda name: recipes(name, 3))


def weights(folder):
    """Read the weights of each stage."""
    stages = sorted((folder / "run" / "stages").glob("*/model.safetensors"))
    return {path.parent.name: load_file(path) for path in stages}


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_end_each_stage_with_the_same_bits(twos, name):
    two = twos(name)
    trained = {path.name.partition("-after-")[0] for path in (two.folder / "ranks").glob("*-after-*")}
    assert trained >= weights(two.folder).keys() - ({"01-head"} if name == "fit" else set())
    for stage in weights(two.folder).keys() & trained:
        assert same(two.weights(stage, 0), two.weights(stage, 1)) == []
        assert same(two.weights(stage, 0), two.weights(stage, 0, "before")) != []


@pytest.mark.parametrize("name", ["kit", "fit", "own-mlp", "dann", "tasks"])
def test_two_processes_train_as_one_does(tmp_path, twos, recipes, name):
    run(recipes(name, 6), tmp_path / "run")
    one, other = weights(tmp_path), weights(twos(name).folder)
    assert one.keys() == other.keys() and len(one) == (6 if name == "kit" else 2)
    for stage, expected in one.items():
        close(expected, other[stage])


def test_two_processes_pretrain_as_one_does(tmp_path, twos, recipes):
    run(recipes("continue_pretraining", 6), tmp_path / "run")
    one, other = (
        log_of(folder, "00-pretraining")
        for folder in (tmp_path / "run", twos("continue_pretraining").folder / "run")
    )
    assert len(values(one, "loss")) == 2 * 6
    assert values(other, "loss") == pytest.approx(values(one, "loss"), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "stage", "step", "how"),
    [
        ("kit", "sampler", 6, "ctrl-c"),
        ("fit", "all", 2, "ctrl-c"),
        ("coral", "all", 5, "ctrl-c"),
        ("dann", "all", 5, "exit"),
        ("continue_pretraining", "pretraining", 8, "exit"),
        ("tasks", "all", 9, "ctrl-c"),
    ],
)
def test_two_processes_resume_bit_for_bit(tmp_path, twos, recipes, name, stage, step, how):
    event = {"rank": 1, "stage": stage, "step": step, "how": how}
    ended = spread(tmp_path, recipes(name, 3), 2, event=event)
    assert ended.code != 0 and "the event happens" in ended.err
    shutil.rmtree(tmp_path / "ranks")
    done = spread(tmp_path, recipes(name, 3), 2, resume=True)
    assert done.code == 0, done.err[-4000:]
    straight, resumed = weights(twos(name).folder), weights(tmp_path)
    assert straight.keys() == resumed.keys()
    assert [name for name in straight if same(straight[name], resumed[name])] == []

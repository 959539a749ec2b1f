"""Domain adaptation on two processes: equal weights on both, the same as on one process, and resumed."""

import json
import shutil

import pytest
import torch
from alike import cached_runs_on_two
from launching import spread
from safetensors.torch import load_file
from test_interrupted import close, same
from test_processes import log_of, text_recipe, values

from hf_finetune.errors import InputError
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.run import run

PRETRAINING = "00-pretraining"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Return 13 unlabelled texts."""
    path = tmp_path_factory.mktemp("films") / "films.csv"
    texts = [f"the plot {'fine ' * (index % 4)}{index} a film" for index in range(13)]
    path.write_text("\n".join(["text", *texts]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def recipes(reviews, bert_checkpoint, films):
    """Return the recipe of a method for one process, and for two, each of which takes half of every forward pass."""

    def recipe(method, batch_size):
        content = text_recipe(reviews, bert_checkpoint, batch_size).model_dump(mode="json")
        for stage in content["stages"]:
            stage["optimizer"] = "sgd"  # AdamW would amplify the rounding of gradients that are almost 0
        content["domain_adaptation"] = {"target": str(films), "method": method}
        if method == "continue_pretraining":
            content["domain_adaptation"] |= {
                "epochs": 2.0,
                "batch_size": batch_size,
                "lr": 1e-4,
                "source": True,
            }
        return parse_recipe(content)

    return recipe


@pytest.fixture(scope="module")
def twos(tmp_path_factory, recipes):
    return cached_runs_on_two(tmp_path_factory, lambda name: recipes(name, 4))


@pytest.mark.parametrize("method", ["coral", "dann", "continue_pretraining"])
def test_two_processes_end_each_stage_with_the_same_bits(twos, method):
    stages = [PRETRAINING] if method == "continue_pretraining" else []
    for stage in [*stages, "01-head", "02-all"]:
        assert same(twos(method).weights(stage, 0), twos(method).weights(stage, 1)) == []


def test_two_processes_learn_from_two_domains_what_one_learns(tmp_path, twos, recipes):
    """Each process sees its own share of the other domain, and the gradients of the domain classifier are "
    "shared."""
    two = twos("dann")
    run(recipes("dann", 8), tmp_path / "run")
    one, other = (log_of(folder, "02-all") for folder in (tmp_path / "run", two.folder / "run"))
    for name in ("loss", "grad_norm", "domain_loss"):
        assert len(values(one, name)) == 8
        assert values(other, name) == pytest.approx(values(one, name), rel=1e-3)
    close(
        *(
            load_file(each / "run" / "stages" / "02-all" / "model.safetensors")
            for each in (tmp_path, two.folder)
        )
    )
    judges = [
        torch.load(sorted((each / "run" / "stages" / "02-all").glob("checkpoint-8"))[0] / "domain.pt")[
            "judge"
        ]
        for each in (tmp_path, two.folder)
    ]
    begun = torch.load(tmp_path / "run" / "stages" / "02-all" / "checkpoint-4" / "domain.pt")["judge"]
    for name, value in judges[0].items():
        torch.testing.assert_close(judges[1][name], value, rtol=1e-3, atol=1e-5)
        assert not torch.equal(begun[name], value)


def test_two_processes_pretrain_as_one_does(tmp_path, twos, recipes):
    two = twos("continue_pretraining")
    run(recipes("continue_pretraining", 8), tmp_path / "run")
    one, other = (log_of(folder, PRETRAINING) for folder in (tmp_path / "run", two.folder / "run"))
    assert len(values(one, "loss")) == 12
    assert values(other, "loss") == pytest.approx(values(one, "loss"), rel=1e-3)
    assert values(other, "grad_norm") == pytest.approx(values(one, "grad_norm"), rel=1e-2)
    found = json.loads((two.folder / "run" / "manifest.json").read_text(encoding="utf-8"))["pretraining"]
    assert found["state"] == "done" and found["result"]["steps"] == 12


@pytest.mark.parametrize(
    ("method", "stage", "step"),
    [("coral", "all", 3), ("dann", "all", 3), ("continue_pretraining", "pretraining", 8)],
)
def test_two_processes_resume_bit_for_bit(tmp_path, twos, recipes, method, stage, step):
    event = {"rank": 1, "stage": stage, "step": step, "how": "exit"}
    ended = spread(tmp_path, recipes(method, 4), 2, event=event)
    assert ended.code != 0 and "the event happens" in ended.err
    shutil.rmtree(tmp_path / "ranks")
    done = spread(tmp_path, recipes(method, 4), 2, resume=True)
    assert done.code == 0, done.err[-4000:]
    for name in ("01-head", "02-all"):
        folders = (twos(method).folder, tmp_path)
        pair = [load_file(each / "run" / "stages" / name / "model.safetensors") for each in folders]
        assert same(*pair) == []


def test_pretraining_resumes_only_with_the_same_number_of_processes(tmp_path, recipes):
    recipe = recipes("continue_pretraining", 4)
    event = {"rank": 0, "stage": "pretraining", "step": 8, "how": "exit"}
    ended = spread(tmp_path, recipe, 2, event=event)
    assert "the event happens" in ended.err
    with pytest.raises(InputError) as caught:
        run(recipe, tmp_path / "run", resume=True)
    told = "The unfinished pretraining must be resumed on 2 processes. Got 1."
    assert str(caught.value) == told

"""A recipe of unknown origin takes bounded time and runs no code, however it is written."""

import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from security_helpers import Canary, text_recipe

from hf_finetune.data.label_patterns import labels_from_names
from hf_finetune.errors import InputError
from hf_finetune.fields.patterns import PatternError, check_pattern, find_matches
from hf_finetune.models.build import build_model, read_config
from hf_finetune.recipe.load import load_recipe
from hf_finetune.recipe.yaml_text import MAX_BYTES, MAX_VALUES
from hf_finetune.runs.prepare import plan_stages
from hf_finetune.tasks import TASKS

RECIPE = """\
task: text-classification
model: bert
data: texts.csv
stages: [{name: head, train: head, epochs: 1, lr: 0.1}]
"""
SLOW = "(a|a|e|e)*(.|.)*(.|..)*$^"
"""A pattern that tries every way to cut a name into pieces."""
TIMELY = (
    "must be a regular expression that can be matched within seconds, without nested repetition such as (a+)*"
)
ALIASED = f"must contain at most {MAX_VALUES:,} values, with those of aliases (*name) counted at each use"


@pytest.fixture
def recipe(tmp_path):
    """Return a function that writes a recipe file with the given text besides its own fields."""

    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text + RECIPE, encoding="utf-8")
        return path

    return write


def refusal(call, *args, **options):
    """Return the message of an InputError, which must come within seconds."""
    begun = time.process_time()
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert time.process_time() - begun < 20
    return str(caught.value)


def nested_aliases(first, link):
    """Write twenty fields, each of nine aliases of the one before it."""
    return f"a0: &a0 {first}\n" + "".join(
        f"a{n}: &a{n} {link.format(','.join([f'*a{n - 1}'] * 9))}\n" for n in range(1, 20)
    )


@pytest.mark.parametrize(("first", "link"), [("[x]", "[{}]"), ("{x: 1}", "{{<<: [{}]}}")])
def test_aliases_of_aliases_are_counted_and_not_written_out(recipe, first, link):
    path = recipe(nested_aliases(first, link))
    message = refusal(load_recipe, path)
    assert message.startswith(f"{path} {ALIASED}. Got ")
    assert float(message.rpartition("Got ")[2].rstrip(".")) > 9**19


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: &a {b: [*a]}\n", "a: &a\n  <<: *a\n"])
def test_a_value_inside_itself_is_refused(recipe, text):
    path = recipe(text)
    assert refusal(load_recipe, path).startswith(f"{path}, line ")
    assert refusal(load_recipe, path).endswith("must not contain a circular alias (*name).")


def test_a_few_aliases_are_read_as_ever(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("[{", "[&head {") + "  \n", encoding="utf-8")
    path.write_text(path.read_text().replace("}]", "}, {<<: *head, name: again, lr: 0.2}]"), encoding="utf-8")
    assert [stage.lr for stage in load_recipe(path).stages] == [0.1, 0.2]


def test_a_file_of_ten_megabytes_is_not_read_through(recipe):
    path = recipe("# " + "x" * 10_000_000 + "\n")
    size = path.stat().st_size
    assert refusal(load_recipe, path) == (
        f"{path} must be a recipe of at most {MAX_BYTES:,} bytes. Got {size:,} bytes. Check the path."
    )


def test_a_file_without_end_is_not_read_through(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.symlink_to("/dev/zero")
    assert refusal(load_recipe, path) == (
        f"{path} must be a recipe of at most {MAX_BYTES:,} bytes. Got a file of unlimited size. Check the path."
    )


def test_a_file_of_very_many_values_is_not_read_through(monkeypatch, recipe):
    monkeypatch.setattr("hf_finetune.recipe.yaml_text.MAX_VALUES", 2_000)
    path = recipe(f"metrics: [{','.join(['a'] * 490_000)}]\n")
    assert refusal(load_recipe, path) == f"{path} must contain at most 2,000 values."


def test_brackets_without_end_and_numbers_without_end_are_refused(recipe):
    path = recipe("metrics: " + "[" * 20_000 + "\n")
    assert refusal(load_recipe, path) == f"{path} must not be nested too deeply."
    path = recipe("seed: 0x" + "f" * 9000 + "\n")
    assert refusal(load_recipe, path).endswith("YAML parser error: not a valid int.")


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:builtins.exec [{!r}]",
        "!!python/object/new:eval [{!r}]",
        "!!python/name:os.system",
    ],
)
def test_a_tag_of_python_runs_nothing(tmp_path, recipe, tag):
    canary = Canary(tmp_path / "canary")
    path = recipe(f"seed: {tag.format(canary.code)}\n")
    assert "could not determine a constructor for the tag" in refusal(load_recipe, path)
    assert not canary.ran


# regular expressions


@pytest.fixture
def short_timeout(monkeypatch):
    monkeypatch.setattr("hf_finetune.fields.patterns.TIMEOUT_SECONDS", 0.1)


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        ("(" * 1001, "must be a regular expression of at most 1,000 characters"),
        ("(", "must be a valid regular expression (missing ), unterminated subpattern at position 0)"),
        ("a{99999999999}", "must be a valid regular expression (the repetition number is too large)"),
    ],
)
def test_a_pattern_that_cannot_be_compiled_is_refused(pattern, rule):
    with pytest.raises(PatternError) as caught:
        check_pattern(pattern)
    assert str(caught.value) == rule


def test_a_pattern_matches_like_re():
    names = ["encoder.layer.0.query.weight", "encoder.layer.11.key.bias", "head.weight"]
    assert list(find_matches(r"layer\.\d\.|bias$", names)) == names[:2]


def test_a_slow_pattern_of_a_stage_is_stopped(short_timeout, bert_checkpoint, reviews):
    stage = {"name": "slow", "train": f"/{SLOW}/", "epochs": 1, "lr": 0.1}
    assert refusal(plan_stages, text_recipe(str(bert_checkpoint), reviews, stages=[stage])) == (
        f"stages[0].train {TIMELY}. Got '/{SLOW}/'."
    )


def test_a_slow_pattern_of_an_adapter_is_stopped(short_timeout, bert_checkpoint, reviews):
    model = {"path": str(bert_checkpoint), "adapter": {"type": "lora", "target": f"/{SLOW}/"}}
    assert (
        refusal(plan_stages, text_recipe(model, reviews)) == f"model.adapter.target {TIMELY}. Got '/{SLOW}/'."
    )


def test_a_slow_pattern_of_weight_names_is_stopped(short_timeout, tmp_path, bert_checkpoint):
    folder = tmp_path / "bert"
    shutil.copytree(bert_checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    weights["bert.encoder.layer.0.attention.self.extra.weight"] = torch.zeros(1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = read_config(str(folder), ("a", "b", "c"), "single_label")
    message = refusal(
        build_model, str(folder), config, task=TASKS["text-classification"], allow_missing=[SLOW]
    )
    assert message == f"model.allow_missing[0] {TIMELY}. Got {SLOW!r}."


def test_a_slow_pattern_of_file_names_is_stopped(short_timeout):
    pattern = "(?P<label>a|a)*$^"
    message = refusal(labels_from_names, ["a" * 60 + ".jpg"], pattern)
    assert message == f"data.columns.label.pattern {TIMELY}. Got {pattern!r}."

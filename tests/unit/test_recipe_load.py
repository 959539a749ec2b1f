"""Recipes from files and to files."""

# ruff: noqa: E501 (error texts are tested whole)

import subprocess
import sys
from pathlib import Path

import pytest

from hf_finetune.errors import InputError
from hf_finetune.recipe.load import dump_recipe, load_recipe, parse_recipe
from hf_finetune.recipe.shipped import RENAMED, shipped_recipes
from hf_finetune.recipe.yaml_text import read_yaml, write_yaml

GOOD = """\
# a comment
task: image-classification
model: timm/resnet50.a1_in1k
data: {path: photos-of-dishes}
stages:
  - {name: head, train: head, epochs: 5, lr: 1e-2}
  - name: all
    train: "layers[8:]"
    max_steps: 1e2
    lr: 2E-5
"""


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(text, name="mine.yaml"):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def said(source, overrides=()):
    with pytest.raises(InputError) as caught:
        load_recipe(source, overrides)
    return str(caught.value)


def test_a_file_is_read_with_its_overrides():
    recipe = load_recipe(write(GOOD), ["seed=3"])
    assert [(stage.name, stage.train, stage.lr) for stage in recipe.stages] == [
        ("head", "head", 0.01),
        ("all", "layers[8:]", 2e-5),
    ]
    assert (recipe.stages[1].max_steps, recipe.seed) == (100, 3)


def test_a_byte_order_mark_is_passed_over():
    assert load_recipe(write(b"\xef\xbb\xbf" + GOOD.encode())) == load_recipe(write(GOOD))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("2E5", 2e5),
        ("-1e3", -1000.0),
        (".5e1", 5.0),
        ("1.e+2", 100.0),
        ("1_000", 1000),
        ("7", 7),
    ],
)
def test_numbers_with_exponents_are_numbers(text, value):
    read, problems = read_yaml(f"value: {text}", "here")
    assert (read, problems) == ({"value": value}, [])
    assert type(read["value"]) is type(value)


@pytest.mark.parametrize("text", ["e5", "1e", "1e5x", "0x1e3g", "'1e5'"])
def test_other_words_stay_text(text):
    assert isinstance(read_yaml(f"value: {text}", "here")[0]["value"], str)


@pytest.mark.parametrize(
    "text", ["1e5", "2E-3", "yes", "null", "007", "2024-01-31", "layers[8:]", "a: b", "#", "ü"]
)
def test_text_that_looks_like_another_type_is_quoted(text):
    assert read_yaml(write_yaml({"value": text}), "here") == ({"value": text}, [])


BAD = [
    ("", "mine.yaml must contain a recipe. Got an empty file. Start with the fields task, model, data and stages."),
    ("# nothing yet\n", "mine.yaml must contain a recipe. Got an empty file. Start with the fields task, model, data and stages."),
    ("- head\n", "mine.yaml must contain a mapping of fields. Got ['head']. Start with the fields task, model, data and stages."),
    ("text only", "mine.yaml must contain a mapping of fields. Got 'text only'. Start with the fields task, model, data and stages."),
    ("a: b: c\n", "mine.yaml, line 1, column 5 must be valid YAML. Got 'a: b: c'. YAML parser error: mapping values are not allowed here."),
    ("a:\n\tb: 1\n", "mine.yaml, line 2, column 1 must be valid YAML. Got 'b: 1'. Indent with spaces, not tabs."),
    ("a: [1\nb: 2\n", "mine.yaml, line 2, column 2 must be valid YAML. Got 'b: 2'. YAML parser error: while parsing a flow sequence, expected ',' or ']', but got ':'."),
    ("stages: [{train: layers[8:]}]", "mine.yaml, line 1, column 24 must be valid YAML. Got 'stages: [{train: layers[8:]}]'. Inside [] and {}, put a selector such as layers[8:] in quotes."),
    ("a: 1\n---\nb: 2\n", "mine.yaml, line 2, column 1 must be valid YAML. Got '---'. YAML parser error: expected a single document in the stream, but found another document."),
    ("a: !!python/name:os.system\n", "mine.yaml, line 1, column 4 must be valid YAML. Got 'a: !!python/name:os.system'. YAML parser error: could not determine a constructor for the tag 'tag:yaml.org,2002:python/name:os.system'."),
    ("a: 2024-13-45\n", "mine.yaml, line 1, column 4 must be valid YAML. Got 'a: 2024-13-45'. YAML parser error: not a valid timestamp."),
    ("a: !!bool maybe\n", "mine.yaml, line 1, column 4 must be valid YAML. Got 'a: !!bool maybe'. YAML parser error: not a valid bool."),
    ("a: \x01\n", "mine.yaml, character 4 must be printable text. Got '\\x01'."),
    ("[" * 5000, "mine.yaml must not be nested too deeply."),
    (GOOD.encode("utf-16"), "mine.yaml must be UTF-8 text. Got byte 0xff at offset 0. Save it again as UTF-8."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BAD, ids=range(len(BAD)))
def test_messages_for_files_that_are_not_recipes(text, expected):
    assert said(write(text)) == expected


def test_repeated_keys_are_reported_with_the_other_errors():
    text = GOOD + "    lr: 3e-5\nseed: -1\ntask: text-classification\n"
    assert said(write(text)).splitlines() == [
        "mine.yaml, line 11 must not repeat the key 'lr' of line 10. Keep one of them.",
        "mine.yaml, line 13 must not repeat the key 'task' of line 2. Keep one of them.",
        "seed must be at least 0. Got -1.",
    ]


def test_a_repeated_key_alone_is_an_error():
    assert said(write(GOOD.replace("lr: 1e-2", "lr: 1, lr: 1"))) == (
        "mine.yaml, line 6 must not repeat the key 'lr' of line 6. Keep one of them."
    )


def test_merge_keys_may_be_overridden():
    text = GOOD.replace("- {name", "- &first {name") + "  - {<<: *first, name: more, epochs: 9}\n"
    assert load_recipe(write(text)).stages[2].epochs == 9


def test_bad_overrides_are_reported_with_a_syntax_error():
    assert said(write("a: b: c\n"), ["sede=1"]).splitlines()[1] == (
        "sede=1 must set a known field. Got 'sede'. Nearest: 'seed'."
    )


def test_a_missing_file_names_its_nearest_sibling(tmp_path):
    write(GOOD, "dishes.yaml")
    write(GOOD, "other.yaml")
    assert said("dishs.yaml") == "dishs.yaml must exist. Nearest: 'dishes.yaml'."
    assert said(Path("dishs")) == "dishs must exist. Nearest: 'dishes.yaml'."
    assert said("away/dishes.yaml") == f"away/dishes.yaml must exist. There is no recipe in {tmp_path}/away."


def test_a_folder_is_no_recipe():
    write(GOOD, "dishes/a.yaml")
    Path("empty").mkdir()
    assert said("dishes") == "dishes must be a recipe file. Got a folder. It contains a.yaml."
    assert said("empty") == "empty must be a recipe file. Got a folder. It contains no recipe."


def test_a_file_that_may_not_be_read(monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    write(GOOD)
    monkeypatch.setattr(Path, "open", refuse)
    assert said("mine.yaml") == "mine.yaml must be readable. Got Permission denied."


def test_a_source_too_long_for_a_file_name():
    assert said("x" * 5000).startswith("'xxx") and "must be a recipe file or the name of" in said("x" * 5000)


def test_a_shipped_recipe_is_found_by_its_name_and_by_its_last_part():
    full = load_recipe("image/food101-resnet50")
    assert full.model.path == "timm/resnet50.a1_in1k"
    assert load_recipe("food101-resnet50") == full


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_names_of_renamed_recipes_still_load_with_a_warning(caplog, old, new):
    assert load_recipe(old) == load_recipe(old.rpartition("/")[2]) == load_recipe(new)
    assert caplog.messages == [f"The shipped recipe {old} is now named {new}."] * 2
    assert old not in shipped_recipes()


def test_a_folder_of_that_name_does_not_hide_a_shipped_recipe_and_a_file_does():
    Path("food101-resnet50").mkdir()
    assert load_recipe("food101-resnet50").data.path == "ethz/food101"
    Path("food101-resnet50").rmdir()
    write(GOOD, "food101-resnet50")
    assert load_recipe("food101-resnet50").data.path == "photos-of-dishes"


def test_an_unknown_name_names_the_nearest_shipped_recipe():
    rule = "must be a recipe file or the name of a shipped recipe."
    assert said("image/food101-resnet") == f"'image/food101-resnet' {rule} Nearest: 'image/food101-resnet50'."
    assert said("imdb-brt") == f"'imdb-brt' {rule} Nearest: 'text/imdb-bert'."
    known = ", ".join(repr(name) for name in shipped_recipes())
    assert said("zzz") == f"'zzz' {rule} Known: {known}."


def test_a_name_that_means_two_recipes(monkeypatch):
    monkeypatch.setattr("hf_finetune.recipe.shipped.shipped_recipes", lambda: {"a/x": Path(), "b/x": Path()})
    assert said("x") == "x must match exactly one shipped recipe. Use a/x or b/x."


def test_local_paths_become_absolute_and_hub_ids_do_not(tmp_path):
    Path("photos-of-dishes").mkdir()
    assert load_recipe(write(GOOD)).data.path == str(tmp_path / "photos-of-dishes")
    assert load_recipe(write(GOOD)).model.path == "timm/resnet50.a1_in1k"


def test_local_paths_are_resolved_here_and_then_next_to_the_recipe(tmp_path):
    write(GOOD, "recipes/mine.yaml")
    beside = tmp_path / "recipes" / "photos-of-dishes"
    beside.mkdir()
    assert load_recipe("recipes/mine.yaml").data.path == str(beside)
    here = tmp_path / "photos-of-dishes"
    here.mkdir()
    assert load_recipe("recipes/mine.yaml").data.path == str(here)


def test_a_link_keeps_its_name(tmp_path):
    write("text,label\n", "blob")
    Path("photos-of-dishes").symlink_to("blob")
    assert load_recipe(write(GOOD)).data.path == str(tmp_path / "photos-of-dishes")


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("photos").mkdir()
    assert load_recipe(write(GOOD), ["data.path=~/photos"]).data.path == str(tmp_path / "photos")
    assert (
        load_recipe(write(GOOD), ["data.path=~nobody-of-that-name/x"]).data.path == "~nobody-of-that-name/x"
    )


def test_a_dumped_recipe_contains_every_default_in_order_and_loads_to_the_same():
    overrides = [
        "model.revision='1e5'",
        "stages.0.optimizer.args.betas=[0.9, 0.95]",
        "data.columns.label='yes'",
    ]
    recipe = load_recipe(write(GOOD), overrides)
    text = dump_recipe(recipe)
    assert load_recipe(write(text, "again.yaml")) == recipe
    fields, _ = read_yaml(text, "again.yaml")
    names = [
        "task",
        "model",
        "data",
        "stages",
        "strategy",
        "domain_adaptation",
        "metrics",
        "evaluation",
        "limit",
        "speed",
        "track",
        "seed",
        "publish",
        "search",
    ]
    assert list(fields) == names
    assert list(fields["stages"][0])[:5] == ["name", "train", "epochs", "max_steps", "lr"]
    assert fields["data"]["split"] == {
        "validation": 0.1,
        "test": 0.1,
        "merge_validation": False,
        "stratify": True,
        "group": None,
        "time": None,
        "fold": None,
    }
    assert dump_recipe(parse_recipe(fields)) == text


def test_a_strategy_is_dumped_without_stages_and_loads_to_the_same():
    text = (
        GOOD.partition("stages:")[0] + "strategy: {name: gradual_unfreeze, lr: {head: 0.1, backbone: 1e-4}}\n"
    )
    recipe = load_recipe(write(text), ["strategy.groups_per_stage=2"])
    assert load_recipe(write(dump_recipe(recipe), "again.yaml")) == recipe
    fields, _ = read_yaml(dump_recipe(recipe), "again.yaml")
    assert "stages" not in fields
    assert list(fields["strategy"])[:4] == ["name", "groups_per_stage", "epochs", "max_steps"]


@pytest.mark.slow
def test_reading_a_recipe_imports_no_heavy_package():
    code = "import sys, hf_finetune.recipe.load; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

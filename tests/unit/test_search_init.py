"""`init`: what is seen in data, which columns are guessed, and the recipe that is written for it."""

import json

import pytest
from folder_helpers import touch
from typer.testing import CliRunner

from hf_finetune.cli.app import app
from hf_finetune.cli.search import name_of
from hf_finetune.errors import InputError
from hf_finetune.recipe.load import load_recipe, parse_recipe
from hf_finetune.recipe.yaml_text import read_yaml
from hf_finetune.search import candidates
from hf_finetune.search.candidates import Candidate, CandidateList, choose_at_hand, read_candidates
from hf_finetune.search.draft_recipe import draft_recipe
from hf_finetune.search.inspect_data import inspect_data
from hf_finetune.tasks import MODALITIES, TASKS


def write_table(path, rows, header):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def drafted(path, named=None, fields=None):
    """Return the recipe for data, as text and as checked fields."""
    text = draft_recipe(inspect_data(str(path), named, fields=fields), "a/model")
    content, _ = read_yaml(text, "the draft")
    parse_recipe(content)
    return text, content


def test_a_recipe_for_class_folders(squares):
    text, recipe = drafted(squares)
    assert recipe["task"] == "image-classification"
    assert recipe["data"] == {
        "path": str(squares),
        "target": "single_label",
        "split": {"validation": 0.15, "test": 0.15, "stratify": True},
        "augment": "standard",
    }
    assert "# 36 images; 3 classes with 12 examples.\n# Median size 40 x 40 pixels.\n" in text
    assert "train in the data, validation, test split off." in text


def test_a_recipe_for_a_table_of_texts(reviews):
    text, recipe = drafted(reviews)
    assert recipe["task"] == "text-classification"
    assert "columns" not in recipe["data"]
    assert "guessed" not in text
    assert "# 40 texts; 2 classes with 20 examples.\n" in text


def test_columns_without_usual_names_are_guessed_and_named(tmp_path):
    rows = [f"{row},dish {row} was as one expects,shop {row % 3},{row % 2 + 1}" for row in range(40)]
    text, recipe = drafted(write_table(tmp_path / "remarks.csv", rows, "number,remark,shop,stars"))
    assert recipe["data"]["columns"] == {"text": "remark", "label": "stars"}
    assert "# guessed: text, label; not used: number, shop\n" in text


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (["toxic", "insult", "threat"], ["toxic", "insult", "threat"]),
        (["toxic", "insult"], "insult"),
        (["toxic", "insult", "threat", "category"], None),  # found by its name
        (["toxic", "insult", "threat", "stars"], "stars"),
    ],
)
def test_several_columns_of_zeros_and_ones_are_one_hot_labels(tmp_path, names, label):
    """Unless there are only two, or another column has classes."""
    rows = [
        f"{index:05x},a {'good' if index % 2 else 'bad'} film {index},"
        + ",".join(
            str(index // (place + 1) % (5 if name == "stars" else 2)) for place, name in enumerate(names)
        )
        for index in range(40)
    ]
    (tmp_path / "comments.csv").write_text("\n".join([f"id,comment_text,{','.join(names)}", *rows, ""]))
    columns = inspect_data(str(tmp_path / "comments.csv")).fields["columns"]
    assert columns.get("label") == label


def test_a_named_column_is_not_guessed(tmp_path):
    rows = [f"{row},dish {row} was as one expects,shop {row % 3},{row % 2 + 1}" for row in range(40)]
    table = write_table(tmp_path / "remarks.csv", rows, "number,remark,shop,stars")
    text, recipe = drafted(table, {"label": "shop"})
    assert recipe["data"]["columns"] == {"text": "remark", "label": "shop"}
    assert "# guessed: text; not used: number, stars\n" in text


def test_numbers_of_many_values_are_a_regression(tmp_path):
    rows = [f"dish {row} was as one expects,{row / 7:.3f}" for row in range(40)]
    text, recipe = drafted(write_table(tmp_path / "prices.csv", rows, "remark,price"))
    assert recipe["data"]["columns"] == {"text": "remark", "label": "price"}
    assert recipe["data"]["target"] == "regression"
    assert recipe["metrics"][0] == "rmse"
    assert "numbers from 0 to 5.571, mean 2.786" in text
    assert "# random: only classes are stratified\n" in text


def test_a_class_with_two_examples_is_not_stratified(tmp_path):
    rows = [f"dish {row} was as one expects,{'good' if row > 1 else 'bad'}" for row in range(40)]
    text, recipe = drafted(write_table(tmp_path / "remarks.csv", rows, "text,label"))
    assert recipe["data"]["split"]["stratify"] is False
    assert "random, because a class has too few examples" in text
    assert "on_error" not in recipe["data"]


def test_unreadable_examples_are_skipped_and_named(squares, tmp_path):
    for folder in ("green", "red"):
        (tmp_path / folder).symlink_to(squares / folder)
    (tmp_path / "blue").mkdir()
    for file in (squares / "blue").iterdir():
        (tmp_path / "blue" / file.name).symlink_to(file)
    (tmp_path / "blue" / "broken.png").write_bytes(b"not a picture")
    text, recipe = drafted(tmp_path)
    assert recipe["data"]["on_error"] == "skip"
    assert "on_error: skip # else an error: blue/broken.png must contain a readable image." in text


def test_names_with_line_breaks_and_numbers_stay_valid(tmp_path):
    rows = [f'"{row} dish as one expects",{"a: #b" if row % 2 else "c"},{row},{row}' for row in range(40)]
    text, recipe = drafted(write_table(tmp_path / "1e5.csv", rows, '1e5,"new\nline","one\nmore",# x: y'))
    assert recipe["data"]["columns"] == {"text": "1e5", "label": "new\nline"}
    assert "# guessed: text, label; not used: one more, # x: y\n" in text


def test_a_column_of_splits_is_used(tmp_path):
    splits = ("train", "train", "validation", "test")
    rows = [f"dish {row} as one expects,{row % 3},{splits[row % 4]}" for row in range(60)]
    text, recipe = drafted(write_table(tmp_path / "table.csv", rows, "text,label,split"))
    assert "train, validation, test in the data." in text
    assert "columns" not in recipe["data"]


def test_histories_of_events_get_a_new_model(tmp_path):
    rows = [
        {"events": ["view", "buy"] * (row % 5 + 1), "label": "yes" if row % 2 else "no"} for row in range(40)
    ]
    table = tmp_path / "histories.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    text = draft_recipe(inspect_data(str(table)))
    recipe, _ = read_yaml(text, "the draft")
    assert recipe["task"] == "event-classification"
    assert recipe["model"] == {"new": {"layers": 2, "hidden": 64}}
    assert [stage["train"] for stage in recipe["stages"]] == ["all"]
    assert "nothing is pretrained" in text and "Median number of events 6, largest 10." in text


def test_the_second_text_alone_can_be_named(tmp_path):
    rows = [f"is dish {row} as one expects,dish {row},{row % 2}" for row in range(40)]
    table = write_table(tmp_path / "table.csv", rows, "first,second,same")
    text, recipe = drafted(table, {"text_pair": "second"})
    assert recipe["data"]["columns"] == {"text": "first", "text_pair": "second", "label": "same"}
    assert "# guessed: text, label\n" in text


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("picture,dish", "nowhere/{0}.png,{1}", "data.columns.text must not contain only names of files"),
        ("number,size,half", "{0},1{0}.25,{0}.5", "data.columns.text must be set"),
        ("dish 0 as one expects,good", "dish {0} as one expects,good", "must begin with a header line"),
    ],
)
def test_tables_without_texts_or_header_are_refused(tmp_path, header, row, message):
    rows = [row.format(index, index % 2) for index in range(40)]
    with pytest.raises(InputError) as error:
        inspect_data(str(write_table(tmp_path / "table.csv", rows, header)))
    assert message in str(error.value)


def test_cells_that_are_no_lists_are_not_guessed_to_be_histories(tmp_path):
    path = str(
        write_table(
            tmp_path / "table.csv", [f"note {row} of many,{row}" for row in range(40)], "remark,number"
        )
    )
    with pytest.raises(
        InputError, match=r"For next-item: data.columns.items must contain lists if its name does not"
    ):
        inspect_data(path)
    assert inspect_data(path, {"items": "remark"}, ["next-item"]).task.name == "next-item"


def test_given_splits_are_kept(tmp_path):
    for split in ("train", "test"):
        rows = [f"{split} dish {row} was as one expects,{row % 2}" for row in range(20)]
        write_table(tmp_path / f"{split}.csv", rows, "text,label")
    text, recipe = drafted(tmp_path)
    assert recipe["data"]["split"] == {"validation": 0.15, "stratify": True}
    assert "train, test in the data, validation split off." in text


def test_data_of_no_task_is_refused_with_the_reasons_of_each(tmp_path):
    touch(tmp_path, "notes.pdf")
    with pytest.raises(InputError) as error:
        inspect_data(str(tmp_path))
    problems = [str(problem).partition(": ")[0] for problem in error.value.problems]
    assert problems == [f"For {task}" for task in TASKS]


def test_the_candidates_of_each_modality_are_read():
    for modality in MODALITIES.values():
        if modality.builds_new_models:  # there is no checkpoint
            continue
        listed = read_candidates(modality)
        names = [candidate.model for candidate in listed.checkpoints]
        assert listed.default in names
        assert len(set(names)) == len(names)


def test_the_first_candidate_on_this_machine_is_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(candidates, "ASSETS", tmp_path)
    checkpoints = [
        Candidate(model="a/large", parameters=90.0, folder="large"),
        Candidate(model="a/small", parameters=5.0, folder="small"),
    ]
    listed = CandidateList(date="2026-11-29", default="a/large", checkpoints=checkpoints)
    assert choose_at_hand(listed) == ("a/large", False)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text("{}")
    assert choose_at_hand(listed) == ((tmp_path / "small").as_posix(), True)


def test_a_candidate_in_the_cache_of_the_hub_is_on_this_machine(monkeypatch):
    cached = {
        ("a/model", "config.json"): "/cache/config.json",
        ("a/model", "model.safetensors"): "/cache/model",
    }
    monkeypatch.setattr(candidates, "try_to_load_from_cache", lambda *file: cached.get(file))
    assert Candidate(model="a/model", parameters=1.0).location() == "a/model"
    del cached[("a/model", "model.safetensors")]
    assert Candidate(model="a/model", parameters=1.0).location() is None


def invoke(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_the_command_writes_a_new_file_only(reviews, tmp_path):
    path = tmp_path / "recipe.yaml"
    told = invoke("init", reviews, "--output", path, "--model", "a/model")
    assert told.exit_code == 0, told.output
    assert path.read_text(encoding="utf-8") in told.output
    assert f"hf-finetune run {path}" in told.output
    before = path.read_bytes()
    again = invoke("init", reviews, "--output", path, "--model", "b/model")
    assert isinstance(again.exception, InputError)
    assert str(again.exception).startswith(f"{path} must not exist.")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--task", "dancing"),
            f"--task must be one of {', '.join(TASKS)}. Got 'dancing'.",
        ),
        (("--column", "lable=stars"), "--column must set one of"),
        (("--column", "label=starz"), "data.columns.label must be a column of the data. Got 'starz'."),
        (("--output", "nowhere/recipe.yaml"), "nowhere must be a folder."),
        (("--output", "a" * 300), "The recipe must have a valid file name."),
        (("--output", "/proc/recipe.yaml"), "/proc/recipe.yaml must be a file that can be created."),
        (("--model", ""), "model.path must not be empty."),
    ],
)
def test_invalid_options_are_refused(reviews, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = invoke("init", reviews, *arguments)
    assert isinstance(told.exception, InputError)
    assert message in str(told.exception)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("data", "name"),
    [(".", "my photos.v2"), ("../my photos.v2", "my photos.v2"), ("..", "data"), ("-x", "x")],
)
def test_the_recipe_is_named_after_the_data(tmp_path, monkeypatch, data, name):
    (tmp_path / "my photos.v2").mkdir()
    monkeypatch.chdir(tmp_path / "my photos.v2")
    assert name_of(data) == name
    assert len(name_of("a" * 5000)) == 100


def test_a_run_needs_a_recipe_or_data():
    assert str(invoke("run").exception) == "RECIPE must be set. Name a recipe, or set --data."
    refused = invoke("run", "quickstart", "--model", "a/model").exception
    assert str(refused) == (
        "--model must not be set without --data. Got 'a/model'. Override the field of the recipe: model=a/model."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "other.csv"), "--data must be that of the run in out,"),
        (("--model", "b/model"), "--model must be that of the run in out, 'a/model'. Got 'b/model'."),
        (("--output-dir", "."), ". must contain draft.yaml."),
    ],
)
def test_a_run_of_other_data_is_not_resumed(reviews, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    assert invoke("init", reviews, "--output", "out/draft.yaml", "--model", "a/model").exit_code == 0
    refused = invoke("run", "--data", reviews, "--output-dir", "out", "--resume", *arguments)
    assert str(refused.exception).startswith(message)


@pytest.mark.parametrize("options", [("stages.0.epochz=1",), ("model=no/such/model",)])
@pytest.mark.parametrize("folder", [(), ("--output-dir", "out")])
def test_nothing_is_left_of_a_refused_run(reviews, bert_checkpoint, tmp_path, monkeypatch, options, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    refused = invoke("run", "--data", reviews, "--model", bert_checkpoint, *options, *folder)
    assert refused.exit_code
    assert [*tmp_path.rglob("*")] == [tmp_path / "out"]


def test_several_processes_do_not_draft(reviews, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = invoke("run", "--data", reviews, "--output-dir", "out")
    assert str(refused.exception).startswith("--data must not be set on several processes.")
    assert not [*tmp_path.iterdir()]


def test_fields_of_data_can_be_set(tmp_path):
    rows = [f"dish {row} was, as one expects; fine|{row % 2}" for row in range(20)]
    table = write_table(tmp_path / "remarks.csv", rows, "text|label")
    fields = {"separator": "|", "split": {"stratify": False, "test": 0.3}, "target": "single_label"}
    text, recipe = drafted(table, fields=fields)
    assert recipe["data"]["separator"] == "|"
    assert recipe["data"]["split"] == {"validation": 0.15, "test": 0.3, "stratify": False}
    assert "stratify: false} # random\n" in text
    assert "target: single_label # set; or multi_label, regression\n" in text


def test_the_command_passes_on_fields_of_data(squares, tmp_path):
    nested = tmp_path / "photos" / "by color"
    nested.mkdir(parents=True)
    for color in ("blue", "red"):
        (nested / color).symlink_to(squares / color)
    (tmp_path / "photos" / "others").mkdir()
    (tmp_path / "photos" / "others" / "green").symlink_to(squares / "green")
    told = invoke("init", tmp_path / "photos", "--model", "a/model", "--output", tmp_path / "plain.yaml")
    assert "data.nested" in str(told.exception)
    told = invoke(
        *("init", tmp_path / "photos", "data.nested=top", "--model", "a/model"),
        *("--output", tmp_path / "recipe.yaml"),
    )
    assert told.exit_code == 0, told.output
    assert load_recipe(tmp_path / "recipe.yaml").data.nested == "top"


@pytest.mark.parametrize("field", ["seed=1", "data.path=elsewhere"])
def test_other_fields_cannot_be_set(reviews, field, tmp_path):
    refused = invoke("init", reviews, field, "--output", tmp_path / "recipe.yaml").exception
    assert str(refused).startswith(f"{field} must set a field of data other than its path.")


def test_columns_that_are_set_are_written_and_count_as_used(tmp_path):
    rows = [f"dish {row} was as one expects,{row % 2},{1 + row % 3},author {row % 9}" for row in range(60)]
    table = write_table(tmp_path / "remarks.csv", rows, "text,label,trust,author")
    fields = {"columns": {"weight": "trust"}, "split": {"group": "author"}}
    text, recipe = drafted(table, fields=fields)
    assert recipe["data"]["columns"] == {"text": "text", "label": "label", "weight": "trust"}
    assert recipe["data"]["split"]["group"] == "author"
    assert "not used" not in text

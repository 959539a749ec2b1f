"""What the benchmark of other domains trains on, is judged by and adapts to, and its table."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import kit_domain
from hf_finetune.recipe import parse_recipe


@pytest.fixture
def sentences(monkeypatch):
    def read(path):
        name = path.parent.name
        return [(f"{name} {number}", "positive" if number % 3 else "negative") for number in range(6000)]

    monkeypatch.setattr(kit_domain, "_read", read)


def contents(folder):
    """Give what identifies each example of the parts: train, test, unlabelled."""
    files = ("labelled/train", "labelled/test", "unlabelled/train")
    tables = [parquet.read_table(folder / f"{name}.parquet") for name in files]
    return [
        [json.dumps(row, default=repr) for row in table.select(table.column_names[:1]).to_pylist()]
        for table in tables
    ]


def test_the_dishes_of_one_style_are_those_adapted_to_and_judged_by(tmp_path):
    recipe, target = kit_domain.dishes(tmp_path, 0)
    train, test, unlabelled = contents(tmp_path)
    assert len(train) == 355 and len(test) == len(unlabelled) == 162
    assert not set(test) & set(unlabelled) and not set(train) & {*test, *unlabelled}
    labels = parquet.read_table(tmp_path / "labelled" / "test.parquet")["label"].to_pylist()
    assert sorted(set(labels)) == list(range(81)) and target == str(tmp_path / "unlabelled")
    assert parquet.read_table(tmp_path / "unlabelled" / "train.parquet").column_names == ["image"]
    assert recipe["data"]["path"] == str(tmp_path / "labelled")


def test_films_are_judged_by_others_than_those_adapted_to(tmp_path, sentences):
    kit_domain.reviews(tmp_path, 0)
    train, test, unlabelled = contents(tmp_path)
    assert all("amazon-reviews" in text for text in train) and len(train) == 6000
    assert all("movie-reviews" in text for text in [*test, *unlabelled])
    assert len(test) == 1000 and len(unlabelled) == 2000 and not set(test) & set(unlabelled)


@pytest.mark.parametrize("name", kit_domain.WORKS)
def test_every_method_is_a_recipe_and_the_first_one_adapts_to_nothing(tmp_path, monkeypatch, sentences, name):
    recipes = []

    class Result:
        metrics = {"stages": [{"train_seconds": 1.0}], "pretraining": {"train_seconds": 2.0}, "test": {}}  # noqa: RUF012

    monkeypatch.setattr(kit_domain, "run", lambda recipe, folder: recipes.append(recipe) or Result)
    rows = list(kit_domain.measure(name, 0, tmp_path, 0.5))
    assert [row.method for row in rows] == ["without", "continue_pretraining", "coral", "dann"]
    assert recipes[0].domain_adaptation is None and rows[0].seconds == 3.0
    assert [recipe.domain_adaptation.method for recipe in recipes[1:]] == [row.method for row in rows[1:]]
    assert (
        len({recipe.model_copy(update={"domain_adaptation": None}).model_dump_json() for recipe in recipes})
        == 1
    )
    assert parse_recipe(recipes[1].model_dump(mode="json")) == recipes[1]


def test_the_table_gives_means_and_what_differs_seed_by_seed():
    def row(method, seed, value):
        return kit_domain.Row("dishes", method, None, seed, {"accuracy": value}, 2.0)

    values = {"without": 0.5, "continue_pretraining": 0.4, "coral": 0.6, "dann": 0.7}
    rows = [row(method, seed, value + seed / 10) for method, value in values.items() for seed in (0, 1)]
    assert kit_domain.table(rows).splitlines()[1:3] == [
        "  0.550 (0.500 0.600) +0.000 (+0.000 +0.000) 2 s  without",
        "  0.450 (0.400 0.500) -0.100 (-0.100 -0.100) 2 s  continue_pretraining",
    ]

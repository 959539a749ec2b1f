"""A run with a time limit on two processes: both take the steps that the first one has measured."""

import pytest
from launching import spread
from test_processes import text_recipe

from hf_finetune.recipe.load import parse_recipe


@pytest.mark.parametrize("mode", ["ddp", "fsdp"])
def test_two_processes_with_a_limit_train_as_without_it(tmp_path, reviews, bert_checkpoint, mode):
    recipe = text_recipe(reviews, bert_checkpoint, 3)
    limited = parse_recipe({**recipe.model_dump(mode="json"), "limit": "1h"})
    runs = [
        spread(tmp_path / name, asked, 2, mode=mode)
        for name, asked in (("free", recipe), ("limited", limited))
    ]
    assert [done.code for done in runs] == [0, 0], runs[1].err[-4000:]
    free, cut = (done.metrics() for done in runs)
    assert [stage["steps"] for stage in cut["stages"]] == [stage["steps"] for stage in free["stages"]]
    assert cut["test"] == free["test"]

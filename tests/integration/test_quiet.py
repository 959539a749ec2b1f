"""A run from Python prints nothing by default."""

import subprocess
import sys

from hf_finetune.recipe.load import dump_recipe

PROGRAM = """
import sys
from hf_finetune import load_recipe, plan, run
recipe = load_recipe(sys.argv[1])
plan(recipe)
print(run(recipe, sys.argv[2]).metrics["task"])
"""


def test_a_run_from_python_is_as_quiet_as_the_command_line(tmp_path, text_recipe):
    recipe = text_recipe()
    short = recipe.model_copy(update={"stages": recipe.stages[:1]})
    (tmp_path / "recipe.yaml").write_text(dump_recipe(short), encoding="utf-8")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "recipe.yaml"), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr, done.returncode) == ("text-classification\n", "", 0)

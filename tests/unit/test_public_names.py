"""The public names, in whichever order they are imported: two of them are names of rooms as well."""

import subprocess
import sys

import pytest

import hf_finetune

CHECK = """
import inspect
import hf_finetune.ready, hf_finetune.run as room
assert callable(plan) and callable(run)
assert inspect.signature(plan) == inspect.signature(hf_finetune.ready.plan)
assert inspect.signature(run) == inspect.signature(room.run)
for call in (plan, run):
    try:
        call("no recipe")
    except AttributeError as error:
        assert "'str' object has no attribute" in str(error), error
from hf_finetune.plan.stages import build_plan as same
import hf_finetune.plan.stages as stages
assert same is stages.build_plan is hf_finetune.build_plan
"""


@pytest.mark.parametrize(
    "first",
    [
        "from hf_finetune import plan, run",
        "from hf_finetune import run, build_plan, plan",
        "import hf_finetune.plan.stages, hf_finetune.run\nfrom hf_finetune import plan, run",
        "import hf_finetune\nplan, run = hf_finetune.plan, hf_finetune.run",
    ],
)
def test_plan_and_run_can_be_called_whatever_was_imported_before(first):
    done = subprocess.run([sys.executable, "-c", first + CHECK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there():
    names = {"Recipe", "run", "plan", "FreezingCallback", "StagedTrainer", "build_plan", "parameter_groups"}
    assert names <= set(hf_finetune.__all__)
    assert all(callable(getattr(hf_finetune, name)) for name in hf_finetune.__all__)
    with pytest.raises(AttributeError):
        hf_finetune.nothing  # noqa: B018


def test_importing_the_package_imports_no_heavy_package():
    code = (
        "import sys, hf_finetune; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

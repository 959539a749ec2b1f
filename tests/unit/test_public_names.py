"""The public names, imported in any order."""

import os
import subprocess
import sys
import traceback

import pytest

import hf_finetune
import hf_finetune.runs.run  # with all dependencies, so that forked processes have them

CHECK = """
import inspect
import hf_finetune.runs.prepare, hf_finetune.runs.run as module
assert callable(plan) and callable(run)
assert inspect.signature(plan) == inspect.signature(hf_finetune.runs.prepare.plan_stages)
assert inspect.signature(run) == inspect.signature(module.run)
for call in (plan, run):
    try:
        call("no recipe")
    except AttributeError as error:
        assert "'str' object has no attribute" in str(error), error
from hf_finetune.planning.stages import build_plan as same
import hf_finetune.planning.stages as stages
assert same is stages.build_plan is hf_finetune.build_plan
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "from hf_finetune import plan, run",
        "from hf_finetune import run, build_plan, plan",
        "import hf_finetune.planning.stages, hf_finetune.runs.run\nfrom hf_finetune import plan, run",
        "import hf_finetune\nplan, run = hf_finetune.plan, hf_finetune.run",
    ],
)
def test_plan_and_run_can_be_called_whatever_was_imported_before(tmp_path, first):
    assert error_in_fork(first + CHECK, tmp_path / "said") == ""


def test_a_fork_reports_its_error(tmp_path):
    assert "no module of that name" in error_in_fork(
        "raise ImportError('no module of that name')", tmp_path / "said"
    )


def error_in_fork(code, said):
    """Run code in a fork with the dependencies but not the package imported; return the error that it ends with."""
    said.touch()
    child = os.fork()
    if child == 0:
        try:
            for name in [name for name in sys.modules if name.partition(".")[0] == "hf_finetune"]:
                del sys.modules[name]
            exec(code, {})
        except BaseException:
            said.write_text(traceback.format_exc(), encoding="utf-8")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return said.read_text(encoding="utf-8")


def test_every_public_name_is_there():
    names = {"Recipe", "load_recipe", "parse_recipe", "plan", "run", "RunResult", "evaluate", "Predictor"}
    names |= {"FreezingCallback", "StagedTrainer", "Stage", "parameter_groups", "build_plan", "read_layout"}
    assert names | {"InputError", "Problem"} == set(hf_finetune.__all__)
    assert all(getattr(hf_finetune, name).__name__ == name for name in hf_finetune.__all__)
    assert all(callable(getattr(hf_finetune, name)) for name in hf_finetune.__all__)
    with pytest.raises(AttributeError):
        hf_finetune.nothing  # noqa: B018


def test_importing_the_package_imports_no_heavy_package():
    code = (
        "import sys, hf_finetune; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The installed wheel, and the cost of imports."""

import ast
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from hf_finetune.recipe.load import dump_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build the wheel and install it into an empty environment that has the dependencies but not the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True, capture_output=True
    )
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        folder / "site",
    ]
    subprocess.run([*pip, wheel], check=True)
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # A .pth entry adds a folder without reading the .pth files in it, which hides an editable install there.
    Path(packages, "dependencies.pth").write_text(f"{folder / 'site'}\n{site.getsitepackages()[0]}\n")
    empty = folder / "empty"
    empty.mkdir()
    return python, empty


def _run(installed: tuple[Path, Path], *words: str) -> str:
    python, empty = installed
    done = subprocess.run([python, *words], cwd=empty, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_brings_every_recipe(installed):
    listed = _run(installed, "-m", "hf_finetune", "recipes", "list")
    names = {line.split()[0] for line in listed.splitlines()}
    files = (ROOT / "recipes").rglob("*.yaml")
    present = {path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in files}
    candidates = {name for name in present if name.startswith("candidates/")}
    assert names == present - candidates
    found = "from hf_finetune.recipe.shipped import shipped_candidates; print(shipped_candidates({!r}))"
    for name in candidates:
        printed = _run(installed, "-c", found.format(name.removeprefix("candidates/"))).strip()
        assert Path(printed).read_bytes() == (ROOT / "recipes" / f"{name}.yaml").read_bytes()


def test_the_installed_wheel_runs(installed):
    where = _run(installed, "-c", "import hf_finetune; print(hf_finetune.__file__)").strip()
    assert not Path(where).is_relative_to(ROOT)
    assert Path(where).parent.parent.name == "site"


def test_the_wheel_has_every_file_of_the_package(installed):
    where = Path(_run(installed, "-c", "import hf_finetune; print(hf_finetune.__file__)").strip()).parent
    there, here = (
        {
            path.relative_to(folder)
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        for folder in (where, ROOT / "hf_finetune")
    )
    extra = {path for path in there if path.parts[0] == "shipped_recipes"}
    assert there - extra == here and Path("py.typed") in here


def test_a_shipped_recipe_can_be_copied_and_planned_offline(installed):
    _run(installed, "-m", "hf_finetune", "recipes", "copy", "image/food101-resnet50", "mine.yaml")
    printed = _run(installed, "-m", "hf_finetune", "plan", "mine.yaml", "data.path=nobody/has-this")
    assert "timm/resnet50.a1_in1k" in printed
    assert "The data 'nobody/has-this' is not available" in printed


@pytest.mark.parametrize("words", [["-c", "import hf_finetune"], ["-m", "hf_finetune", "--help"]])
def test_importing_and_help_load_no_heavy_library(words):
    code = f"""
import runpy, sys
sys.argv = ["hf-finetune", "--help"]
try:
    {"import hf_finetune" if words[0] == "-c" else 'runpy.run_module("hf_finetune", run_name="__main__")'}
except SystemExit:
    pass
print(sorted({{"torch", "transformers", "datasets", "numpy"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


PRINT_HEAVY = """
import sys
from hf_finetune.cli.app import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
heavy = {"datasets", "evaluate", "matplotlib", "pandas", "peft", "scipy.stats", "sklearn.metrics"}
heavy |= {"transformers.trainer", "pyarrow", "hf_finetune.recipe.schema"}
print(sorted(heavy & set(sys.modules)))
"""


def test_plan_and_predict_import_only_needed_packages(image_run, tmp_path):
    recipe, result = image_run
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    (picture, *_) = Path(recipe.data.path).rglob("*.png")

    def imported(*words):
        done = subprocess.run(
            [sys.executable, "-c", PRINT_HEAVY, *map(str, words)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return set(ast.literal_eval(done.stdout.splitlines()[-1]))

    # Both load transformers.trainer_utils, which imports peft wherever it is installed.
    assert imported("predict", result.folder, picture) <= {"peft"}
    optimizers = [f"stages.{index}.optimizer=adamw" for index in range(2)]
    assert imported("plan", tmp_path / "recipe.yaml", *optimizers) <= {
        "datasets",
        "pandas",
        "peft",
        "pyarrow",
        "hf_finetune.recipe.schema",
    }

"""Check the rules of the source code that no linter knows. A limit above 0 may only be lowered.

The rules concern the package; that on docstrings also applies to the tests, tools and benchmarks.

The head file ``models/classifier_head.py`` may name the inputs of a model: copies of it, stored with saved models, must
work without this package.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hf_finetune"
OTHER_FOLDERS = ("tests", "tools", "benchmarks")
SELF_CONTAINED = "models/classifier_head.py"
TARGETS = {"single_label", "multi_label", "regression"}
INPUTS = {
    *("image", "text", "image-classification", "text-classification"),
    *("pixel_values", "input_ids", "input_values"),
}
METHODS = {
    *("mixup", "cutmix", "r_drop", "ema", "l1", "l2_sp", "gradient_noise", "distillation", "coral", "dann"),
    *("class_weights", "effective_number", "focal", "logit_adjustment"),
}
OPENINGS = re.compile(r"(Gives?|Says?|Tells?|Puts?|Works? out|Name|What)\b")
MOST_LINES = 400
ROOT_MODULE, ROOT_LINES = "runs/run.py", 200  # the composition root fits on a few screens


@dataclass(frozen=True)
class Finding:
    """A place that breaks a rule."""

    rule: str
    place: str


LIMITS = {
    "names of targets outside targets/": 0,
    "names of tasks, modalities and model inputs outside tasks/": 0,
    "names of methods outside methods/ and recipe/": 0,
    "docstrings that open with another verb than the field uses": 0,
    f"modules of more than {MOST_LINES} lines ({ROOT_MODULE}: {ROOT_LINES})": 0,
}


def find_all(package: Path) -> Iterator[Finding]:
    """Yield all places of a package that break a rule."""
    names, inputs, methods, _, sizes = LIMITS
    yield from find_openings(package, package)
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package).as_posix()
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
        prose = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or node in prose:
                continue
            place = f"{relative}:{node.lineno}"
            if node.value in TARGETS and not relative.startswith("targets/"):
                yield Finding(names, place)
            elif node.value in INPUTS and not relative.startswith(("tasks/", SELF_CONTAINED)):
                yield Finding(inputs, place)
            elif node.value in METHODS and not relative.startswith(("methods/", "recipe/")):
                yield Finding(methods, place)
        if source.count("\n") > (ROOT_LINES if relative == ROOT_MODULE else MOST_LINES):
            yield Finding(sizes, relative)


def find_openings(folder: Path, base: Path) -> Iterator[Finding]:
    """Yield the docstrings below a folder that open with another verb than the field uses.

    Args:
        folder: Folder of Python files.
        base: Folder that the reported paths are relative to.
    """
    _, _, _, rule, _ = LIMITS
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
                and OPENINGS.match(node.value.value.strip())
            ):
                yield Finding(rule, f"{path.relative_to(base).as_posix()}:{node.lineno}")


def main() -> int:
    """Print the count of each rule, and the places of each rule whose limit is exceeded or can be lowered."""
    findings = list(find_all(PACKAGE))
    for folder in OTHER_FOLDERS:
        findings += find_openings(ROOT / folder, ROOT)
    failed = False
    for rule, limit in LIMITS.items():
        places = [finding.place for finding in findings if finding.rule == rule]
        print(f"{len(places):4} of at most {limit:4}: {rule}")
        if len(places) != limit:
            failed = True
            advice = "Fix these:" if len(places) > limit else f"Lower the limit to {len(places)}."
            print(f"     {advice}", *(places if len(places) > limit else ()), sep="\n     ")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""Check that all public names are documented in full, and count other functions that are not. Limits only fall.

A public name needs the sections of its docstring, an example, and an entry in README.md or docs/. Any other public
function with parameters needs ``Args``, and ``Returns`` unless its first sentence begins with what it returns.
"""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hf_finetune"
EXEMPT = ("models/classifier_head.py",)
RAISE_NOTHING = {
    *("InputError", "Problem", "RunResult", "read_layout"),
    *("Recipe", "Recipe.by_task", "Recipe.task_weight", "Recipe.with_paths"),
}
RESULTS = re.compile(r"(Return|Yield|Compute|Context manager)")
NO_CHECK = re.compile(r"(\w+\.)?(property|cached_property|setter|overload|command|callback)\b")
LIMITS = {"public functions without Args": 277, "public functions without Returns": 48}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def exported() -> Iterator[tuple[str, object]]:
    """Yield each public name of the package, and each public method of its classes, with its value."""
    package = importlib.import_module("hf_finetune")
    for name in package.__all__:
        value = getattr(package, name)
        yield name, value
        for method, function in vars(value).items() if inspect.isclass(value) else ():
            inherited = any(hasattr(base, method) for base in value.__bases__)
            if inspect.isfunction(function) and not method.startswith("_") and not inherited:
                yield f"{name}.{method}", function


def lacking(name: str, value: object) -> list[str]:
    """Return the sections that the docstring of a public name lacks."""
    signature, text = inspect.signature(value), inspect.getdoc(value) or ""  # type: ignore[arg-type]
    wanted = ["Example:\n    >>>"]
    if set(signature.parameters) - {"self"} and "Attributes:" not in text:
        wanted.append("Args:")
    if not inspect.isclass(value) and signature.return_annotation not in (None, "None", signature.empty):
        wanted.append("Returns:")
    if name not in RAISE_NOTHING:
        wanted.append("Raises:")
    return [section.partition("\n")[0] for section in wanted if f"\n{section}" not in text]


def incomplete() -> Iterator[str]:
    """Yield what the public names lack: sections of docstrings, and entries in the documentation."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    documentation = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    for name, value in exported():
        for section in lacking(name, value):
            yield f"{name} has no section {section}"
        if "." not in name and f"`{name}`" not in documentation:
            yield f"{name} is named neither in README.md nor in docs/"


def functions(path: Path) -> Iterator[Function]:
    """Yield the public functions and methods of a module that are no properties, commands or overrides."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes: list[tuple[ast.stmt, ast.ClassDef | None]] = [(node, None) for node in tree.body]
    for owner in tree.body:
        if isinstance(owner, ast.ClassDef) and not owner.name.startswith("_"):
            nodes += [(node, owner) for node in owner.body]
    for node, of_class in nodes:
        if isinstance(node, Function) and not node.name.startswith("_"):
            decorators = map(ast.unparse, node.decorator_list)
            if not any(map(NO_CHECK.match, decorators)) and not _is_override(node.name, of_class, path):
                yield node


def _is_override(name: str, owner: ast.ClassDef | None, path: Path) -> bool:
    """Return whether a class inherits a method; only the modules of classes with bases are imported."""
    if owner is None or not owner.bases:
        return False
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return any(hasattr(base, name) for base in getattr(module, owner.name).__bases__)


def without_sections(package: Path = PACKAGE) -> Iterator[tuple[str, str]]:
    """Yield the rule and the place of each public function of a package that lacks a section."""
    args, returns = LIMITS
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package).as_posix()
        for node in functions(path) if relative not in EXEMPT else ():
            text, place = ast.get_docstring(node) or "", f"{relative}:{node.lineno} {node.name}"
            names = [argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)]
            if set(names) - {"self", "cls"} and "Args:" not in text:
                yield args, place
            result = ast.unparse(node.returns) if node.returns else "None"
            told = RESULTS.match(text) or "Returns:" in text or "Yields:" in text
            if result not in ("None", "NoReturn") and not told:
                yield returns, place


def main() -> int:
    """Print what is lacking, and the places of each rule whose limit is exceeded or can be lowered."""
    lines, places = list(incomplete()), list(without_sections())
    failed = bool(lines)
    for rule, limit in LIMITS.items():
        found = [place for name, place in places if name == rule]
        print(f"{len(found):4} of at most {limit:4}: {rule}")
        failed |= len(found) != limit
        lines += found if len(found) > limit else []
        lines += [f"Lower the limit to {len(found)}: {rule}"] if len(found) < limit else []
    print(*lines, sep="\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

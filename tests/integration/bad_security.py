"""Bad inputs: recipes, checkpoints and metrics that would run code, or would not terminate."""

from bad_input_case import Case
from security_helpers import Canary, change_json

__all__ = ["CASES"]

BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


def with_script(folder):
    """Write a metric's script into the folder."""
    Canary(folder / "it-ran").script(folder / "share" / "share.py")


def with_code(folder):
    """Let the checkpoint require the code next to it."""
    Canary(folder / "it-ran").script(folder / "vit" / "modeling_own.py")
    auto_map = {"AutoConfig": "modeling_own.OwnConfig"}
    change_json(folder / "vit" / "config.json", model_type="own_vit", auto_map=auto_map)


def with_aliases(folder):
    """Insert nested YAML aliases before the recipe."""
    path = folder / "recipe.yaml"
    path.write_text(BOMB + path.read_text(encoding="utf-8"), encoding="utf-8")


CODE = "It would run modeling_own.py (OwnConfig, named in config.json), from ./vit. Read the code first."

CASES = [
    Case(
        "a metric that is a script",
        "plan recipe.yaml 'metrics=[accuracy, ./share]'",
        (
            "Problem:\n"
            "  metrics[1] must be a metric of this package for the label type single_label unless "
            "--trust-remote-code is given. Got './share'. With the option, evaluate.load runs the script "
            "'./share/share.py'."
        ),
        with_script,
    ),
    Case(
        "a checkpoint that needs custom code",
        "plan recipe.yaml",
        (
            "Problem:\n"
            "  model.path must not need custom code unless --trust-remote-code is given. Got './vit'. "
            f"{CODE}"
        ),
        with_code,
    ),
    Case(
        "a recipe that permits itself to run custom code",
        "run recipe.yaml model.trust_remote_code=true",
        (
            "Problem:\n"
            "  model.trust_remote_code must be combined with --trust-remote-code, which permits the code to "
            f"run. {CODE}"
        ),
        with_code,
    ),
    Case(
        "nested YAML aliases (billion laughs)",
        "plan recipe.yaml",
        (
            "Problem:\n"
            "  recipe.yaml must contain at most 50,000 values, with those of aliases (*name) counted at each "
            "use. Got "
            "7.5e+10."
        ),
        with_aliases,
    ),
    Case(
        "a regular expression with catastrophic backtracking",
        "plan recipe.yaml 'stages.0.train=/(a|a|e|e)*(.|.)*(.|..)*$^/'",
        (
            "Problem:\n"
            "  stages[0].train must be a regular expression that can be matched within seconds, without "
            "nested repetition such as (a+)*. Got '/(a|a|e|e)*(.|.)*(.|..)*$^/'."
        ),
    ),
]

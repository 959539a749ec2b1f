"""The selectors of ``train:``, on a layout of four layers without a model."""

import pytest

from hf_finetune.errors import InputError
from hf_finetune.planning.layers import Layout, Parameter
from hf_finetune.planning.selectors import select

LAYOUT = Layout(
    parameters=(
        Parameter("embed.weight", 8, 0),
        Parameter("encoder.0.weight", 4, 1),
        Parameter("encoder.0.bias", 2, 1, decays=False),
        Parameter("encoder.1.weight", 4, 2),
        Parameter("encoder.1.norm.weight", 2, 2, is_norm=True, decays=False),
        Parameter("encoder.1.norm.bias", 2, 2, is_norm=True, decays=False),
        Parameter("encoder.2.weight", 4, 3),
        Parameter("fc.weight", 6, 4),
        Parameter("fc.bias", 3, 4, decays=False),
    ),
    groups=("input", "encoder.0", "encoder.1", "encoder.2", "head"),
)
HEAD = ("fc.weight", "fc.bias")
LAST = ("encoder.2.weight",)
SECOND = ("encoder.1.weight", "encoder.1.norm.weight", "encoder.1.norm.bias")


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("head", HEAD),
        ("all", LAYOUT.names()),
        ("last:1", (*LAST, *HEAD)),
        ("last:2", (*SECOND, *LAST, *HEAD)),
        ("last:4", LAYOUT.names()),
        ("layers[0]", ("embed.weight",)),
        ("layers[-1]", LAST),
        ("layers[2:]", (*SECOND, *LAST)),
        ("layers[:1]", ("embed.weight",)),
        ("layers[-2:-1]", SECOND),
        ("layers[:]", LAYOUT.names()[:-2]),
        ("norms", SECOND[1:]),
        ("biases", ("encoder.0.bias", "encoder.1.norm.bias", "fc.bias")),
        (r"/encoder\.[02]\.w/", ("encoder.0.weight", "encoder.2.weight")),
        ("/a/", ("encoder.0.bias", "encoder.1.norm.bias", "fc.bias")),
        (["head", "layers[-1]"], (*LAST, *HEAD)),
        (["biases", "head"], ("encoder.0.bias", "encoder.1.norm.bias", *HEAD)),
    ],
)
def test_a_selector_names_its_parameters_in_the_models_order(selector, names):
    assert select(LAYOUT, selector) == names


FORMS = "Valid: head, all, norms, biases, last:N, layers[A:B], /regular expression/."
SIZE = "This model has 4 layer groups and 9 parameter tensors."
WRONG = [
    ([], f"train must not be empty. Got []. {FORMS}"),
    ("heads", f"train must be a valid selector. Got 'heads'. Nearest: 'head'. {FORMS}"),
    (
        "xyz",
        f"train must be a valid selector. Got 'xyz'. Known: 'head', 'all', 'norms', 'biases'. {FORMS}",
    ),
    (
        "last:0",
        "train must select between 1 and 4 layer groups, the number in this model. Got 'last:0'. "
        "For no layer group use 'head', for the whole model 'all'.",
    ),
    (
        "last:5",
        "train must select between 1 and 4 layer groups, the number in this model. Got 'last:5'. "
        "For no layer group use 'head', for the whole model 'all'.",
    ),
    ("layers[4]", "train must index one of the 4 layer groups, 0 to 3. Got 'layers[4]'."),
    ("layers[-5]", "train must index one of the 4 layer groups, 0 to 3. Got 'layers[-5]'."),
    ("layers[]", "train must index one of the 4 layer groups, 0 to 3. Got 'layers[]'."),
    ("layers[7:]", f"train must match at least one parameter. Got 'layers[7:]'. {SIZE}"),
    ("layers[3:1]", f"train must match at least one parameter. Got 'layers[3:1]'. {SIZE}"),
    (
        "/encodr/",
        "train must match at least one parameter. Got '/encodr/'. Nearest: 'encoder'.",
    ),
    (
        "/(/",
        "train must be a valid regular expression (missing ), unterminated subpattern at position 0). "
        "Got '/(/'.",
    ),
    (["head", "auto"], "train must be a valid selector. Got 'auto'. Write auto alone, not in a list."),
    ("//", f"train must be a valid selector. Got '//'. Known: 'head', 'all', 'norms', 'biases'. {FORMS}"),
]


@pytest.mark.parametrize(("selector", "message"), WRONG, ids=[str(selector) for selector, _ in WRONG])
def test_an_invalid_selector_is_refused(selector, message):
    with pytest.raises(InputError) as caught:
        select(LAYOUT, selector)
    assert str(caught.value) == message


def test_a_list_reports_all_its_problems_with_their_position():
    with pytest.raises(InputError) as caught:
        select(LAYOUT, ["head", "last:9", "layers[9]"], "stages[1].train")
    assert str(caught.value) == (
        "stages[1].train must select between 1 and 4 layer groups, the number in this model. Got 'last:9'. "
        "For no layer group use 'head', for the whole model 'all'.\n"
        "stages[1].train must index one of the 4 layer groups, 0 to 3. Got 'layers[9]'."
    )


def test_a_model_without_norms_is_reported():
    plain = Layout(LAYOUT.parameters[:1] + LAYOUT.parameters[-2:], ("input", "head"))
    with pytest.raises(InputError) as caught:
        select(plain, "norms")
    assert str(caught.value) == (
        "train must match at least one parameter. Got 'norms'. "
        "This model has 1 layer group and 3 parameter tensors."
    )

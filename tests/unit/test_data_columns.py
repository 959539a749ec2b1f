import pytest
from datasets import ClassLabel, Features, Image, Value

from hf_finetune.data.columns import Columns, find_columns
from hf_finetune.errors import InputError
from hf_finetune.tasks import MODALITIES

STRING, INT = Value("string"), Value("int64")
CLASSES = ClassLabel(names=["a", "b"])


def find(modality, features, named=None, group=None):
    return find_columns(Features(features), MODALITIES[modality], named or {}, group)


def error_text(modality, features, named=None, group=None):
    with pytest.raises(InputError) as error:
        find(modality, features, named, group)
    return str(error.value)


@pytest.mark.parametrize(
    "features",
    [
        {"picture": Image(), "category": INT, "path": STRING},
        {"picture": Value("binary"), "category": CLASSES},
        {"picture": {"bytes": Value("binary"), "path": STRING}, "category": STRING},
        {"picture": STRING, "category": STRING, "notes": STRING},
    ],
)
def test_image_columns_are_inferred_by_type_then_name(features):
    columns, notes = find("image", features)
    assert columns == Columns(label="category", inputs={"image": "picture"})
    assert notes == ("Columns inferred: image from 'picture', label from 'category'.",)


def test_bytes_of_any_name_are_images():
    assert find("image", {"blob": Value("binary"), "label": INT})[0].inputs["image"] == "blob"


@pytest.mark.parametrize("name", ["text", "sentence", "review", "content", "Review"])
def test_text_columns_are_inferred_by_name(name):
    columns, _ = find("text", {name: STRING, "author": STRING, "label": INT})
    assert tuple(columns.inputs.values()) == (name, None)


def test_the_only_strings_left_are_the_text():
    assert find("text", {"snippet": STRING, "id": INT, "label": STRING})[0].inputs["text"] == "snippet"


@pytest.mark.parametrize(
    "pair",
    [("sentence1", "sentence2"), ("premise", "hypothesis"), ("question", "sentence"), ("text", "text_pair")],
)
def test_pair_columns_are_inferred_by_name(pair):
    columns, notes = find("text", {pair[0]: STRING, pair[1]: STRING, "label": CLASSES, "idx": INT})
    assert tuple(columns.inputs.values()) == pair
    assert notes == (
        f"Columns inferred: text from {pair[0]!r}, text_pair from {pair[1]!r}, label from 'label'.",
    )


def test_the_plain_name_wins():
    features = {"text": STRING, "title": STRING, "label": INT, "category": STRING}
    assert find("text", features)[0] == Columns(label="label", inputs={"text": "text", "text_pair": None})


def test_the_only_column_with_declared_classes_is_the_label():
    assert find("image", {"image": Image(), "breed": CLASSES, "age": INT})[0].label == "breed"


def test_named_columns_are_taken_and_not_noted():
    features = {"premise": STRING, "hypothesis": STRING, "mood": INT, "who": STRING}
    columns, notes = find("text", features, {"text": "hypothesis", "label": "mood"}, group="who")
    assert columns == Columns(label="mood", inputs={"text": "hypothesis", "text_pair": None}, group="who")
    assert notes == ()


def test_the_group_is_not_the_text():
    assert (
        find("text", {"words": STRING, "author": STRING, "label": INT}, group="author")[0].inputs["text"]
        == "words"
    )


def test_columns_that_cannot_be_inferred_are_reported():
    assert error_text("image", {"a": INT, "b": INT}) == (
        "data.columns.image must be set, because no column looks like images. Got columns 'a', 'b'. Set "
        "data.columns.image to one of them.\n"
        "data.columns.label must be set, because no column looks like labels. Got columns 'a', 'b'. Set "
        "data.columns.label to one of them."
    )


def test_a_single_column_needs_a_separator():
    assert error_text("text", {"text^label": STRING}) == (
        "data.columns.label must be set, because no column looks like labels. Got columns 'text^label'. If "
        "the columns are not separated by commas, set data.separator."
    )


def test_several_fit():
    features = {"title": STRING, "content": STRING, "category": INT, "rating": INT}
    assert error_text("text", features) == (
        "data.columns.text must be set, because several columns look like texts. Got 'title', 'content'. "
        "Set data.columns.text to one of them.\n"
        "data.columns.label must be set, because several columns look like labels. Got 'category', "
        "'rating'. Set data.columns.label to one of them."
    )


def test_named_columns_that_do_not_exist_or_are_of_the_wrong_type():
    features = {"text": STRING, "stars": INT, "label": INT, "user": STRING}
    assert error_text("text", features, {"text": "stars", "label": "lable"}, group="usr") == (
        "data.columns.text must contain strings. Got 'stars' of type int64.\n"
        "data.columns.label must be a column of the data. Got 'lable'. Nearest: 'label'.\n"
        "data.split.group must be a column of the data. Got 'usr'. Nearest: 'user'."
    )
    assert error_text("image", {"image": Image(), "label": INT}, {"image": "label"}) == (
        "data.columns.image must contain images, file paths or the bytes of image files. "
        "Got 'label' of type int64."
    )


def test_named_columns_of_the_other_modality():
    assert error_text("text", {"text": STRING, "label": INT}, {"image": "text"}) == (
        "data.columns.image must not be set for text data. Got 'text'."
    )


def test_a_pair_needs_its_first_text():
    assert error_text("text", {"a": STRING, "b": STRING, "label": INT}, {"text_pair": "b"}) == (
        "data.columns.text must be set if text_pair is set. Got text_pair 'b'."
    )


def test_the_group_is_named_once():
    features = {"text": STRING, "label": INT, "a": INT, "b": INT}
    assert error_text("text", features, {"group": "a"}, group="b") == (
        "data.split.group must be the same column as data.columns.group. Got 'b' and 'a'."
    )
    assert find("text", features, {"group": "a"})[0].group == "a"

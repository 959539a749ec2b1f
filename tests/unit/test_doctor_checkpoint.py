"""The doctor's checks of the checkpoint: every weight is accounted for, and survives saving and loading."""

import re
import shutil

import pytest
import torch
from doctor_helpers import make_recipe, make_subject
from safetensors.torch import load_file, save_file

from hf_finetune.doctor.check_suite import run_check
from hf_finetune.doctor.check_target import load_check_target, synthetic_data, tiny_recipes
from hf_finetune.doctor.checkpoint import UPDATE_LIBRARIES, check_round_trip, check_weights
from hf_finetune.doctor.result import Check, CheckResult
from hf_finetune.errors import InputError
from hf_finetune.models.export import export_model
from hf_finetune.tasks import MODALITIES, TASKS


@pytest.fixture(scope="module")
def image(timm_checkpoint):
    return make_subject("image", timm_checkpoint)


@pytest.fixture(scope="module")
def text(bert_checkpoint):
    return make_subject("text", bert_checkpoint)


def copied(folder, checkpoint, change):
    shutil.copytree(checkpoint, folder / "changed")
    path = folder / "changed" / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})
    return folder / "changed"


def test_complete_checkpoints_pass(image, text):
    assert check_weights(image) == CheckResult(
        "weights",
        "pass",
        "All 45 parameters before the head equal those of the checkpoint. "
        "The checkpoint's head for 3 labels is replaced by a new head for 2 labels.",
    )
    assert check_weights(text).state == "pass"


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_an_adapter_is_merged_before_the_model_is_saved(tmp_path, bert_checkpoint, kind):
    model = {"path": str(bert_checkpoint), "adapter": {"type": kind}}
    stages = [{"name": "head", "train": ["head", kind], "epochs": 1, "lr": 1e-3}]
    subject = make_subject("text", "", model=model, stages=stages)
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    assert check_weights(subject).measured.startswith(
        "All 39 parameters before the head equal those of the checkpoint."
    )
    found = check_round_trip(subject, tmp_path)
    assert found.state == "pass"
    words = r"Merging its adapter, filled with noise, changes no logit by more than \S+\. The saved model, loaded by "
    assert re.match(words, found.measured)
    after = subject.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_missing_weight_fails_and_the_other_checks_continue(tmp_path, timm_checkpoint):
    name = "timm_model.conv1.0.weight"
    changed = copied(tmp_path, timm_checkpoint, lambda weights: weights.pop(name))
    subject = make_subject("image", changed)
    assert check_weights(subject) == CheckResult(
        "weights",
        "fail",
        "model.path must contain every weight outside the head.",
        f"It lacks {name}. Add the names to model.allow_missing if this is intended.",
    )
    (tmp_path / "out").mkdir()
    assert check_round_trip(subject, tmp_path / "out").state == "pass"


def test_a_weight_too_many_fails(tmp_path, bert_checkpoint):
    changed = copied(tmp_path, bert_checkpoint, lambda weights: weights.update(stray=torch.zeros(2)))
    found = check_weights(make_subject("text", changed))
    assert (found.state, found.measured, found.repair) == (
        "fail",
        "model.path must contain only weights of its architecture.",
        "It also contains stray. Add the names to model.allow_missing if this is intended.",
    )


def test_a_weight_that_the_recipe_allows_to_be_missing_passes(tmp_path, timm_checkpoint):
    name = "timm_model.conv1.0.weight"
    changed = copied(tmp_path, timm_checkpoint, lambda weights: weights.pop(name))
    subject = make_subject("image", changed, model={"path": str(changed), "allow_missing": ["conv1\\.0"]})
    assert check_weights(subject).state == "pass"


def test_unreadable_weights_are_wrong_input(tmp_path, timm_checkpoint):
    shutil.copytree(timm_checkpoint, tmp_path / "cut")
    path = tmp_path / "cut" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="must contain intact weight files"):
        load_check_target(make_recipe("image", tmp_path / "cut"))


def test_the_checkpoint_is_loaded_by_transformers_and_by_timm(tmp_path, image, text):
    for subject, libraries in ((image, "transformers and by timm"), (text, "transformers")):
        folder = tmp_path / subject.prepared.task.modality.name
        folder.mkdir()
        measured = f"The saved model, loaded by {libraries}, returns bitwise equal logits (16 values)."
        assert check_round_trip(subject, folder) == CheckResult("save and load", "pass", measured)


def test_a_model_that_timm_cannot_load_fails(tmp_path, image, monkeypatch):
    """Without the safeguard: timm does not find the weights under the names that the wrapper saves."""

    def stock(model, processor, folder):
        model.save_pretrained(folder)

    monkeypatch.setattr("hf_finetune.doctor.checkpoint.export_model", stock)
    found = run_check(Check("save and load", lambda folder: check_round_trip(image, folder)), tmp_path)
    assert found.state == "fail"


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_saved_model_that_is_another_fails(tmp_path, request, monkeypatch, kind):
    def other(model, processor, folder):
        with torch.no_grad():
            head = list(model.parameters())[-1]
            head.add_(0.5)
            export_model(model, processor, folder)
            head.sub_(0.5)

    monkeypatch.setattr("hf_finetune.doctor.checkpoint.export_model", other)
    found = check_round_trip(request.getfixturevalue(kind), tmp_path)
    assert (found.state, found.repair) == ("fail", UPDATE_LIBRARIES)
    assert found.measured.startswith(
        "The saved model differs: loaded by transformers its logits differ by up to 0.5"
    )
    assert ("; loaded by timm its logits differ by up to 0.5" in found.measured) == (kind == "image")


@pytest.mark.parametrize(
    ("target", "names", "labels"),
    [
        ("single_label", ("a", "b", "c"), int),
        ("multi_label", ("a", "b"), list),
        ("regression", ("label",), float),
    ],
)
@pytest.mark.parametrize("modality", ["image", "text"])
def test_made_up_data_is_of_the_kind_asked_for_and_the_same_each_time(modality, target, names, labels):
    one, other = (synthetic_data(MODALITIES[modality], target, names, words=8, pair=True) for _ in range(2))
    assert len(one.train) == 8
    assert one.train[:] == other.train[:]
    assert all(isinstance(label, labels) for label in one.train["label"])
    if modality == "text":
        assert set(one.train.column_names) == {"id", "text", "text_pair", "label"}
        assert max(len(text.split()) for text in one.train["text"]) == 8


@pytest.mark.parametrize(
    ("target", "labels", "shape"), [("single_label", 2, ()), ("multi_label", 2, (2,)), ("regression", 1, ())]
)
@pytest.mark.parametrize("task", ["image", "text"])
def test_subjects_of_every_target_without_data(request, task, target, labels, shape):
    checkpoint = request.getfixturevalue({"image": "timm_checkpoint", "text": "bert_checkpoint"}[task])
    subject = make_subject(task, checkpoint, data={"path": "./not-there", "target": target})
    assert subject.model.config.num_labels == labels
    assert subject.inputs.collate([dict(one) for one in subject.examples])["labels"].shape == (8, *shape)
    remark = f"The data './not-there' is not available: the number of labels is assumed to be {labels}."
    assert subject.remark == remark


def test_labels_of_data_at_hand_are_used(squares, timm_checkpoint):
    subject = make_subject("image", timm_checkpoint, data=str(squares))
    assert subject.prepared.data.label_names == ("blue", "green", "red")
    assert subject.remark == ""


def test_the_tiny_models_are_recipes_like_any_other(tmp_path):
    recipes = tiny_recipes(tmp_path)
    assert [recipe.task for recipe in recipes] == list(TASKS)
    for recipe in recipes:
        assert check_weights(load_check_target(recipe)).state == "pass"

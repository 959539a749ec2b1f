"""The doctor's checks of training: they pass with the package, and fail once a safeguard is removed."""

import pytest
import torch
import transformers
from doctor_helpers import make_subject

from hf_finetune.doctor import determinism, gradients, stages
from hf_finetune.doctor.determinism import check_determinism
from hf_finetune.doctor.gradients import check_loss_scaling, widest_stage
from hf_finetune.doctor.result import CheckResult
from hf_finetune.doctor.stages import check_stage
from hf_finetune.doctor.steps import difference
from hf_finetune.doctor.worker import pack_model
from hf_finetune.models.layout import head_names
from hf_finetune.targets.losses import loss_for
from hf_finetune.training.trainer import SingleStageTrainer

KINDS = ("image", "text")


@pytest.fixture(scope="module")
def image(timm_checkpoint):
    return make_subject("image", timm_checkpoint)


@pytest.fixture(scope="module")
def text(bert_checkpoint):
    return make_subject("text", bert_checkpoint)


@pytest.fixture(params=KINDS)
def subject(request):
    return request.getfixturevalue(request.param)


def test_the_stages_of_an_image_model_pass(tmp_path, image):
    assert check_stage(image, 0, tmp_path / "0") == CheckResult(
        "stage head",
        "pass",
        "2 steps changed 2 planned parameters; 45 others and 45 buffers are equal bit for bit; "
        "64 frozen modules stayed in eval mode; the optimizer's parameter groups match the plan.",
    )
    assert check_stage(image, 1, tmp_path / "1") == CheckResult(
        "stage all",
        "pass",
        "2 steps changed 47 planned parameters; the optimizer's parameter groups match the plan.",
    )


@pytest.mark.parametrize("index", [0, 1])
def test_the_stages_of_a_text_model_pass(tmp_path, text, index):
    found = check_stage(text, index, tmp_path)
    assert (found.state, found.repair) == ("pass", "")
    assert found.measured.endswith("the optimizer's parameter groups match the plan.")


def test_a_stage_that_fits_its_head_is_examined_in_steps(tmp_path, bert_checkpoint):
    stages = [{"name": "head", "train": "head", "fit": "logistic_regression"}]
    found = check_stage(make_subject("text", bert_checkpoint, stages=stages), 0, tmp_path)
    assert found.state == "pass"
    assert found.measured.startswith("2 steps changed 2 planned parameters; ")


def test_checked_models_are_not_changed(tmp_path, subject):
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    check_stage(subject, 1, tmp_path / "stage")
    check_loss_scaling(subject, tmp_path / "scaling")
    after = subject.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in subject.model.parameters())


def test_modules_left_in_train_mode_fail(tmp_path, image, monkeypatch):
    """Trap 7: the statistics of a frozen BatchNorm move when it follows ``model.train()``."""
    monkeypatch.setattr("hf_finetune.training.freezing.frozen_modules", lambda model: [])
    found = check_stage(image, 0, tmp_path)
    assert (found.state, found.repair) == ("fail", stages.UNPLANNED_CHANGE_REPAIR)
    assert found.measured.startswith("Changed, but not planned: timm_model.bn1.num_batches_tracked, ")
    assert "; frozen, but not in eval mode: timm_model.bn1, timm_model.conv1, " in found.measured


def test_a_model_that_is_not_frozen_fails(tmp_path, subject, monkeypatch):
    """Trap 1 in reverse: the stock optimizer holds all parameters that require a gradient."""
    monkeypatch.setattr("hf_finetune.training.stage.freeze_all_but", lambda model, names: None)
    monkeypatch.setattr(SingleStageTrainer, "create_optimizer", transformers.Trainer.create_optimizer)
    found = check_stage(subject, 0, tmp_path)
    assert (found.state, found.repair) == (
        "fail",
        f"{stages.UNPLANNED_CHANGE_REPAIR} {stages.UNCHANGED_REPAIR}",
    )
    assert found.measured.startswith("Changed, but not planned: ")
    assert "; the optimizer also contains " in found.measured


@pytest.fixture
def change_first_group(monkeypatch):
    """Return a function that changes the first parameter group of every new optimizer."""
    planned = SingleStageTrainer.create_optimizer

    def changing(change):
        def create_optimizer(self, model=None):
            optimizer = planned(self, model)
            change(optimizer.param_groups[0])
            return optimizer

        monkeypatch.setattr(SingleStageTrainer, "create_optimizer", create_optimizer)

    return changing


def test_an_optimizer_that_lacks_a_parameter_fails(tmp_path, subject, change_first_group):
    change_first_group(lambda group: group["params"].pop(0))
    found = check_stage(subject, 0, tmp_path)
    name = head_names(subject.model)[0]
    measured = f"Planned, but not changed: {name}; the optimizer lacks {name}."
    assert found == CheckResult("stage head", "fail", measured, stages.UNCHANGED_REPAIR)


def test_an_optimizer_with_another_rate_fails(tmp_path, subject, change_first_group):
    change_first_group(lambda group: group.update(lr=2 * group["lr"]))
    found = check_stage(subject, 0, tmp_path)
    name = head_names(subject.model)[0]
    measured = f"The optimizer has a wrong learning rate or weight decay for {name}."
    assert found == CheckResult("stage head", "fail", measured, stages.UNCHANGED_REPAIR)


def test_a_planned_parameter_that_stays_frozen_fails(tmp_path, subject, monkeypatch):
    from hf_finetune.training.stage import freeze_all_but

    name = next(name for name, _ in subject.model.named_parameters())

    def too_much(model, names):
        freeze_all_but(model, set(names) - {name})

    monkeypatch.setattr("hf_finetune.training.stage.freeze_all_but", too_much)
    found = check_stage(subject, 1, tmp_path)
    assert (found.state, found.repair) == ("fail", stages.UNCHANGED_REPAIR)
    assert found.measured == f"Planned, but not changed: {name}."


def test_an_unused_parameter_is_reported_but_no_failure(tmp_path, bert_checkpoint):
    subject = make_subject("text", bert_checkpoint)
    subject.model.bert.register_parameter("spare", torch.nn.Parameter(torch.ones(3)))
    from dataclasses import replace

    from hf_finetune.models.layout import read_layout
    from hf_finetune.planning.stages import build_plan

    plan = build_plan(read_layout(subject.model), subject.prepared.recipe.stages, 8)
    subject = replace(subject, prepared=replace(subject.prepared, plan=plan))
    found = check_stage(subject, 1, tmp_path)
    assert found.state == "pass"
    assert found.measured.endswith(" Planned, but their updates are not measurable: bert.spare.")


def test_the_gradient_of_a_batch_does_not_depend_on_how_it_is_cut(tmp_path, subject):
    found = check_loss_scaling(subject, tmp_path)
    assert found.state == "pass"
    assert found.measured.startswith(
        "1 batch of 8 and 4 batches of 2 have the same gradient as plain torch, within "
    )


@pytest.mark.parametrize("target", ["multi_label", "regression"])
def test_the_gradient_of_other_targets_too(tmp_path, bert_checkpoint, target):
    subject = make_subject("text", bert_checkpoint, data={"path": "./not-there", "target": target})
    assert check_loss_scaling(subject, tmp_path).state == "pass"


def test_a_loss_that_is_the_mean_of_each_micro_batch_fails(tmp_path, subject, monkeypatch):
    """Trap 11: the gradient then grows with the accumulation."""

    def mean_loss(target, smoothing=0.0):
        exact = loss_for(target, smoothing)
        return lambda outputs, labels, num_items_in_batch=None: exact(outputs, labels)

    monkeypatch.setattr("hf_finetune.training.sequence_validation.loss_for", mean_loss)
    assert check_loss_scaling(subject, tmp_path) == CheckResult(
        "loss scaling",
        "fail",
        "The gradient norm is 1 (1 batch of 8) and 4 (4 batches of 2) times that of plain torch; "
        "the gradients differ by up to 300.0% of it.",
        gradients.REPAIR,
    )


def test_two_runs_are_equal(tmp_path, subject):
    found = check_determinism(subject, tmp_path)
    assert found.state == "pass"
    tensors = len(subject.model.state_dict())
    assert found.measured == (
        f"Two runs of 2 steps are equal bit for bit in all {tensors} tensors, on the CPU with 1 thread."
    )


def test_chance_that_no_seed_fixes_fails(tmp_path, text, monkeypatch):
    monkeypatch.setattr("transformers.trainer.set_seed", lambda *arguments, **options: None)
    found = check_determinism(text, tmp_path)
    assert (found.state, found.repair) == ("fail", determinism.REPAIR)
    assert found.measured.startswith("Two runs differ on the CPU with 1 thread in ")
    assert ": bert.embeddings.word_embeddings.weight, " in found.measured


def test_the_widest_stage_is_the_one_that_trains_most(image, timm_checkpoint):
    assert widest_stage(image) == 1
    turned = make_subject(
        "image", timm_checkpoint, stages=image.prepared.recipe.model_dump(mode="json")["stages"][::-1]
    )
    assert widest_stage(turned) == 0


def test_gradients_are_compared_by_norm_and_difference():
    one = {"a": torch.tensor([3.0, 4.0])}
    assert difference(one, one) == (1.0, 0.0)
    assert difference({"a": 2 * one["a"]}, one) == (2.0, 1.0)
    assert difference({}, one) == (0.0, 1.0)
    assert difference({**one, "b": torch.tensor([5.0])}, one) == (pytest.approx(2**0.5), 1.0)
    assert difference(one, {"a": torch.zeros(2)})[1] == float("inf")


def test_a_model_with_parametrized_modules_is_given_to_other_processes(tmp_path, tiny_model):
    """Wav2Vec2 has a convolution under ``weight_norm``, which torch refuses to pickle."""
    model = tiny_model("bert")
    torch.nn.utils.parametrizations.weight_norm(model.classifier)
    packed = pack_model(model)
    torch.save(packed, tmp_path / "job.pt")
    assert packed["class"] is type(model)
    assert packed["weights"].keys() == model.state_dict().keys()

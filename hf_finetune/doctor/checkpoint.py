"""Checks of the checkpoint: no missing or unexpected weights, and the same logits after saving and loading."""

import copy
from pathlib import Path
from typing import TypeVar

import timm
import torch
from transformers import TimmWrapperConfig

from hf_finetune.doctor.check_target import CheckTarget
from hf_finetune.doctor.result import CheckResult
from hf_finetune.models.adapters import adapted_layers, adapter_names, merge_adapter
from hf_finetune.models.classifier_head import is_given
from hf_finetune.models.export import export_model
from hf_finetune.models.layout import head_names
from hf_finetune.tasks import TASKS

__all__ = ["check_round_trip", "check_weights", "realign_weights"]

AnyModel = TypeVar("AnyModel", bound=torch.nn.Module)
WEIGHTS = "weights"
ROUND_TRIP = "save and load"
ADAPTER_NOISE = 0.02
"""Standard deviation of the noise that fills an adapter before it is merged."""
UPDATE_LIBRARIES = (
    "A published model would differ from the trained one. Update transformers and timm together "
    "(pip install -U transformers timm), and run the check again."
)


def check_weights(subject: CheckTarget) -> CheckResult:
    """Check that the checkpoint contains exactly the weights of the architecture, except for those of the head."""
    if subject.weight_problems:
        repairs = dict.fromkeys(problem.repair for problem in subject.weight_problems if problem.repair)
        faults = " ".join(f"{problem.place} {problem.rule}." for problem in subject.weight_problems)
        return CheckResult(WEIGHTS, "fail", faults, " ".join(repairs))
    new = set(head_names(subject.model)) | adapter_names(subject.model)
    backbone = sum(name not in new for name, _ in subject.model.named_parameters())
    equal = f"All {backbone} parameters before the head equal those of the checkpoint."
    return CheckResult(WEIGHTS, "pass", " ".join((equal, *subject.notes)))


def check_round_trip(subject: CheckTarget, folder: Path) -> CheckResult:
    """Check that the saved model returns the same logits when loaded by transformers, and by timm where possible.

    An adapter is first filled with noise and merged, as at the end of a run.

    Args:
        subject: Model to check.
        folder: Folder to save the model in.
    """
    model, merged = subject.model.eval(), ""
    batch = subject.inputs.collate([dict(example) for example in subject.examples])
    batch.pop("labels")
    with torch.no_grad():
        if adapted_layers(model):
            model = copy.deepcopy(model)
            generator = torch.Generator().manual_seed(0)
            for name in sorted(adapter_names(model)):
                parameter = model.get_parameter(name)
                parameter += ADAPTER_NOISE * torch.randn(parameter.shape, generator=generator)
            change = merge_adapter(model, batch)
            merged = f"Merging its adapter, filled with noise, changes no logit by more than {change:.1g}. "
        expected = realign_weights(model)(**batch).logits
        export_model(model, subject.prepared.processor, folder / "model")
        has_head_code = is_given(model.config)  # the head's code file, which export_model has just written
        trusted = has_head_code or subject.prepared.trust_remote_code
        task = TASKS[subject.prepared.recipe.task_type]
        auto = task.auto_class_of(model.config)
        loaded = auto.from_pretrained(folder / "model", trust_remote_code=trusted)
        loaded = task.adapt_model(loaded)
        outputs = {"transformers": realign_weights(loaded.eval())(**batch).logits}
        if isinstance(model.config, TimmWrapperConfig) and not has_head_code:
            native = timm.create_model(f"local-dir:{folder / 'model'}", pretrained=True)
            name = subject.prepared.task.modality.main_input_in(batch)
            outputs["timm"] = realign_weights(native.eval())(batch[name])
    differences = [
        f"loaded by {library} its logits differ by up to {(logits - expected).abs().max().item():.2g}"
        if logits.shape == expected.shape
        else f"loaded by {library} it has {logits.shape[-1]} outputs, not {expected.shape[-1]}"
        for library, logits in outputs.items()
        if not torch.equal(logits, expected)
    ]
    if differences:
        return CheckResult(
            ROUND_TRIP, "fail", f"The saved model differs: {'; '.join(differences)}.", UPDATE_LIBRARIES
        )
    equal = f"returns bitwise equal logits ({expected.numel()} values)"
    measured = f"{merged}The saved model, loaded by {' and by '.join(outputs)}, {equal}."
    return CheckResult(ROUND_TRIP, "pass", measured)


def realign_weights(model: AnyModel) -> AnyModel:
    """Copy memory-mapped weights and buffers to newly allocated memory, in place, and return the model.

    transformers 5.23 memory-maps the weights from the file, at unaligned offsets. torch aligns its own tensors to 64
    bytes; without that alignment, a convolution of torch 2.15 on a CPU with AVX-512 sums in another order, and the
    logits of the same weights differ in their last bit.

    Args:
        model: Model, whose tensors are replaced.

    Returns:
        The same model.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model

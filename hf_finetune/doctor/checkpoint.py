"""Checks of the checkpoint: every weight accounted for, and what is saved is what is loaded."""

import copy
from pathlib import Path
from typing import TypeVar

import timm
import torch
from transformers import TimmWrapperConfig

from hf_finetune.doctor.check_target import CheckTarget
from hf_finetune.doctor.result import CheckResult
from hf_finetune.models.adapters import adapted_layers, adapter_names, merge_adapter
from hf_finetune.models.build import AUTO_MODELS
from hf_finetune.models.classifier_head import is_given
from hf_finetune.models.export import export_model
from hf_finetune.models.layout import head_names

__all__ = ["check_round_trip", "check_weights", "own_memory"]

AnyModel = TypeVar("AnyModel", bound=torch.nn.Module)
WEIGHTS = "weights"
ROUND_TRIP = "save and load"
NOISE = 0.02
LIBRARIES = (
    "A published model would not be the trained one. Update transformers and timm together "
    "(pip install -U transformers timm), and look again."
)


def check_weights(subject: CheckTarget) -> CheckResult:
    """Check that the checkpoint holds the architecture's weights, no fewer and no more, but for the head's."""
    if subject.unaccounted:
        repairs = dict.fromkeys(problem.repair for problem in subject.unaccounted if problem.repair)
        found = " ".join(f"It {problem.rule}." for problem in subject.unaccounted)
        return CheckResult(WEIGHTS, "fail", found, " ".join(repairs))
    new = set(head_names(subject.model)) | adapter_names(subject.model)
    backbone = sum(name not in new for name, _ in subject.model.named_parameters())
    measured = " ".join((f"All {backbone} parameters below the head are the checkpoint's.", *subject.notes))
    return CheckResult(WEIGHTS, "pass", measured)


def check_round_trip(subject: CheckTarget, folder: Path) -> CheckResult:
    """Check that the saved model, loaded by transformers and where it can by timm, gives the same logits.

    An adapter is filled with noise first, and merged, as it is at the end of a run.
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
                parameter += NOISE * torch.randn(parameter.shape, generator=generator)
            change = merge_adapter(model, batch)
            merged = (
                f"Its adapter, filled with noise, is merged: no logit changes by more than {change:.1g}. "
            )
        expected = own_memory(model)(**batch).logits
        export_model(model, subject.ready.processor, folder / "model")
        auto = AUTO_MODELS[subject.ready.task.modality]
        own_code = is_given(model.config)  # of the file that was just written
        trusted = own_code or subject.ready.trust_remote_code
        loaded = auto.from_pretrained(folder / "model", trust_remote_code=trusted)
        found = {"transformers": own_memory(loaded.eval())(**batch).logits}
        if isinstance(model.config, TimmWrapperConfig) and not own_code:
            native = timm.create_model(f"local-dir:{folder / 'model'}", pretrained=True)
            found["timm"] = own_memory(native.eval())(batch["pixel_values"])
    wrong = [
        f"loaded by {library} its logits differ by up to {(logits - expected).abs().max().item():.2g}"
        if logits.shape == expected.shape
        else f"loaded by {library} it has {logits.shape[-1]} outputs, not {expected.shape[-1]}"
        for library, logits in found.items()
        if not torch.equal(logits, expected)
    ]
    if wrong:
        return CheckResult(ROUND_TRIP, "fail", f"The saved model is another: {'; '.join(wrong)}.", LIBRARIES)
    measured = (
        f"{merged}Loaded by {' and by '.join(found)}, its {expected.numel()} logits are equal bit for bit."
    )
    return CheckResult(ROUND_TRIP, "pass", measured)


def own_memory(model: AnyModel) -> AnyModel:
    """Copy what a model has read from a file to memory of its own, in place, and give the model.

    transformers 5.23 leaves weights where they are in the file, which may be at any byte. torch puts tensors on 64
    bytes; elsewhere a convolution of torch 2.15 on a CPU with AVX-512 sums up in another order, and the same weights
    give logits that differ in their last bit.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model

"""A missing package of an extra is reported before any computation, with the command that installs it."""

import sys

import pytest

from hf_finetune.errors import InputError
from hf_finetune.publishing.optional_packages import EXTRAS, require_extra


@pytest.mark.parametrize("extra", EXTRAS)
def test_missing_packages_are_reported_with_the_command(monkeypatch, extra):
    for module in EXTRAS[extra]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError) as caught:
        require_extra(extra, "--format onnx")
    missing = ", ".join(map(repr, EXTRAS[extra]))
    assert str(caught.value) == (
        f"--format onnx needs packages that are not installed: {missing}. "
        f"Run pip install 'hf-finetune[{extra}]'."
    )


def test_installed_packages_are_not_reported(monkeypatch):
    monkeypatch.setitem(EXTRAS, "onnx", ("json", "csv"))
    require_extra("onnx", "--format onnx")

"""The doctor's checks of precision: the fastest mode that computes the same loss is suggested."""

import re

import pytest
from doctor_helpers import make_subject, scale_under_autocast

from hf_finetune.doctor.precision import Timing, check_precision, precision_result
from hf_finetune.doctor.result import CheckResult

PLAIN = Timing("fp32", "contiguous", 0.4, 0.70)
LAST = Timing("fp32", "channels_last", 0.2, 0.70)
HALF = Timing("bf16", "contiguous", 1.6, 0.705)
HALF_LAST = Timing("bf16", "channels_last", 0.1, 0.705)
SHOWN = "A step of 8: fp32 400 ms{}, fp32 channels_last 200 ms{}, bf16 1.60 s, bf16 channels_last 100 ms{}."


def test_the_fastest_is_suggested_with_what_to_set():
    assert precision_result([PLAIN, LAST, HALF, HALF_LAST], 8, "fp32", "channels_last") == CheckResult(
        "precision",
        "pass",
        SHOWN.format("", " (the recipe)", ""),
        "speed.precision=bf16 is 2.0 times as fast; its loss agrees with fp32 (0.705, 0.7).",
    )
    both = precision_result([PLAIN, LAST, HALF, HALF_LAST], 8, "fp32", "contiguous").repair
    assert both.startswith("speed.precision=bf16 speed.memory_format=channels_last is 4.0 times as fast;")


def test_nothing_is_suggested_when_the_recipe_is_about_as_fast():
    found = precision_result([PLAIN, Timing("bf16", "contiguous", 0.38, 0.7)], 8, "fp32", "contiguous")
    measured = (
        "A step of 8: fp32 400 ms (the recipe), bf16 380 ms. "
        "No other mode is much faster than that of the recipe."
    )
    assert found == CheckResult("precision", "pass", measured)


@pytest.mark.parametrize("loss", [0.9, float("nan"), float("inf")])
def test_a_faster_mode_with_another_loss_is_not_suggested(loss):
    wrong = Timing("bf16", "contiguous", 0.1, loss)
    assert precision_result([PLAIN, wrong], 8, "fp32", "contiguous") == CheckResult(
        "precision",
        "pass",
        "A step of 8: fp32 400 ms (the recipe), bf16 100 ms. The loss of bf16 differs from that of fp32. "
        "No other mode is much faster than that of the recipe.",
    )


def test_a_recipe_whose_precision_gives_another_loss_fails():
    wrong = Timing("bf16", "contiguous", 0.1, 0.9)
    assert precision_result([PLAIN, wrong], 8, "bf16", "contiguous") == CheckResult(
        "precision",
        "fail",
        "A step of 8: fp32 400 ms, bf16 100 ms (the recipe). With bf16 the loss is 0.9, with fp32 0.7.",
        "Set speed.precision=fp32.",
    )


def test_a_precision_that_the_device_lacks_fails():
    assert precision_result([PLAIN], 8, "fp16", "contiguous") == CheckResult(
        "precision",
        "fail",
        "A step of 8: fp32 400 ms. The recipe sets precision fp16, which this device does not support.",
        "Set speed.precision=fp32.",
    )


@pytest.mark.parametrize(
    ("precision", "memory_format", "state"),
    [
        ("auto", "auto", "pass"),
        ("auto", "contiguous", "pass"),
        ("bf16", "auto", "pass"),
        ("auto", "channels_last", "pass"),
        ("fp16", "auto", "fail"),
    ],
)
def test_a_recipe_may_leave_the_choice_to_the_run(precision, memory_format, state):
    found = precision_result([PLAIN, LAST, HALF, HALF_LAST], 8, precision, memory_format)
    assert found.state == state
    assert ("A run measures them and chooses one (auto)." in found.measured) == (state == "pass")


@pytest.mark.parametrize(
    ("task", "ways"),
    [("image", ["fp32", "fp32 channels_last", "bf16", "bf16 channels_last"]), ("text", ["fp32", "bf16"])],
)
def test_modes_that_suit_the_input_are_benchmarked(request, task, ways):
    checkpoint = request.getfixturevalue({"image": "timm_checkpoint", "text": "bert_checkpoint"}[task])
    found = check_precision(make_subject(task, checkpoint))
    assert found.state == "pass"
    times = re.findall(r"((?:fp32|bf16)(?: channels_last)?) [\d.]+ m?s", found.measured)
    assert times == ways


def test_a_model_that_half_precision_ruins_fails(bert_checkpoint):
    subject = make_subject("text", bert_checkpoint, speed={"precision": "bf16"})
    subject.model.register_forward_hook(scale_under_autocast)
    found = check_precision(subject)
    assert (found.state, found.repair) == ("fail", "Set speed.precision=fp32.")
    assert " With bf16 the loss is " in found.measured

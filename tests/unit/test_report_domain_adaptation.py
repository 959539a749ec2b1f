"""What is said of another domain that a model was adapted to."""

import pytest

from hf_finetune.report.domain_adaptation import domain_sentence
from hf_finetune.report.run_record import RunRecord


def record(spec, **metrics):
    return RunRecord("run", {"domain_adaptation": spec}, {}, metrics, (), (), None, {}, ())


@pytest.mark.parametrize(
    ("spec", "metrics", "said"),
    [
        (None, {}, ""),
        (
            {"method": "continue_pretraining", "source": False},
            {"pretraining": {"epochs": 1.0, "examples": 2000}},
            "Before the first stage all below the head learned for 1 epoch to fill in what was masked in 2,000 "
            "unlabelled inputs of another domain.",
        ),
        (
            {"method": "continue_pretraining", "source": True},
            {"pretraining": {"epochs": 2.5, "examples": 30}},
            "Before the first stage all below the head learned for 2.5 epochs to fill in what was masked in 30 "
            "unlabelled inputs of this domain and another one.",
        ),
        (
            {"method": "coral", "stages": []},
            {},
            "In each stage that trains more than the head, the covariances of the head's input were drawn together "
            "(Deep CORAL), with unlabelled inputs of another domain.",
        ),
        (
            {"method": "dann", "stages": ["mid", "all"]},
            {},
            "In mid and all, a classifier of domains was worked against (domain-adversarial training), with "
            "unlabelled inputs of another domain.",
        ),
    ],
)
def test_the_sentence_says_what_was_done(spec, metrics, said):
    assert domain_sentence(record(spec, **metrics)) == said

"""The report on domain adaptation."""

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
            "Before the first stage, the backbone was pretrained for 1 epoch on 2,000 unlabeled inputs of another "
            "domain (prediction of masked parts).",
        ),
        (
            {"method": "continue_pretraining", "source": True},
            {"pretraining": {"epochs": 2.5, "examples": 30}},
            "Before the first stage, the backbone was pretrained for 2.5 epochs on 30 unlabeled inputs of this "
            "domain and another one (prediction of masked parts).",
        ),
        (
            {"method": "coral", "stages": []},
            {},
            "In each stage that trains more than the head, the covariances of the head's inputs were aligned "
            "(Deep CORAL), with unlabeled inputs of another domain.",
        ),
        (
            {"method": "dann", "stages": ["mid", "all"]},
            {},
            "In mid and all, the features were trained against a domain classifier (domain-adversarial training), "
            "with unlabeled inputs of another domain.",
        ),
    ],
)
def test_the_sentence_describes_the_adaptation(spec, metrics, said):
    assert domain_sentence(record(spec, **metrics)) == said

"""Description of a run's domain adaptation, for the report and the model card."""

from hf_finetune.recipe.domain import DomainSpec
from hf_finetune.report.run_record import RunRecord

__all__ = ["domain_sentence"]


def domain_sentence(record: RunRecord) -> str:
    """Return a sentence on how a run adapted the model to another domain; empty if it did not."""
    spec = record.recipe.get("domain_adaptation")
    if spec is None:
        return ""
    done = record.metrics.get("pretraining")
    if done is not None:
        whose = "this domain and another one" if spec.get("source") else "another domain"
        epochs = f"{done['epochs']:g} {'epoch' if done['epochs'] == 1 else 'epochs'}"
        return (
            f"Before the first stage everything below the head was trained for {epochs} to predict masked parts of "
            f"{done['examples']:,} unlabeled inputs of {whose}."
        )
    stages = spec.get("stages") or ()
    where = f"In {' and '.join(stages)}" if stages else "In each stage that trains more than the head"
    summary = DomainSpec.options()[spec["method"]].summary
    return f"{where}, {summary}, with unlabeled inputs of another domain."

"""Description of a run's domain adaptation, for the report and the model card."""

from hf_finetune.errors import counted
from hf_finetune.recipe.domain import DomainSpec
from hf_finetune.report.run_record import RunRecord

__all__ = ["domain_sentence"]


def domain_sentence(record: RunRecord) -> str:
    """Return a sentence on how a run adapted the model to another domain; empty if it did not."""
    spec = record.recipe.get("domain_adaptation")
    if spec is None:
        return ""
    pretraining = record.metrics.get("pretraining")
    if pretraining is not None:
        domains = "this domain and another one" if spec.get("source") else "another domain"
        epochs = counted(pretraining["epochs"], "epoch")
        return (
            f"Before the first stage, the backbone was pretrained for {epochs} on {pretraining['examples']:,} "
            f"unlabeled inputs of {domains} (prediction of masked parts)."
        )
    stages = spec.get("stages") or ()
    where = f"In {' and '.join(stages)}" if stages else "In each stage that trains more than the head"
    summary = DomainSpec.options()[spec["method"]].summary
    return f"{where}, {summary}, with unlabeled inputs of another domain."

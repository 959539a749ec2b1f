"""Transcripts: the words that are spoken in a recording."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from statistics import mean
from typing import TYPE_CHECKING, Any

from hf_finetune.targets.base import Target
from hf_finetune.targets.decision_rule import DEFAULT_RULE, DecisionRule
from hf_finetune.targets.metric import Metric
from hf_finetune.targets.names import label_text
from hf_finetune.targets.reading import LabelSummary

if TYPE_CHECKING:
    from random import Random

    import numpy as np
    import torch

    from hf_finetune.targets.top_scores import Scores

__all__ = ["Transcript"]

_SYNTHETIC_WORDS = ("good", "bad", "day", "to", "you")


class Transcript(Target):
    """A text, whose tokens a model writes one after another or reads off the recording."""

    name = "transcript"
    problem_type = None
    is_text = True
    default_metrics = ("wer", "cer", "wer_orthographic")
    score_dimensions = 1
    score_type = object
    has_untrained_baseline = True

    def incompatibility(self, labels: LabelSummary) -> str | None:
        """Return ``lists`` for labels that are lists."""
        return "lists" if labels.are_lists else None

    def output_names(self, labels: Iterable[Any], declared: Sequence[str] | None) -> tuple[str, ...]:
        """Return ``transcript``."""
        return ("transcript",)

    def encode(self, label: Any, indices: Mapping[str, int]) -> str:
        """Return the text."""
        return label_text(label)

    def feature(self, label_names: Sequence[str]) -> Any:
        """Return a string."""
        from datasets import Value

        return Value("string")

    def decode(self, label: Any, label_names: Sequence[str]) -> str:
        """Return the text."""
        return str(label)

    @property
    def arrow_type(self) -> Any:
        """Strings."""
        import pyarrow as pa

        return pa.string()

    def describe_labels(self, labels: Sequence[Any], label_names: Sequence[str]) -> str:
        """Return the numbers of words of the transcripts."""
        words = [len(str(label).split()) for label in labels]
        return f"transcripts of {min(words)} to {max(words)} words, mean {mean(words):.1f}"

    def outputs_in_words(self, config: Any) -> str:
        """Return the number of tokens of the vocabulary."""
        return f"{config.vocab_size:,} tokens"

    def summary(self, subject: str, classes: str) -> str:
        """Return a phrase for a model that transcribes."""
        return f"writes down what is said in {subject}"

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """Word and character error rates."""
        from hf_finetune.targets.error_rates import error_rates

        return tuple(error_rates())

    def scores(self, logits: "np.ndarray") -> "np.ndarray":
        """Return the generated texts [examples] unchanged."""
        return logits

    def decide(self, scores: "np.ndarray", rule: DecisionRule = DEFAULT_RULE) -> "np.ndarray":
        """Return the texts [examples] unchanged."""
        return scores

    def label_array(
        self, labels: Sequence[Any], classes: int, unknown: Sequence[Sequence[int]] | None = None
    ) -> "np.ndarray":
        """Return the texts [examples]."""
        import numpy as np

        return np.array([str(label) for label in labels], dtype=object)

    def stored_scores(self, predictions: Sequence[Any]) -> "np.ndarray":
        """Return the texts [examples]."""
        return self.label_array(predictions, 1)

    def mistakes(
        self, labels: "np.ndarray", scores: "Scores", decisions: "np.ndarray"
    ) -> tuple["np.ndarray", "np.ndarray"]:
        """Return the examples with an error, and the number of wrong words per spoken word."""
        from hf_finetune.targets.error_rates import word_error_shares

        shares = word_error_shares(labels, decisions)
        return shares > 0, shares

    def slices(self, training: Sequence[Any], labels: Sequence[Any]) -> dict[str, list[str]]:
        """Return which sentences are also in training, if any is."""
        from hf_finetune.targets.transcript_metrics import sentences_in_training

        known = sentences_in_training(labels, training, "basic")
        return {"sentence": ["in training" if each else "new" for each in known]} if known.any() else {}

    def synthetic_label(self, rng: "Random", classes: int) -> str:
        """Return a few words."""
        return " ".join(rng.choice(_SYNTHETIC_WORDS) for _ in range(rng.randint(1, 4)))

    def loss_sum(
        self, logits: "torch.Tensor", labels: "torch.Tensor", valid: "torch.Tensor", smoothing: float
    ) -> "torch.Tensor":
        """Return the cross-entropy, summed over the valid tokens.

        Args:
            logits: Logits [batch, tokens, vocabulary], each for the token at its position.
            labels: Token ids [batch, tokens].
            valid: Mask of the tokens that are not padding [batch, tokens].
            smoothing: Share of each token that is distributed over the vocabulary.
        """
        from torch.nn import functional

        return functional.cross_entropy(
            logits[valid], labels[valid], reduction="sum", label_smoothing=smoothing
        )

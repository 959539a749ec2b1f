"""Outputs of speech recognition models: tokens that a decoder generates, or one token for each frame (CTC)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel, Wav2Vec2CTCTokenizer
from transformers.modeling_outputs import BaseModelOutput

from hf_finetune.tasks.examples import SequenceOutputs

__all__ = ["IGNORED", "FrameTranscripts", "GeneratedTranscripts", "is_ctc"]

IGNORED = -100
"""Label of padding."""
_ENCODED = "encoder_hidden_states"


def is_ctc(tokenizer: Any) -> bool:
    """Return whether a tokenizer belongs to a model that writes a token, or nothing, for each frame (CTC).

    Args:
        tokenizer: Tokenizer of a checkpoint.
    """
    return isinstance(tokenizer, Wav2Vec2CTCTokenizer)


@dataclass(frozen=True)
class GeneratedTranscripts(SequenceOutputs):
    """Transcripts that a decoder generates token by token, with its own cross-entropy loss.

    Attributes:
        tokenizer: Tokenizer of the checkpoint.
        max_tokens: Largest number of tokens that are generated in validation.
    """

    tokenizer: Any
    max_tokens: int

    def loss(self, smoothing: float) -> Callable[..., torch.Tensor] | None:
        """Return None: the loss is that of the label type."""
        return None

    @contextmanager
    def observe(self, model: PreTrainedModel) -> Iterator[dict[str, Any]]:
        """Record the encoded recordings that the decoder reads; they may come from a cache, not from the encoder."""
        observed: dict[str, Any] = {}

        def record(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            observed[_ENCODED] = kwargs[_ENCODED]

        handle = model.get_decoder().register_forward_pre_hook(record, with_kwargs=True)
        try:
            yield observed
        finally:
            handle.remove()

    def predict(
        self, model: PreTrainedModel, logits: torch.Tensor, observed: Mapping[str, Any]
    ) -> torch.Tensor:
        """Generate greedily, and return the tokens [batch, tokens]."""
        encoded = BaseModelOutput(last_hidden_state=observed[_ENCODED])
        tokens: torch.Tensor = model.generate(
            encoder_outputs=encoded, num_beams=1, do_sample=False, max_new_tokens=self.max_tokens
        )
        return tokens

    def texts(self, tokens: np.ndarray) -> list[str]:
        """Return the texts of generated tokens, without special tokens."""
        padding = self.tokenizer.pad_token_id
        texts = self.tokenizer.batch_decode(
            np.where(tokens == IGNORED, padding, tokens), skip_special_tokens=True
        )
        return [text.strip() for text in texts]

    def label_texts(self, tokens: np.ndarray) -> list[str]:
        """Return the texts of labels."""
        return self.texts(tokens)


@dataclass(frozen=True)
class FrameTranscripts(SequenceOutputs):
    """Transcripts read off the most probable token of each frame, trained by connectionist temporal classification.

    Attributes:
        tokenizer: Tokenizer of characters, whose padding token is the blank.
    """

    tokenizer: Any

    def loss(self, smoothing: float) -> Callable[..., torch.Tensor] | None:
        """Return the CTC loss, summed over the batch, and divided by the number of characters.

        A recording with fewer frames than characters has no alignment, and counts 0.

        Source: Graves et al. 2006, Connectionist temporal classification.
        """

        def compute(
            outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
        ) -> torch.Tensor:
            logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
            log_probabilities = functional.log_softmax(logits.float(), dim=-1).transpose(0, 1)
            frames, batch = log_probabilities.shape[:2]
            valid = labels != IGNORED
            total = functional.ctc_loss(
                log_probabilities,
                labels.masked_fill(~valid, self.tokenizer.pad_token_id),
                torch.full((batch,), frames),
                valid.sum(dim=1).cpu(),
                blank=self.tokenizer.pad_token_id,
                reduction="sum",
                zero_infinity=True,
            )
            return total / (valid.sum() if num_items_in_batch is None else num_items_in_batch)

        return compute

    @contextmanager
    def observe(self, model: PreTrainedModel) -> Iterator[dict[str, Any]]:
        """Record nothing: the logits suffice."""
        yield {}

    def predict(
        self, model: PreTrainedModel, logits: torch.Tensor, observed: Mapping[str, Any]
    ) -> torch.Tensor:
        """Return the most probable token of each frame [batch, frames]."""
        return logits.argmax(dim=-1)

    def texts(self, tokens: np.ndarray) -> list[str]:
        """Return the texts of frames: repeated tokens are one, and blanks are removed."""
        return [text.strip() for text in self.tokenizer.batch_decode(self._padded(tokens))]

    def label_texts(self, tokens: np.ndarray) -> list[str]:
        """Return the texts of labels, in which repeated tokens are repeated characters."""
        texts = self.tokenizer.batch_decode(self._padded(tokens), group_tokens=False)
        return [text.strip() for text in texts]

    def _padded(self, tokens: np.ndarray) -> np.ndarray:
        padded: np.ndarray = np.where(tokens == IGNORED, self.tokenizer.pad_token_id, tokens)
        return padded

"""Outputs of speech recognition models: tokens that a decoder generates from the encoded recording."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

__all__ = ["IGNORED", "GeneratedTranscripts"]

IGNORED = -100
"""Label of padding."""
_ENCODED = "encoder_hidden_states"


@dataclass(frozen=True)
class GeneratedTranscripts:
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
        tokens: torch.Tensor = model.generate(  # type: ignore[operator]
            encoder_outputs=encoded, num_beams=1, do_sample=False, max_new_tokens=self.max_tokens
        )
        return tokens

    def texts(self, tokens: np.ndarray) -> list[str]:
        """Return the texts of generated tokens, without special tokens."""
        padding = self.tokenizer.pad_token_id
        texts = self.tokenizer.batch_decode(np.where(tokens == IGNORED, padding, tokens), skip_special_tokens=True)
        return [text.strip() for text in texts]

    def label_texts(self, tokens: np.ndarray) -> list[str]:
        """Return the texts of labels."""
        return self.texts(tokens)

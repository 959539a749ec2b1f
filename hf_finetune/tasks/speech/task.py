"""Speech recognition: how its models are completed, and how they transcribe a batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_finetune.tasks.base import Task
from hf_finetune.tasks.speech.modality import PIECES

if TYPE_CHECKING:
    import numpy as np

__all__ = ["SpeechRecognition"]

_CROSS_ATTENTION_STAGE = """\
stages:
  - {name: cross-attention, train: /encoder_attn/, epochs: 2, lr: 1.0e-4, warmup: 0.1, batch_size: 16}
"""


@dataclass(frozen=True)
class SpeechRecognition(Task):
    """Task whose models write transcripts, token by token (Whisper) or for each frame (CTC)."""

    def draft_stages(self, model: str) -> str:
        """Return a stage of the decoder's cross-attention; for a model without a decoder, the stages of a new head."""
        from hf_finetune.tasks.speech.vocabulary import lacks_decoder

        return "" if lacks_decoder(model) else _CROSS_ATTENTION_STAGE

    def complete_model(self, model: Any, processor: Any) -> None:
        """Set the language of a model that generates, and greedy decoding, which plain transformers then uses too."""
        if not model.can_generate():
            return
        settings = model.generation_config
        settings.forced_decoder_ids = None
        settings.num_beams = 1  # a pipeline of transformers would use 5 unless the model states a number
        if (language := getattr(processor.tokenizer, "language", None)) is not None:
            settings.language, settings.task = language, "transcribe"

    def outputs(self, pipe: Any, inputs: Mapping[str, Any]) -> "np.ndarray":
        """Return the transcripts of a batch, as the pipeline writes them; pieces of a recording are joined."""
        import numpy as np

        model_inputs = dict(inputs)
        pieces = model_inputs.pop(PIECES)
        tokens = pipe.forward({**model_inputs, "is_last": True})["tokens"]
        texts = iter(pipe.postprocess([{"tokens": row[None]}])["text"].strip() for row in tokens)
        transcripts = [" ".join(filter(None, (next(texts) for _ in range(count)))) for count in pieces]
        return np.array(transcripts, dtype=object)

"""The modality of texts and pairs of texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_finetune.errors import Problem
from hf_finetune.fields.base import Part
from hf_finetune.tasks.columns import ColumnRole, choose_only_candidate, is_string
from hf_finetune.tasks.examples import (
    ExampleCheck,
    ExampleError,
    Inputs,
    MaskedInputs,
    Remarks,
    SimpleFeatures,
    Splits,
)
from hf_finetune.tasks.modality import Modality
from hf_finetune.tasks.text.fields import TextAugmentFields, TextFields

if TYPE_CHECKING:
    import torch
    from datasets import Dataset, Features
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["Text"]

_USUAL_COLUMN_NAMES = (
    "text", "sentence", "review", "content", "comment", "message", "tweet",
    "document", "body", "question", "title",
)  # fmt: skip
_PAIR_NAMES = (
    ("text", "text_pair"), ("text1", "text2"), ("text_a", "text_b"), ("sentence1", "sentence2"),
    ("sentence_a", "sentence_b"), ("sentence_A", "sentence_B"), ("premise", "hypothesis"),
    ("question1", "question2"), ("question", "sentence"), ("question", "answer"), ("question", "context"),
    ("question", "passage"), ("query", "document"), ("query", "passage"),
)  # fmt: skip
_MAX_REPORT_CHARACTERS = 600
_WORDS = ("good", "great", "fine", "bad", "poor", "dull", "film", "plot", "the", "a")


class Text(Modality):
    """Texts, or pairs of texts, tokenized by the checkpoint's tokenizer."""

    name: ClassVar[str] = "text"
    readable = "text"
    roles: ClassVar[tuple[ColumnRole, ...]] = (
        ColumnRole(
            *("text", "texts", "must contain strings", _USUAL_COLUMN_NAMES, is_string),
            "Column of the texts; null = inferred.",
        ),
        ColumnRole(
            *("text_pair", "second texts", "must contain strings", (), is_string),
            "Column of the second text of each pair; null = single texts.",
            optional=True,
        ),
    )
    model_inputs: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask", "token_type_ids")
    has_tokens: ClassVar[bool] = True
    processor_class: ClassVar[str] = "AutoTokenizer"
    processor_argument: ClassVar[str] = "tokenizer"
    processor_files = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
    data_fields: ClassVar[type[Part]] = TextFields
    augment_fields: ClassVar[type[Part]] = TextAugmentFields
    augment_description: ClassVar[str] = "mask and drop"

    @property
    def suffixes(self) -> frozenset[str]:
        """Lower-case suffixes of text files."""
        return frozenset({".txt"})

    def find_columns(
        self, features: "Features", named: Mapping[str, str], taken: Sequence[str | None]
    ) -> tuple[dict[str, str | None], list[Problem]]:
        """Find the text columns: named, two with the usual names of pairs, or one of a usual name or the only one."""
        if "text" in named:
            return {"text": named["text"], "text_pair": named.get("text_pair")}, []
        usable = [name for name in features if is_string(features[name]) and name not in taken]
        pairs = [pair for pair in _PAIR_NAMES if pair[0] in usable and pair[1] in usable]
        if len(pairs) == 1:
            return dict(zip(self.columns, pairs[0], strict=True)), []
        candidates = [name for name in usable if name.lower() in _USUAL_COLUMN_NAMES]
        if not candidates and len(usable) == 1:
            candidates = usable
        column, problems = choose_only_candidate("text", "texts", candidates, features)
        return {"text": column, "text_pair": None}, problems

    def second_column_names(self, name: str) -> tuple[str, ...]:
        """Return the usual names of the second column of a pair, by the name of the first."""
        return tuple(second for first, second in _PAIR_NAMES if first == name)

    def features(self, *, decode: bool = True) -> dict[str, Any]:
        """Return strings for both columns."""
        from datasets import Value

        return {name: Value("string") for name in self.columns}

    def check(self) -> ExampleCheck:
        """Return a check for empty texts."""
        from hf_finetune.tasks.text.stored import TextCheck

        return TextCheck()

    def hashes(self, dataset: "Dataset") -> tuple[Sequence[str | None], Sequence[str | None]]:
        """Return the SHA-256 of the exact texts, and of the texts without differences of case and white space."""
        from hf_finetune.tasks.text.stored import hash_texts

        return hash_texts(dataset)

    def extreme_rows(self, dataset: "Dataset", lengths: Sequence[int] | None = None) -> list[int]:
        """Return the row of the longest text, by tokens if their numbers are known, else by characters."""
        import numpy as np

        from hf_finetune.tasks.text.stored import text_lengths

        return [int(np.argmax(lengths if lengths is not None else text_lengths(dataset)))]

    def synthetic_examples(
        self, count: int, rng: Any, *, length: int = 16, pair: bool = False
    ) -> dict[str, Any]:
        """Return texts of common words; the first is the longest, the others have at least a fourth of its words."""
        columns = {}
        for column in self.columns if pair else self.columns[:1]:
            lengths = [length, *(rng.randint(max(length // 4, 1), length) for _ in range(count - 1))]
            columns[column] = [" ".join(rng.choices(_WORDS, k=words)) for words in lengths]
        return columns

    def check_processor(self, processor: Any) -> None:
        """Check the length limit of a tokenizer."""
        limit, min_length = processor.model_max_length, processor.num_special_tokens_to_add() + 1
        if limit < min_length or int(limit) != limit:
            raise ValueError(
                f"model_max_length must be a whole number of at least {min_length}, not {limit!r}"
            )

    def is_default_processor(self, processor: Any) -> bool:
        """Return whether a tokenizer has no vocabulary: transformers builds one if its files are missing."""
        return len(processor) <= len(processor.all_special_ids)

    def complete_processor(self, processor: Any) -> str | None:
        """Use the EOS token as padding token if there is none."""
        if processor.pad_token is None:
            if processor.eos_token is None:
                return "a tokenizer with a padding token"
            processor.pad_token = processor.eos_token
        return None

    def complete_config(self, config: "PreTrainedConfig") -> None:
        """Use the EOS token as padding token if the config has none."""
        if getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = getattr(config, "eos_token_id", None)

    def configure(
        self,
        processor: Any,
        config: "PreTrainedConfig",
        data: Any,
        skeleton: "Callable[[], PreTrainedModel]",
    ) -> tuple[str, ...]:
        """Set the maximum length, truncation side and padding side, so that inference matches training.

        Returns:
            A message if the padding side was changed.

        Raises:
            InputError: If the length exceeds the checkpoint's limit, or if masking is requested without a mask token.
        """
        from hf_finetune.tasks.text.inputs import configure_tokenizer

        return configure_tokenizer(processor, config, data, skeleton())

    def same_preprocessing(self, first: Any, second: Any) -> bool:
        """Return whether both tokenizers have the same vocabulary."""
        return bool(first.get_vocab() == second.get_vocab())

    def pooling_objection(self, model: Any, pooling: str) -> str | None:
        """Return a reason if the first token of a causal model is to be pooled; else None."""
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

        if pooling == "cls" and model.config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            return "its first token does not attend to later tokens"
        return None

    def prepare(self, splits: Splits, processor: Any, data: Any, seed: int) -> Inputs:
        """Return inputs that are tokenized once; batches contain texts of similar length, padded to the longest."""
        from hf_finetune.tasks.text.inputs import prepare_texts

        return prepare_texts(splits, processor, data, seed, augmented=self.is_augmented(data))

    def synthetic_batch(self, processor: Any) -> "dict[str, torch.Tensor]":
        """Return a batch of one short text."""
        return dict(processor("a", return_tensors="pt"))

    def format_size(self, batch: Mapping[str, Any]) -> str:
        """Return the number of tokens of the texts of a batch."""
        return f"{batch['input_ids'].shape[1]} tokens"

    def may_hold_examples(self, cells: Sequence[Any]) -> bool:
        """Return whether most cells are texts: several words or, without spaces, other letters than ASCII; no dates."""
        from hf_finetune.fields.times import is_time

        texts = [cell for cell in cells if isinstance(cell, str) and not is_time(cell)]
        return 2 * sum(" " in text.strip() or not text.isascii() for text in texts) > len(cells)

    def describe_sizes(self, dataset: "Dataset") -> str:
        """Return the median and the largest number of characters."""
        import numpy as np

        from hf_finetune.tasks.text.stored import text_lengths

        lengths = text_lengths(dataset)
        return f"Median length {np.median(lengths):,.0f} characters, longest {lengths.max():,}."

    def preview_example(self, row: Mapping[str, Any]) -> Any:
        """Return the text, or both texts of a pair, each on its own line."""
        return "\n".join(row[name] for name in self.columns_in(row))

    def preview_inputs(self, inputs: Mapping[str, Any], processor: Any) -> Any:
        """Return the text of the tokens."""
        return processor.decode(inputs["input_ids"])

    def save_tiny_checkpoint(self, folder: Path) -> None:
        """Write a tiny BERT with a vocabulary of a few words."""
        from hf_finetune.tasks.text.tiny import save_tiny_bert

        save_tiny_bert(folder, _WORDS)

    def masked(
        self, splits: Splits, processor: Any, data: Any, seed: int, share: float | None
    ) -> MaskedInputs:
        """Return texts with masked tokens, for the checkpoint's masked language model."""
        from hf_finetune.tasks.text.masking import masked_inputs

        return masked_inputs(splits, processor, data, seed, share)

    def pipeline_settings(self, processor: Any, model: "PreTrainedModel") -> dict[str, Any]:
        """Return the tokenizer, padding on the side that the model needs, and the maximum length."""
        from hf_finetune.tasks.text.tokenization import pad_right, position_limit, resolve_max_length

        positions = position_limit(model)
        pad_right(processor, positions)
        length = resolve_max_length(processor, None, positions)
        processor.model_max_length = length  # an exported tokenizer then truncates at the same length
        return {"tokenizer": processor, "truncation": True, "max_length": length}

    def pipeline_input(self, row: Mapping[str, Any]) -> Any:
        """Return the text, or both texts of a pair, by column."""
        return {name: row[name] for name in self.columns_in(row)}

    def input_length(self, example: Any) -> int:
        """Return the number of characters of a text, or of both texts of a pair."""
        return sum(map(len, example.values())) if isinstance(example, Mapping) else len(example)

    def read_batch(
        self, pipe: Any, examples: Iterator[Any], size: int, remarks: Remarks | None = None
    ) -> Any:
        """Tokenize a batch in one call, which is many times faster than text by text."""
        from hf_finetune.tasks.text.batches import tokenized_batch

        return tokenized_batch(pipe, examples, size, remarks)

    def read_example(self, cells: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return the text, or both texts of a pair, by column. A second text that is None is left out."""
        texts = {name: cell for name, cell in cells.items() if name == "text" or cell is not None}
        if any(text is None or not str(text).strip() for text in texts.values()):
            raise ExampleError("empty")
        return {name: str(text) for name, text in texts.items()}, None

    def remarks(self) -> Remarks:
        """Return a new counter of truncated texts."""
        from hf_finetune.tasks.text.truncation import TruncationCounter

        return TruncationCounter()

    def makes_batches(self, processor: Any) -> bool:
        """Return whether the tokenizer has a padding token."""
        return processor.pad_token_id is not None

    def batch_inputs(self, processor: Any) -> "Callable[[Sequence[Any]], dict[str, torch.Tensor]]":
        """Return a function from texts, or dictionaries of ``text`` and ``text_pair``, to padded token ids."""
        from hf_finetune.tasks.text.tokenization import tokenized_texts

        return tokenized_texts(processor, self.model_inputs)

    def tracing_examples(self) -> list[Any]:
        """Return two short texts."""
        return [{"text": "a text of a few words"}, {"text": "another text of a few more words"}]

    def describe_processor(self, processor: Any) -> dict[str, Any]:
        """Return maximum length, sides and padding token of a tokenizer, which is in files of its own."""
        from hf_finetune.tasks.text.tokenization import resolve_max_length

        return {
            "max_length": resolve_max_length(processor, None),
            "truncation_side": processor.truncation_side,
            "padding_side": processor.padding_side,
            "pad_token_id": processor.pad_token_id,
        }

    @property
    def simple_features(self) -> SimpleFeatures | None:
        """TF-IDF weights of words, or of sequences of characters."""

        def compute(train: "Dataset", test: "Dataset", data: Any) -> Mapping[str, tuple[Any, Any]]:
            from hf_finetune.tasks.text.tf_idf import tf_idf_features

            return tf_idf_features(train, test)

        return SimpleFeatures("tf_idf", "TF-IDF", compute)

    def show(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Return the beginning of the texts."""
        text = "\n\n".join(row[name] for name in self.columns_in(row) if row[name])
        return {
            "text": text
            if len(text) <= _MAX_REPORT_CHARACTERS
            else f"{text[: _MAX_REPORT_CHARACTERS - 3]}..."
        }

    def example_code(self, *, pair: bool) -> str:
        """Return a text, or a dictionary of both texts of a pair."""
        return '{"text": "some text", "text_pair": "its second text"}' if pair else '"some text"'

    def demo_components(self, gradio: Any, *, pair: bool) -> list[Any]:
        """Return a field for each text."""
        labels = ["Text", "Second text"] if pair else ["Text"]
        return [gradio.Textbox(label=label, lines=4 if pair else 6) for label in labels]

    def demo_values(self, example: Any, path: Path) -> dict[str, str]:
        """Return the texts."""
        return {name: str(text) for name, text in example.items()}

    @property
    def space_code(self) -> Path:
        """Python file with the fields for texts."""
        return Path(__file__).with_name("space_fields.py")

    def space_settings(self, processor: Any, *, pair: bool) -> dict[str, Any]:
        """Return whether there are two texts, and the maximum number of tokens."""
        from hf_finetune.tasks.text.tokenization import resolve_max_length

        return {"pairs": pair, "max_length": resolve_max_length(processor, None)}

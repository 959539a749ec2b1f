"""The modality of queries with candidates."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_finetune.errors import Problem
from hf_finetune.fields.base import Part
from hf_finetune.tasks.columns import ColumnRole, find_columns_by_name, is_string
from hf_finetune.tasks.examples import ExampleError, Inputs, JoinedRows, SimpleModels, Splits
from hf_finetune.tasks.modality import Modality
from hf_finetune.tasks.ranking.fields import RankingFields
from hf_finetune.tasks.ranking.stored import LABEL_NAMES
from hf_finetune.tasks.text.modality import Text

if TYPE_CHECKING:
    from datasets import Dataset, Features
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["Ranking"]

_QUERY_NAMES = ("query", "queries", "question", "request", "anchor", "search")
_CANDIDATE_NAMES = (
    "candidate", "candidates", "text", "texts", "document", "documents", "docs", "passage", "passages",
    "answer", "title", "product", "item",
)  # fmt: skip
_CLEAR_NAMES = (
    ("query", "queries"),
    ("candidate", "candidates", "document", "documents", "passage", "passages"),
)
"""Names of both columns, which with a column of labels leave no doubt."""
_CANDIDATES = 4
"""Number of candidates of each synthetic query."""


def _holds_candidates(feature: Any) -> bool:
    from hf_finetune.tasks.ranking.stored import holds_lists

    return is_string(feature) or holds_lists(feature)


class Ranking(Text):
    """Queries with candidates: an example is a pair, and the pairs of a query belong together."""

    name: ClassVar[str] = "ranking"
    readable = "a query with a candidate"
    article = "a query with a candidate"
    plural = "queries with candidates"
    file_noun = "pair"
    roles: ClassVar[tuple[ColumnRole, ...]] = (
        ColumnRole(
            *("query", "queries", "must contain strings", _QUERY_NAMES, is_string),
            "Column of the queries; null = inferred. The rows of a query stay in one split.",
        ),
        ColumnRole(
            *("candidate", "candidates", "must contain strings, or lists of strings", _CANDIDATE_NAMES),
            _holds_candidates,
            "Column of the texts to rank: one per row, or all of a query as a list, with a list of labels; "
            "null = inferred.",
        ),
    )
    label_columns: ClassVar[tuple[str, ...]] = LABEL_NAMES
    group_role: ClassVar[str] = "query"
    data_fields: ClassVar[type[Part]] = RankingFields
    augment_fields: ClassVar[type[Part]] = Part
    augment_description: ClassVar[str] = "none"

    @property
    def suffixes(self) -> frozenset[str]:
        """No files with one example each."""
        return frozenset()

    def find_columns(
        self, features: "Features", named: Mapping[str, str], taken: Sequence[str | None]
    ) -> tuple[dict[str, str | None], list[Problem]]:
        """Find both columns, each named, of a usual name, or the only one that is left."""
        others = [name for name in taken if name is not None]
        if named.get("query") in others:
            others.remove(str(named.get("query")))
        first, problems = find_columns_by_name(
            self.roles[:1], features, named, [*others, named.get("candidate")]
        )
        second, more = find_columns_by_name(self.roles[1:], features, named, [*others, first["query"]])
        return {**first, **second}, [*problems, *more]

    def second_column_names(self, name: str) -> tuple[str, ...]:
        """Return the usual names of the candidates."""
        return _CANDIDATE_NAMES

    def claims(self, dataset: "Dataset") -> bool:
        """Return whether a table has queries, candidates and labels, by its names."""
        names = {name.lower() for name in dataset.column_names}
        return all(names & set(usual) for usual in (*_CLEAR_NAMES, self.label_columns))

    def join_rows(
        self, splits: "Mapping[str, Dataset]", columns: Mapping[str, Any], data: Any
    ) -> JoinedRows | None:
        """Split a table with one row per query into one row per pair."""
        from hf_finetune.tasks.ranking.stored import join_lists

        return join_lists(splits, self.roles, columns)

    def synthetic_examples(
        self, count: int, rng: Any, *, length: int = 16, pair: bool = False
    ) -> dict[str, Any]:
        """Return queries of common words with four candidates each; the first candidate is the longest."""
        columns = Text.synthetic_examples(self, count, rng, length=length, pair=True)
        words = [text.split() for text in columns["query"]]
        queries = [
            " ".join([f"{row // _CANDIDATES}", *words[row - row % _CANDIDATES]]) for row in range(count)
        ]
        return {"query": queries, "candidate": columns["candidate"]}

    def configure(
        self,
        processor: Any,
        config: "PreTrainedConfig",
        data: Any,
        skeleton: "Callable[[], PreTrainedModel]",
    ) -> tuple[str, ...]:
        """Set the maximum length, truncation side and padding side."""
        from hf_finetune.tasks.ranking.inputs import check_weights
        from hf_finetune.tasks.text.inputs import configure_tokenizer

        check_weights(data)
        # CrossEncoder of sentence-transformers would apply a sigmoid, in which large scores are equal
        config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
        return configure_tokenizer(processor, config, Modality.without_augmentation(self, data), skeleton())

    def prepare(self, splits: Splits, processor: Any, data: Any, seed: int) -> Inputs:
        """Return tokenized pairs, or lists of them."""
        from hf_finetune.tasks.ranking.inputs import prepare_pairs

        return prepare_pairs(splits, processor, data, seed)

    def training_size(self, train: "Dataset", data: Any) -> int:
        """Return the number of pairs, or of queries where they are trained as lists."""
        return len(train) if data.list_size is None else len(set(train["query"][:]))

    def caching_objection(self, processor: Any, data: Any) -> str:
        """Return that lists have several inputs, if they are trained."""
        return "" if data.list_size is None else "the candidates of a query are trained together"

    @property
    def simple_features(self) -> None:
        """No features: the baselines are rankings."""
        return

    @property
    def simple_models(self) -> SimpleModels:
        """BM25, the cosine of TF-IDF weights, common words, and the cosine of the checkpoint's embeddings."""
        from hf_finetune.tasks.ranking.titles import TITLES

        def fit(splits: Any, data: Any) -> Mapping[str, tuple[Any, dict[str, Any]]]:
            from hf_finetune.tasks.ranking.baselines import fit_rankings

            return fit_rankings(splits.train, splits.validation, splits.test)

        def frozen(model: Any, processor: Any, splits: Any) -> Mapping[str, tuple[Any, dict[str, Any]]]:
            from hf_finetune.tasks.ranking.embeddings import cosines

            return {"embeddings": (cosines(model.base_model, processor, splits.test), {})}

        return SimpleModels(TITLES, fit, frozen)

    def pipeline_input(self, row: Mapping[str, Any]) -> Any:
        """Return both texts, as the pipeline of transformers names them."""
        return {"text": row["query"], "text_pair": row["candidate"]}

    def read_example(self, cells: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return both texts, as the pipeline of transformers names them."""
        texts = [cells.get(name) for name in self.columns]
        if any(isinstance(text, list) for text in texts):
            raise ExampleError("a list: predictions take one candidate per row")
        if any(text is None or not str(text).strip() for text in texts):
            raise ExampleError("without a query or a candidate")
        return self.pipeline_input(dict(zip(self.columns, map(str, texts), strict=True))), None

    def preview_inputs(self, inputs: Mapping[str, Any], processor: Any) -> Any:
        """Return the text of the tokens; of a list, a line for each candidate."""
        ids = inputs["input_ids"]
        pairs = ids if isinstance(ids[0], list) else [ids]
        return "\n".join(processor.decode(pair) for pair in pairs)

    def tracing_examples(self) -> list[Any]:
        """Return two short pairs."""
        return Modality.tracing_examples(self)

    def example_code(self, *, pair: bool) -> str:
        """Return a dictionary of both texts."""
        return '{"text": "a query", "text_pair": "a candidate"}'

    def demo_components(self, gradio: Any, *, pair: bool) -> list[Any]:
        """Return a field for each text."""
        return [gradio.Textbox(label=label, lines=4) for label in ("Query", "Candidate")]

    def demo_values(self, example: Any, path: Path) -> dict[str, str]:
        """Return both texts."""
        return {"query": str(example["text"]), "candidate": str(example["text_pair"])}

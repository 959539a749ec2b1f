"""A recipe for the ranking of texts: test metrics of its model, of the baselines, and of the checkpoint's embeddings."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from hf_finetune.data.recipe_data import load_data
from hf_finetune.evaluation.compare import paired_difference
from hf_finetune.evaluation.metrics import compute_metrics, groups_of
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.recipe.load import load_recipe
from hf_finetune.runs.run import run
from hf_finetune.targets.scored_examples import ScoredExamples

__all__ = ["cosines", "embeddings", "measure"]

EMBEDDINGS = "embeddings"
"""Name of the baseline by the cosine of the embeddings of query and candidate."""
BATCH = 64


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Run the recipe ``work["recipe"]`` with ``work["overrides"]``.

    Returns:
        The attributes of ``benchmarks.ranking.measure.Row`` besides setting and seed.
    """
    start, recipe = perf_counter(), load_recipe(work["recipe"], work["overrides"])
    folder = Path(work["folder"]) / "run"
    metrics = run(recipe, folder).metrics
    names = [*recipe.metrics]
    test = load_data(recipe).test
    assert test is not None
    predictions = read_predictions(folder / "predictions.parquet")
    by_id = dict(zip(predictions.ids, np.asarray(predictions.scores), strict=True))
    labels, groups = np.asarray(test["label"][:], dtype=np.float64), groups_of(test)
    model = ScoredExamples(labels, np.array([by_id[name] for name in test["id"]]), "relevance", groups=groups)
    frozen = ScoredExamples(labels, cosines(str(recipe.model.path), test), "relevance", groups=groups)
    differences = {name: paired_difference(name, frozen, model, seed=recipe.seed) for name in names}
    tested = {
        name: {
            "difference": difference.value - difference.first,
            "interval": difference.interval,
            "p_value": difference.p_value,
            "verdict": difference.verdict,
        }
        for name, difference in differences.items()
    }
    return {
        "queries": len(set(test["query"][:])),
        "pairs": len(test),
        "test": {name: metrics["test"][name] for name in names},
        "interval": {name: metrics["test_interval"][name] for name in names},
        "baselines": {**metrics["baselines"], EMBEDDINGS: compute_metrics(names, frozen)},
        "differences": {**metrics["baseline_differences"], EMBEDDINGS: tested},
        "seconds": perf_counter() - start,
    }


def cosines(path: str, pairs: Any) -> np.ndarray:
    """Return the cosine of the embeddings of query and candidate of each pair, by the checkpoint before training.

    Args:
        path: Checkpoint of a sentence encoder whose embedding is the mean of its tokens.
        pairs: Dataset with the columns ``query`` and ``candidate``.
    """
    queries, candidates = pairs["query"][:], pairs["candidate"][:]
    texts = list(dict.fromkeys([*queries, *candidates]))
    vectors = dict(zip(texts, embeddings(path, texts), strict=True))
    return np.array([vectors[query] @ vectors[text] for query, text in zip(queries, candidates, strict=True)])


@torch.no_grad()
def embeddings(path: str, texts: Sequence[str]) -> np.ndarray:
    """Return the mean over the tokens of each text, of length 1 [texts, hidden].

    Args:
        path: Checkpoint.
        texts: Texts to embed.
    """
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()
    parts = []
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(list(texts[start : start + BATCH]), padding=True, truncation=True, return_tensors="pt")
        mask = batch["attention_mask"][..., None]
        hidden = model(**batch).last_hidden_state
        parts.append(torch.nn.functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1))
    vectors: np.ndarray = torch.cat(parts).numpy()
    return vectors

"""Relevance: metrics of the ranks of candidates within their queries, and the losses of pairs and lists."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from hf_finetune.evaluation.intervals import intervals, resampling_units, statistic
from hf_finetune.evaluation.metrics import all_metrics, compute_metrics, metric_for
from hf_finetune.targets import TARGETS
from hf_finetune.targets.losses import label_weights, loss_for
from hf_finetune.targets.model_config import get_target, set_target
from hf_finetune.targets.relevance_metrics import ranked_queries, relevance_metric_at_k
from hf_finetune.targets.scored_examples import ScoredExamples
from hf_finetune.tasks import TASKS

KIND = TARGETS["relevance"]
LABELS = np.array([0.0, 2, 1, 0, 1, 0, 0, 0])
SCORES = np.array([0.9, 0.5, 0.5, 0.1, 3.0, 4.0, 0.0, 1.0])
GROUPS = np.array([0, 0, 0, 0, 1, 1, 2, 2])
"""Query 0 has places 1, 2.5, 2.5 and 4, query 1 has 2 and 1, and query 2 has no relevant candidate."""


def examples(scores=SCORES, labels=LABELS, groups=GROUPS, **options):
    return ScoredExamples(labels, scores, "relevance", groups=groups, **options)


def log(rank):
    return math.log2(1 + rank)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("hit_rate_at_1", 0, 0),
        ("hit_rate_at_2", 0, 1),
        ("hit_rate_at_3", 1, 1),
        ("mrr", 1 / 2.5, 1 / 2),
        ("mrr_at_2", 0, 1 / 2),
        ("ndcg_at_10", (3 + 1) / log(2.5) / (3 / log(1) + 1 / log(2)), 1 / log(2)),
        ("ndcg_at_1", 0, 0),
    ],
)
def test_values_computed_by_hand(name, first, second):
    # the query without a relevant candidate is left out
    assert compute_metrics([name], examples())[name] == pytest.approx((first + second) / 2)


def test_queries_without_a_relevant_candidate_are_counted():
    assert compute_metrics(["queries_with_relevant"], examples())["queries_with_relevant"] == pytest.approx(
        2 / 3
    )
    nothing = examples(labels=np.zeros(8))
    assert math.isnan(compute_metrics(["ndcg_at_10"], nothing)["ndcg_at_10"])
    assert compute_metrics(["queries_with_relevant"], nothing)["queries_with_relevant"] == 0


def test_ties_share_their_middle_rank_and_gain_nothing():
    assert ranked_queries(examples()).rank.tolist() == [1, 2.5, 2.5, 4, 2, 1, 2, 1]
    flat = examples(np.zeros(8))
    assert ranked_queries(flat).rank.tolist() == [2.5] * 4 + [1.5] * 4
    assert compute_metrics(["hit_rate_at_1", "ndcg_at_1"], flat) == {"hit_rate_at_1": 0, "ndcg_at_1": 0}


def test_ndcg_is_at_most_one_although_ties_reach_across_the_last_place():
    tied = examples(np.zeros(3), np.ones(3), np.zeros(3, dtype=int))
    assert compute_metrics(["ndcg_at_2"], tied)["ndcg_at_2"] == 1.0


def test_ranks_do_not_depend_on_the_order_of_the_rows_or_on_the_scale():
    order = np.random.default_rng(0).permutation(8)
    shuffled = examples(1000 * SCORES[order] - 7, LABELS[order], GROUPS[order])
    names = list(all_metrics("relevance"))
    assert compute_metrics(names, shuffled) == pytest.approx(compute_metrics(names, examples()))


def test_queries_are_resampled_as_a_whole():
    counts = np.array([2, 0, 1])[GROUPS]
    copies = np.array([0, 1, 2, 3, 8, 9, 10, 11, 6, 7]) % 8
    repeated = examples(SCORES[copies], LABELS[copies], np.array([0] * 4 + [3] * 4 + [2] * 2))
    for name in all_metrics("relevance"):
        expected = compute_metrics([name], repeated)[name]
        weighted = statistic(metric_for(name, examples()), examples())(counts[None].astype(float))
        assert weighted.tolist() == [pytest.approx(expected)]
        assert compute_metrics([name], examples(weights=counts))[name] == pytest.approx(expected)


def test_the_interval_of_many_candidates_of_few_queries_is_wide():
    rng = np.random.default_rng(0)
    labels = (np.arange(400) % 20 == 0).astype(float)
    scores = rng.normal(size=400) + labels
    few = examples(scores, labels, np.arange(400) // 20)
    low, high = intervals(["mrr"], few, seed=0)["mrr"]
    assert len(np.unique(resampling_units(few))) == 20
    assert high - low > 0.2


@pytest.mark.parametrize("name", ["ndcg_at_0", "ndcg", "hit_rate_at_01", "recall_at_3"])
def test_other_names_are_no_metrics(name):
    assert relevance_metric_at_k(name) is None


# --- Label type ----------------------------------------------------------------------------------


def test_only_tasks_with_queries_take_it():
    assert [name for name, task in TASKS.items() if task.accepts("relevance")] == ["text-ranking"]
    assert TASKS["text-ranking"].label_type("auto") == "relevance"


def test_a_config_names_it():
    from transformers import BertConfig

    config = BertConfig(num_labels=1)
    set_target(config, "relevance")
    assert get_target(config) == "relevance"
    assert config.problem_type == "regression"  # plain pipelines return the score as it is


def test_negative_and_huge_labels_are_problems():
    values, ids = {"train": [0.0, -1.0, 31.0, 3.0]}, {"train": ["a", "b", "c", "d"]}
    (problem,) = KIND.value_problems(values, ids)
    assert str(problem) == (
        "The label column must be from 0 (not relevant) to 30. Got others in 'b', 'c'. "
        "Grades are usually 0 and 1, or 0 to 4."
    )
    assert KIND.value_problems({"train": [0.0, 4.0]}, {"train": ["a", "b"]}) == []


# --- Losses ---------------------------------------------------------------------------------------


def test_the_pointwise_loss_is_the_cross_entropy_of_the_share():
    logits = torch.tensor([[0.3], [-1.0], [2.0]])
    labels = torch.tensor([[4.0, 1.0], [2.0, 0.5], [math.nan, math.nan]])
    expected = functional.binary_cross_entropy_with_logits(logits[:2, 0], labels[:2, 1])
    assert label_weights(labels, "relevance").tolist() == [True, True, False]
    assert loss_for("relevance")((logits,), labels).item() == pytest.approx(expected.item())


def test_the_listwise_loss_is_the_cross_entropy_of_a_softmax():
    logits = torch.tensor(
        [[1.0], [2.0], [0.5], [3.0], [-1.0], [7.0], [0.0], [0.0], [0.0]], requires_grad=True
    )
    shares = torch.tensor([[0.5, 1.0, 0.0], [1.0, 0.0, math.nan], [0.0, 0.0, 0.0]])
    labels = torch.stack([2 * shares, shares], dim=-1)
    rows = logits.detach().reshape(3, 3)
    first = -(torch.tensor([1 / 3, 2 / 3, 0.0]) * rows[0].log_softmax(0)).sum()
    second = -rows[1, :2].log_softmax(0)[0]
    loss = loss_for("relevance")((logits,), labels)
    assert label_weights(labels, "relevance").tolist() == [True, True, True]
    assert loss.item() == pytest.approx(((first + second) / 3).item())
    loss.backward()
    gradient = logits.grad.reshape(3, 3)
    assert torch.isfinite(gradient).all()
    assert gradient[1, 2] == 0 and (gradient[2] == 0).all()
    assert gradient.sum(dim=1).abs().max() < 1e-6


def test_a_batch_without_relevant_candidates_has_no_gradient():
    logits = torch.ones(6, 1, requires_grad=True)
    loss = loss_for("relevance")((logits,), torch.zeros(2, 3, 2))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()
    padding = torch.full((1, 3, 2), math.nan)
    assert label_weights(padding, "relevance").tolist() == [False]


def test_two_halves_of_a_batch_of_lists_have_the_gradient_of_the_whole():
    torch.manual_seed(0)
    weights = torch.randn(4, requires_grad=True)
    features = torch.randn(12, 4)
    shares = torch.zeros(4, 3)
    shares[:3, 1] = 1.0  # the last list has no relevant candidate
    labels = torch.stack([shares, shares], dim=-1)
    loss, items = loss_for("relevance"), label_weights(labels, "relevance").sum()

    def gradient(parts):
        total = 0
        for lists in parts:
            rows = torch.cat([torch.arange(3 * number, 3 * number + 3) for number in lists])
            total = total + loss(((features[rows] @ weights)[:, None],), labels[lists], items)
        return torch.autograd.grad(total, weights)[0]

    assert torch.allclose(gradient([[0, 1, 2, 3]]), gradient([[0, 1], [2, 3]]), atol=1e-6)

"""Initial biases of a new head: the frequencies of the classes."""

import numpy as np
import pytest
import torch
from run_helpers import tiny_text_recipe

from hf_finetune.data.recipe_data import load_data
from hf_finetune.recipe.load import parse_recipe
from hf_finetune.runs.checkpoint import load_pretrained
from hf_finetune.runs.prepare import prepare_with_data
from hf_finetune.targets.decisions import constant_logits, probabilities


def loaded(tmp_path, checkpoint, labels, **head):
    """Return the loaded model and its checked run, for texts with these labels, which the checkpoint does not have."""
    lines = [f"the film {number},{label}" for number, label in enumerate(labels * 5)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
    content = tiny_text_recipe(tmp_path / "rows.csv", checkpoint).model_dump(mode="json")
    content["model"] = {"path": str(checkpoint), "head": head}
    if "|" in labels[0]:
        content["data"]["columns"] = {"text": "text", "label": {"name": "label", "separator": "|"}}
        content["metrics"] = ["jaccard"]
    recipe = parse_recipe(content)
    prepared = prepare_with_data(recipe, load_data(recipe))
    return load_pretrained(prepared).model, prepared


@pytest.mark.parametrize(
    "labels", [["soup", "soup", "soup", "tea"], ["soup|tea", "soup", "tea", "soup|cake"]]
)
@pytest.mark.parametrize("head", [{}, {"type": "mlp", "hidden": [4]}, {"pool": "mean"}])
def test_a_new_head_begins_with_the_frequencies_of_the_classes(tmp_path, bert_checkpoint, labels, head):
    model, prepared = loaded(tmp_path, bert_checkpoint, labels, bias="frequencies", **head)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.zero_()
        logits = model(input_ids=torch.tensor([[2, 5, 6, 3]])).logits.double().numpy()
    data = prepared.data
    rows = [[label] if isinstance(label, int) else label for label in data.train["label"]]
    names = data.label_names
    expected = [np.mean([index in row for row in rows]) for index in range(len(names))]
    if head.get("type") != "mlp":  # its hidden biases are not zero
        assert probabilities(logits, data.target)[0] == pytest.approx(
            np.clip(expected, 0.5 / len(rows), 1), abs=0.01
        )
    plain, _ = loaded(tmp_path, bert_checkpoint, labels, **head)
    again, _ = loaded(tmp_path, bert_checkpoint, labels, bias="frequencies", **head)
    changed = [
        name
        for (name, value), (_, other) in zip(plain.named_parameters(), again.named_parameters(), strict=True)
        if not torch.equal(value, other)
    ]
    assert len(changed) == 1 and changed[0].endswith("bias")
    assert again.config.to_dict() == plain.config.to_dict()


def test_a_class_of_all_or_no_examples_counts_as_if_half_an_example_were_different():
    labels = np.array([[1, 0, 1], [1, 0, 0]])
    scores = probabilities(constant_logits(labels, "multi_label", 3)[None], "multi_label")
    assert scores[0] == pytest.approx([0.75, 0.25, 0.5])
    single = constant_logits(np.array([0, 0, 1, 1]), "single_label", 3)
    assert single == pytest.approx(np.log([0.5, 0.5, 0.125]))


def test_an_unknown_label_counts_for_no_class():
    labels = np.array([[1, np.nan], [0, 0], [1, 1]])
    scores = probabilities(constant_logits(labels, "multi_label", 2)[None], "multi_label")
    assert scores[0] == pytest.approx([2 / 3, 1 / 2])

"""Started by ``accelerate launch`` on two processes: compares the first gradient of every stage of every architecture.

accelerate launch ... gradient_worker.py FOLDER
"""

import copy
import json
import sys
from pathlib import Path

import torch
from conftest import make_model
from stage_helpers import Examples, collate, train_stages
from test_invariants import ARCHITECTURES, STAGES, with_dropout
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import TrainerCallback

from hf_finetune.distributed import destroying_process_group, start_processes

EXAMPLES = 5  # three of them on the first process and two on the second
WEIGHTED = "bert"
"""Architecture that is also trained on weighted labels, in two forward passes per step."""


class WholeGradient(TrainerCallback):
    """At the first step of a stage, compare the gradient with that of all examples at once, in one process.

    Attributes:
        found: For each stage: both norms, the largest error as a share of the norm, and whether the names agree.
    """

    def __init__(self, model, examples):
        self.model, self.found = model, []
        self.batch = collate([examples[index] for index in range(len(examples))])
        self.expected = {}

    def on_train_begin(self, args, state, control, **kwargs):
        model, batch = copy.deepcopy(self.model).eval(), dict(self.batch)
        labels = batch.pop("labels")
        total = functional.cross_entropy(model(**batch).logits, labels, reduction="sum")
        (total / (labels.sum() if labels.ndim > 1 else len(labels))).backward()
        self.expected = gradients(model)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        taken = gradients(self.model)
        norms = [norm(each) for each in (taken, self.expected)]
        same = taken.keys() == self.expected.keys()
        apart = {name: taken[name] - self.expected[name] for name in taken.keys() & self.expected.keys()}
        worst = max(value.norm().item() for value in apart.values()) / norms[1]
        self.found.append({"norms": norms, "error": worst, "same": same})


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def norm(values):
    return torch.stack([value.norm() for value in values.values()]).norm().item()


def main():
    # A BatchNorm in train mode would see the examples of one process only.
    _BatchNorm.train = lambda self, mode=True: nn.Module.train(self, False)
    torch.set_num_threads(1)
    folder, rank, found = Path(sys.argv[1]), start_processes().process_index, {}
    for name in ARCHITECTURES:
        model = with_dropout(make_model(name), 0.0)
        examples = Examples(model, EXAMPLES)
        whole = WholeGradient(model, examples)
        place = folder / name.replace("/", "-")
        train_stages(model, place, STAGES, data=examples, callbacks=[whole], batch_size=3, max_steps=1)
        found[name] = whole.found
    model = with_dropout(make_model(WEIGHTED), 0.0)
    examples = Examples(model, EXAMPLES)
    examples.labels = functional.one_hot(examples.labels, 3) * torch.tensor(
        [[0.5], [2.0], [0.0], [1.0], [4.0]]
    )
    whole = WholeGradient(model, examples)
    settings = {"callbacks": [whole], "batch_size": 2, "accumulation": 2, "max_steps": 1}
    train_stages(model, folder / "weighted", STAGES, data=examples, **settings)
    found["weighted"] = whole.found
    (folder / f"gradients-{rank}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    with destroying_process_group():
        main()

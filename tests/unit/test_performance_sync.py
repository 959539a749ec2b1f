"""How often a step waits for values of the device: not more often than the stock Trainer does."""

import pytest
import torch
from stage_helpers import Examples, collate, train_stages
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Trainer, TrainerCallback, TrainingArguments

READS = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal")


class Reads(TorchDispatchMode):
    """Count the operations that read a value of a tensor in Python; on a GPU each of them waits for it."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function._schema.name in READS
        return function(*args, **(kwargs or {}))


class PerStep(TrainerCallback):
    def __init__(self):
        self.reads, self.steps = Reads(), []

    def on_step_begin(self, args, state, control, **kwargs):
        self.before = self.reads.count

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append(self.reads.count - self.before)


def stock(model, folder, watch):
    arguments = TrainingArguments(
        folder,
        max_steps=6,
        per_device_train_batch_size=2,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        optim="adamw_torch",
    )
    with watch.reads:
        Trainer(model, arguments, collate, Examples(model, 20), callbacks=[watch]).train()


def ours(model, folder, watch):
    with watch.reads:
        train_stages(
            model, folder, ["all"], max_steps=6, batch_size=2, clip=1.0, watched=False, callbacks=[watch]
        )


@pytest.mark.parametrize("name", ["timm/test_resnet", "bert"])
def test_a_step_reads_no_more_numbers_than_the_stock_trainers(tmp_path, tiny_model, name):
    found = []
    for train in (stock, ours):
        watch = PerStep()
        train(tiny_model(name), tmp_path / train.__name__, watch)
        found.append(watch.steps)
    stocks, our = found
    assert len(our) > 2 and min(stocks) > 0
    assert max(our[1:-1]) <= max(stocks[1:-1])


def test_a_value_read_from_the_device_is_counted():
    reads = Reads()
    with reads:
        value = torch.ones(2).sum()
        assert reads.count == 0
        value.item()
        bool(value > 0)
    assert reads.count == 2

"""``StagedTrainer`` on two processes: both end with the same weights, equal to those of one process up to rounding."""

import json

import pytest
import torch
from launching import fork_script
from safetensors.torch import load_file

SCRIPT = """
import json
import sys
from pathlib import Path

import torch
from conftest import make_model
from safetensors.torch import save_file
from torch import distributed
from transformers import TrainingArguments

from hf_finetune import Stage, StagedTrainer
from hf_finetune.distributed import start_processes

folder, state = Path(sys.argv[1]), start_processes()
tokens = torch.randint(4, 15, (15, 7), generator=torch.Generator().manual_seed(1))
examples = [{"input_ids": row, "labels": index % 3} for index, row in enumerate(tokens)]
trainer = StagedTrainer(
    make_model("bert"),
    [Stage("head", epochs=2, lr=1e-2), Stage("all", epochs=1, lr=1e-3, carry_optimizer=True)],
    args=TrainingArguments(
        str(folder),
        per_device_train_batch_size=4 // state.num_processes,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=True,
    ),
    train_dataset=examples,
    eval_dataset=examples,
)
metrics = trainer.train()
trainer.save_model()
weights = {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}
save_file(weights, folder / f"{state.process_index}.safetensors")
(folder / f"{state.process_index}.json").write_text(json.dumps(metrics))
if state.num_processes > 1:
    distributed.destroy_process_group()
"""


def test_two_processes_train_as_one(tmp_path, tiny_model):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        code, err = fork_script(folder, script, folder, make_model=tiny_model, processes=processes)
        assert code == 0, err[-4000:]
    alone, first, second = (
        load_file(tmp_path / name) for name in ("1/0.safetensors", "2/0.safetensors", "2/1.safetensors")
    )
    for name, weight in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], weight, rtol=1e-3, atol=1e-5)
    metrics = [json.loads((tmp_path / name).read_text()) for name in ("1/0.json", "2/0.json")]
    assert [stage["loss"] for stage in metrics[1].values()] == pytest.approx(
        [stage["loss"] for stage in metrics[0].values()]
    )
    assert (tmp_path / "2/model.safetensors").is_file()

"""The run of each process of a launch in these tests, with notes of its events."""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback

from hf_finetune.distributed import destroying_process_group
from hf_finetune.recipe.load import load_recipe
from hf_finetune.report import page
from hf_finetune.runs.run import run

sys.path.append(str(Path(__file__).parents[1]))

from removals import replace_as_launched

torch.set_num_threads(1)
page.figures_of = lambda record: []  # of the report, which these tests do not read


class Notes(TrainerCallback):
    """Record the weights before and after each stage, and the gradient norm and the examples of each step."""

    def __init__(self, event):
        self.event = event

    def on_train_begin(self, args, state, control, **kwargs):
        self.notes = {
            "labels": [],
            "sizes": [],
            "training": [],
            "groups": [],
            "fillers": 0,
            "buffers": [],
            "writes": args.should_save,
        }
        self.notes["groups"] = [
            sum(parameter.numel() for parameter in group["params"])
            for group in kwargs["optimizer"].param_groups
        ]
        self.notes["optimizer"] = type(kwargs["optimizer"]).__name__
        self.notes["sharded"] = sum(hasattr(value, "full_tensor") for value in kwargs["model"].parameters())
        self.save(args, kwargs["model"], "before")
        collate = kwargs["train_dataloader"].collate_fn

        def noting(examples):
            batch = collate(examples)
            self.notes["sizes"].append(len(examples))
            self.notes["fillers"] += int((batch["labels"] == -100).sum())
            return batch

        kwargs["train_dataloader"].base_dataloader.collate_fn = noting

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        training = [name for name, module in kwargs["model"].named_modules() if module.training]
        self.notes["training"].append(sorted(name.removeprefix("module.") for name in training))

    def on_step_begin(self, args, state, control, **kwargs):
        event = self.event
        if not event or args.process_index != event["rank"]:
            return
        if not args.output_dir.endswith(f"-{event['stage']}") or state.global_step != event["step"]:
            return
        print("the event happens", file=sys.stderr, flush=True)
        if event["how"] == "exit":
            os._exit(7)
        if event["how"] == "raise":
            raise OSError("the disk of this process is gone")
        if event["how"] == "hang":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # else it takes the launcher 30 seconds to end it
            time.sleep(3600)
        if event["how"] == "ctrl-c":
            os.kill(os.getpid(), signal.SIGINT)

    def on_evaluate(self, args, state, control, **kwargs):
        digest = hashlib.sha256()
        for buffer in kwargs["model"].buffers():
            digest.update(buffer.numpy().tobytes())
        self.notes["buffers"].append(digest.hexdigest())

    def on_train_end(self, args, state, control, **kwargs):
        self.save(args, kwargs["model"], "after")
        self.notes["log"] = state.log_history
        path = self.path(args, "json")
        path.write_text(json.dumps(self.notes), encoding="utf-8")

    def save(self, args, model, moment):
        weights = {
            name.removeprefix("module."): whole(value.detach()) for name, value in model.state_dict().items()
        }
        save_file(weights, self.path(args, "safetensors", f"-{moment}"))

    def path(self, args, ending, moment=""):
        return Path("ranks") / f"{Path(args.output_dir).name}{moment}-{args.process_index}.{ending}"


def whole(value):
    return (value.full_tensor() if hasattr(value, "full_tensor") else value).clone().contiguous()


def work(resume, event):
    """Run or resume the recipe of this folder, and write notes.

    Args:
        resume: Whether to resume.
        event: What happens to one of the processes; None if nothing does.
    """
    with destroying_process_group():
        result = run(load_recipe("recipe.yaml"), "run", resume=resume, callbacks=[Notes(event)])
    Path("ranks", f"metrics-{os.environ['RANK']}.json").write_text(
        json.dumps(result.metrics), encoding="utf-8"
    )


if __name__ == "__main__":
    replace_as_launched()
    work(**json.loads(sys.argv[1]))

"""Images and texts with hf-finetune: a recipe, run as on the command line."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import hf_finetune.runs.run as run_module
from benchmarks.contenders.trainer_watch import WatchCallback
from benchmarks.watch import Watch
from hf_finetune.recipe.load import parse_recipe

__all__ = ["measure"]


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Run the recipe. The time before ``open_folder`` is loading: data, checks and checkpoint."""
    recipe = parse_recipe({**work["recipe"], "seed": work["seed"]})
    watch = Watch()
    open_folder = run_module.open_folder

    def begin(*arguments: Any, **options: Any) -> Any:
        watch.start()
        return open_folder(*arguments, **options)

    with patch.object(run_module, "open_folder", begin):
        done = run_module.run(recipe, Path(work["folder"]) / "run", callbacks=[WatchCallback(watch)])
    stages = done.metrics["stages"]
    return {
        **watch.result(),
        "trained": [stage["trainable_parameters"] for stage in stages],
        "stages": stages,
    }

"""On two processes the gradient of every stage equals that of one process, on every architecture."""

import json
from pathlib import Path

import pytest
from launching import fork_script
from removals import mean_loss
from test_invariants import ARCHITECTURES, STAGES

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("gradients")
    code, err = fork_script(folder, HERE / "gradient_worker.py", folder, make_model=tiny_model)
    assert code == 0, err[-4000:]
    return [json.loads((folder / f"gradients-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]


@pytest.mark.defends("hf_finetune.targets.losses:loss_for", by=mean_loss, ids=["bert"])
@pytest.mark.parametrize("name", [*ARCHITECTURES, "weighted"])
def test_the_gradient_of_every_stage_does_not_depend_on_the_number_of_processes(found, name):
    for rank in (0, 1):
        assert len(found[rank][name]) == len(STAGES)
        for stage in found[rank][name]:
            assert stage["same"]
            assert stage["norms"][0] == pytest.approx(stage["norms"][1], rel=1e-4)
            assert stage["error"] < 1e-4
    assert found[0][name] == found[1][name]

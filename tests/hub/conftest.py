"""A Hub on this machine for the real client, and finished runs to publish there."""

import time

import datasets
import huggingface_hub
import pytest
from hub_helpers import make_run
from hub_server import TOKEN, serving
from huggingface_hub import constants
from huggingface_hub.utils import close_session


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Serve a Hub, and configure the client for it: in this process, and through the environment in child processes."""
    home = tmp_path / "hf-home"
    with serving() as app:
        environment = {
            "HF_ENDPOINT": app.state.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(home),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        read_at_import = {
            "ENDPOINT": app.state.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": app.state.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
        }
        for name, value in read_at_import.items():
            monkeypatch.setattr(constants, name, value)
        of_datasets = {
            "HF_ENDPOINT": app.state.url,
            "HUB_DATASETS_URL": app.state.url + "/datasets/{repo_id}/resolve/{revision}/{path}",
            "HF_HUB_OFFLINE": False,
            "HF_DATASETS_CACHE": home / "datasets",
        }
        for name, value in of_datasets.items():
            monkeypatch.setattr(datasets.config, name, value)
        huggingface_hub.HfFileSystem.clear_instance_cache()
        close_session()
        yield app
        close_session()


@pytest.fixture
def waits(monkeypatch):
    """Return the list of seconds that the package would have waited; it does not wait."""
    seconds = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def finished(tmp_path, bert_checkpoint):
    """Return the folder of a finished run that also contains files that must not be published."""
    return make_run(tmp_path / "runs" / "reviews", bert_checkpoint)

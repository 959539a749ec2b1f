"""The test Hub, served over HTTP on this machine."""

import socket
import threading
from contextlib import contextmanager

import uvicorn
from hub_app import App
from hub_state import User

TOKEN = "hf_" + "testtoken" * 4
READ_TOKEN = "hf_" + "readtoken" * 4


@contextmanager
def serving():
    """Serve a new Hub with one user, who has a token to write and one to read, until the block ends."""
    app = App()
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    app.state.url, app.state.cdn = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
    app.state.users = {
        TOKEN: User("me", orgs=("us",)),
        READ_TOKEN: User("me", role="read", orgs=("us",)),
    }
    config = uvicorn.Config(app, log_config=None, log_level="critical", lifespan="off", http="h11", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield app
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join()
        listening.close()

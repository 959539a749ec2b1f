"""Consoles and arguments that several commands use."""

from typing import Annotated

import typer
from rich.console import Console

__all__ = ["ModelArgument", "TrustRemoteCode", "err", "out"]

out = Console(soft_wrap=True, highlight=False, emoji=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL_OR_RUN", help="Run directory, checkpoint folder or Hub id.")
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Allow custom code of checkpoints and metrics to run.",
    ),
]

"""Publishing at the end of a run, which is done whatever becomes of that."""

import logging
import shlex
from pathlib import Path

from hf_finetune.errors import InputError, Problem
from hf_finetune.publishing.hub import plan_publication, publish
from hf_finetune.recipe import PublishSpec

__all__ = ["publish_run"]

logger = logging.getLogger(__name__)


def publish_run(spec: PublishSpec, folder: Path) -> tuple[tuple[Problem, ...], str]:
    """Publish a finished run as its recipe says, without asking.

    Returns:
        Nothing, twice, if it is published; otherwise why not, and the command to publish it later.
    """
    try:
        planned = plan_publication(
            folder, spec.to, private=spec.private, revision=spec.revision, tag=spec.tag
        )
        if planned.is_nothing:
            logger.info("All of it is on %s already, as commit %s.", planned.repository, planned.head)
            return (), ""
        published = publish(planned)
    except InputError as error:
        return error.problems, _command(spec, folder)
    logger.info("Published as %s, commit %s.", published.url, published.commit[:12])
    return (), ""


def _command(spec: PublishSpec, folder: Path) -> str:
    words = ["hf-finetune", "publish", str(folder), "--to", spec.to]
    words += ["--private" if spec.private else "--public"]
    for option, value in (("--revision", spec.revision), ("--tag", spec.tag)):
        words += [option, value] if value is not None else []
    return shlex.join(words)

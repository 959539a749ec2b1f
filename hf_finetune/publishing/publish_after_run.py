"""Publish a run when it ends. If publishing fails, the run still counts as finished."""

import logging
import shlex
from pathlib import Path

from hf_finetune.errors import InputError, Problem
from hf_finetune.publishing.hub import plan_publication, publish
from hf_finetune.recipe.publish import PublishSpec

__all__ = ["publish_run"]

logger = logging.getLogger(__name__)


def publish_run(spec: PublishSpec, folder: Path) -> tuple[tuple[Problem, ...], str]:
    """Publish a finished run as its recipe declares, without confirmation.

    Args:
        spec: The ``publish`` section of the recipe.
        folder: Run directory.

    Returns:
        Problems, and the command to publish the run later; both are empty if the run is published.
    """
    try:
        plan = plan_publication(folder, spec.to, private=spec.private, revision=spec.revision, tag=spec.tag)
        if plan.is_up_to_date:
            logger.info("%s is already up to date, at commit %s.", plan.repository, plan.head)
            return (), ""
        published = publish(plan)
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

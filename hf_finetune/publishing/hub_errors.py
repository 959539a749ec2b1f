"""Error handling for the Hub: retry temporary failures, and report the others as input errors."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.error_text import format_error

__all__ = ["hub_errors", "no_token", "with_retries"]

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

# Base class of connection errors: HTTPError of httpx, or of the copy of httpx in newer versions of huggingface_hub.
CONNECTION_FAILURE: type[Exception] = HfHubHTTPError.__mro__[1]
FAILURES = (CONNECTION_FAILURE, OfflineModeIsEnabled, LocalTokenNotFoundError, RuntimeError, ValueError)
RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0)
"""Seconds to wait before each retry, unless the Hub requests another time."""
MAX_DELAY = 300.0
"""Longest wait requested by the Hub (seconds) that is honored; beyond it the error is reported."""
QUOTA = re.compile(r"storage|quota|billing|payment|subscri|upgrade|\blimit", re.IGNORECASE)
"""Pattern of messages about exhausted storage."""
TOO_LARGE = re.compile(r"LFS batch API returned errors|too large|exceeds", re.IGNORECASE)
"""Pattern of messages about files that are too large."""


def with_retries(request: Callable[[], Result]) -> Result:
    """Return the result of a request to the Hub, with retries after a rate limit, a server error or no response.

    A permanent error is raised unchanged, and so is the last error when no retries are left.

    Args:
        request: Function that sends the request and returns the result.
    """
    for wait in RETRY_DELAYS:
        try:
            return request()
        except CONNECTION_FAILURE as error:
            pause = _pause(error, wait)
            if pause is None:
                raise
            logger.info("The Hub %s; retrying in %.15g s.", _failure_text(error), pause)
        time.sleep(pause)
    return request()


def _pause(error: Exception, wait: float) -> float | None:
    """Return the seconds to wait before the next retry; None for a permanent error or too long a wait."""
    if not isinstance(error, HfHubHTTPError):
        return wait
    status = error.response.status_code
    if status == 429:
        requested = _retry_after(error)
        if requested is None:
            return wait
        return requested if requested <= MAX_DELAY else None
    return wait if status in (408, 500, 502, 503, 504) else None


def _retry_after(error: HfHubHTTPError) -> float | None:
    value = error.response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    # RateLimit header of the IETF draft: r = remaining requests, t = seconds until the reset
    spent = re.search(r"\br=0\s*;\s*t=(\d+)", error.response.headers.get("RateLimit", ""))
    return float(spent[1]) if spent else None


def _failure_text(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return "limits the request rate" if status == 429 else f"returned an error ({status})"
    return "does not respond"


@contextmanager
def hub_errors(repository: str, endpoint: str) -> Iterator[None]:
    """Convert errors of the Hub in the block to input errors.

    Args:
        repository: Repository that the block publishes to, for the message.
        endpoint: URL of the Hub, for the message.

    Raises:
        InputError: If the Hub refuses a request, or cannot be reached.
    """
    try:
        yield
    except InputError:
        raise
    except FAILURES as error:
        raise InputError(_problem(_cause(error), repository, endpoint)) from error


def _cause(error: BaseException) -> BaseException:
    """Return the error of the Hub that caused a general upload error; the error itself if there is none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (CONNECTION_FAILURE, OfflineModeIsEnabled)):
            return cause
        cause = cause.__cause__
    return error


def _problem(error: BaseException, repository: str, endpoint: str) -> Problem:
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, repository, endpoint)
    if isinstance(error, OfflineModeIsEnabled):
        repair = "Unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE, and publish again."
        return Problem("Offline mode", "must be disabled to publish", "", repair)
    if isinstance(error, LocalTokenNotFoundError):
        return no_token()
    if isinstance(error, CONNECTION_FAILURE):
        repair = "Nothing was published. Check the network and publish again."
        return Problem(endpoint, "must be reachable to publish", format_error(error), repair)
    text = str(error)
    if isinstance(error, ValueError) and TOO_LARGE.search(text):
        return _too_large(repository, text.splitlines()[-1])
    if isinstance(error, ValueError) and "README.md" in text:
        rule, message = "must begin with metadata that the Hub accepts", " ".join(text.split())
        return Problem("README.md", rule, message, "Nothing was published.")
    return Problem(repository, "must be accepted by the Hub", format_error(error), "Nothing was published.")


def no_token() -> Problem:
    """Return the problem of a missing access token."""
    repair = "Log in with `hf auth login`, or set HF_TOKEN to a token with write access."
    return Problem("A Hub token", "must be set to publish", "", repair)


def _refusal(error: HfHubHTTPError, repository: str, endpoint: str) -> Problem:
    """Return the problem for an error response of the Hub, by its status code."""
    status, message = error.response.status_code, _server_message(error)
    response = f"{status}, {message}" if message else str(status)
    if isinstance(error, GatedRepoError):
        repair = f"Request access on {endpoint}/{repository}, or publish to a repository of your own."
        return Problem(
            "Your account", f"must have access to the gated repository {repository}", response, repair
        )
    if isinstance(error, RevisionNotFoundError):
        return Problem(
            repository, "must have the branch of --revision", response, "Check the name of the branch."
        )
    if status == 413:
        return _too_large(repository, response)
    if status == 402 or (status in (403, 507) and QUOTA.search(message)):
        repair = "Nothing was published. Free some storage, publish to another namespace, or use --public."
        return Problem(repository, "must have enough storage for the model", response, repair)
    if status == 401:
        repair = "Log in again with `hf auth login`, or check HF_TOKEN, which takes precedence."
        return Problem("The Hub token", "must be valid", response, repair)
    if status == 403:
        repair = "Use a token with write access to it, or another namespace."
        return Problem("The Hub token", f"must have write access to {repository}", response, repair)
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        repair = "Check the name, and whether the token has access to it."
        return Problem(repository, "must exist", response, repair)
    if status in (409, 412):
        repair = "It has a new commit. Review it, and publish again."
        return Problem(repository, "must not change while publishing", response, repair)
    if status == 429:
        seconds = _retry_after(error)
        wait = f"in {seconds:.15g} s" if seconds is not None else "later"
        return Problem(
            f"The rate limit of {endpoint}", "must not be exceeded", response, f"Publish again {wait}."
        )
    if status >= 500:
        repair = "Nothing was published. Publish again later."
        return Problem(endpoint, "must be available to publish", response, repair)
    return Problem(repository, "must be accepted by the Hub", response)


def _too_large(repository: str, response: str) -> Problem:
    repair = "Nothing was published. Save the weights in smaller files, or train a smaller model."
    return Problem(
        f"The files for {repository}", "must be within the size limits of the Hub", response, repair
    )


def _server_message(error: HfHubHTTPError) -> str:
    text: Any = error.server_message or error.response.headers.get("X-Error-Message") or ""
    return " ".join(str(text).split()).rstrip(".")

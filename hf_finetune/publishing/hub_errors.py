"""What the Hub refuses or cannot do now: what is tried again, and what a person is told."""

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

__all__ = ["hub_errors", "no_token", "with_retries"]

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

# What the client library raises when no answer comes: the HTTPError of httpx, or of the copy that newer ones bring.
NO_ANSWER: type[Exception] = HfHubHTTPError.__mro__[1]
FAILURES = (NO_ANSWER, OfflineModeIsEnabled, LocalTokenNotFoundError, RuntimeError, ValueError)
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further attempt, where the Hub does not say how long to wait."""
LONGEST_WAIT = 300.0
"""Seconds. Who is asked to wait longer than this comes back himself."""
QUOTA = re.compile(r"storage|quota|billing|payment|subscri|upgrade|\blimit", re.IGNORECASE)
TOO_LARGE = re.compile(r"LFS batch API returned errors|too large|exceeds", re.IGNORECASE)


def with_retries(ask: Callable[[], Answer]) -> Answer:
    """Ask the Hub, and again while it is too busy, in trouble, or does not answer."""
    for wait in WAITS:
        try:
            return ask()
        except NO_ANSWER as error:
            pause = _pause(error, wait)
            if pause is None:
                raise
            logger.info("The Hub %s; trying again in %.15g s.", _trouble(error), pause)
        time.sleep(pause)
    return ask()


def _pause(error: Exception, wait: float) -> float | None:
    """Give the seconds to wait before asking again; None if that would not help."""
    if not isinstance(error, HfHubHTTPError):
        return wait
    status = error.response.status_code
    if status == 429:
        asked = _retry_after(error)
        return wait if asked is None else asked if asked <= LONGEST_WAIT else None
    return wait if status in (408, 500, 502, 503, 504) else None


def _retry_after(error: HfHubHTTPError) -> float | None:
    value = error.response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    spent = re.search(r"\br=0\s*;\s*t=(\d+)", error.response.headers.get("RateLimit", ""))
    return float(spent[1]) if spent else None


def _trouble(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return "asks to wait" if status == 429 else f"has an error of its own ({status})"
    return "does not answer"


@contextmanager
def hub_errors(repository: str, endpoint: str) -> Iterator[None]:
    """Turn what the Hub refuses within the block into an InputError.

    Args:
        repository: What is published to.
        endpoint: Address of the Hub.
    """
    try:
        yield
    except InputError:
        raise
    except FAILURES as error:
        raise InputError(_problem(_cause(error), repository, endpoint)) from error


def _cause(error: BaseException) -> BaseException:
    """Find the refusal in what says only that a file could not be uploaded."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, (NO_ANSWER, OfflineModeIsEnabled)):
            return found
        found = found.__cause__
    return error


def _problem(error: BaseException, repository: str, endpoint: str) -> Problem:
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, repository, endpoint)
    if isinstance(error, OfflineModeIsEnabled):
        rule, found = "must not be offline to publish", "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"
        return Problem("The Hub", rule, found, "Unset it and publish again.")
    if isinstance(error, LocalTokenNotFoundError):
        return no_token()
    if isinstance(error, NO_ANSWER):
        repair = "Nothing was published, for that happens in one commit. Check the network and publish again."
        return Problem(endpoint, "must be reachable to publish", _first_line(error), repair)
    text = str(error)
    if isinstance(error, ValueError) and TOO_LARGE.search(text):
        return _too_large(repository, text.splitlines()[-1])
    if isinstance(error, ValueError) and "README.md" in text:
        said = " ".join(text.split())
        return Problem("README.md", "must begin with metadata that the Hub knows", said, "Nothing was sent.")
    repair = "Nothing was published, for that happens in one commit."
    return Problem(repository, "must be accepted by the Hub", _first_line(error), repair)


def no_token() -> Problem:
    """Say that there is nothing to log in with."""
    repair = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."
    return Problem("The token of the Hub", "must be given to publish", "none", repair)


def _refusal(error: HfHubHTTPError, repository: str, endpoint: str) -> Problem:
    """Say what an answer of the Hub means here."""
    status, said = error.response.status_code, _said(error)
    found = f"{status}, {said}" if said else str(status)
    if isinstance(error, GatedRepoError):
        repair = f"Ask for access on {endpoint}/{repository}, or publish to a repository of your own."
        return Problem(repository, "must not be gated against you", found, repair)
    if isinstance(error, RevisionNotFoundError):
        return Problem(repository, "must have the branch", found, "Check --revision; --tag names no branch.")
    if status == 413:
        return _too_large(repository, found)
    if status == 402 or (status in (403, 507) and QUOTA.search(said)):
        repair = "Nothing was published. Free some, or publish to another namespace, or with --public."
        return Problem(repository, "must have room for the model", found, repair)
    if status == 401:
        repair = "Log in again with `hf auth login`, or check HF_TOKEN, which goes before it."
        return Problem("The token of the Hub", "must be valid", found, repair)
    if status == 403:
        repair = "Take a token that may write there, or another namespace."
        return Problem("The token of the Hub", f"must have the right to write {repository}", found, repair)
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        repair = "Check the name, and that the token may see it."
        return Problem(repository, "must be there", found, repair)
    if status in (409, 412):
        repair = "Somebody else has just changed it. Look at it, and publish again."
        return Problem(repository, "must be as it was when it was looked at", found, repair)
    if status == 429:
        seconds = _retry_after(error)
        wait = f"in {seconds:.15g} s" if seconds is not None else "later"
        return Problem(endpoint, "must allow further requests", found, f"Publish again {wait}.")
    if status >= 500:
        repair = "Nothing was published, for that happens in one commit. Publish again later."
        return Problem(endpoint, "must work to publish", found, repair)
    return Problem(repository, "must be accepted by the Hub", found)


def _too_large(repository: str, found: str) -> Problem:
    repair = "Nothing was published. Save the weights in smaller files, or train a smaller model."
    return Problem(repository, "must get only files that the Hub takes", found, repair)


def _said(error: HfHubHTTPError) -> str:
    text: Any = error.server_message or error.response.headers.get("X-Error-Message") or ""
    return " ".join(str(text).split()).rstrip(".")


def _first_line(error: BaseException) -> str:
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {line}".rstrip(".: ")

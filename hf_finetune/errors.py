"""What is wrong with a person's input, said so that they can mend it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

__all__ = ["InputError", "Problem", "nearest"]

_MOST_KNOWN = 50


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the input.

    Attributes:
        place: Where it is: ``stages[1].train``, ``photos/soup.jpg``, ``data.columns.label``.
        rule: What must hold there, as a clause after the place: ``must be above 0``.
        value: What was found there, shown as given. Empty if there is nothing to show.
        repair: What to do about it, a sentence. Empty if the rule says it all.
    """

    place: str
    rule: str
    value: str = ""
    repair: str = ""

    def __str__(self) -> str:
        sentence = f"{self.place} {self.rule}."
        if self.value:
            sentence += f" Got {self.value}."
        if self.repair:
            sentence += f" {self.repair}"
        return sentence


class InputError(ValueError):
    """The recipe, the data or the checkpoint cannot be used. Holds every problem found, not only the first."""

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DataNotThere(InputError):
    """There is nothing at ``data.path``, neither here nor on the Hub."""


class HubUnreachable(DataNotThere):
    """Data that is not here may be on the Hub, which gives no answer."""


def nearest(word: str, known: Sequence[str]) -> str:
    """Say which known word was probably meant: ``Nearest: 'epochs'.``, or list what there is when none is close.

    Args:
        word: What was given.
        known: What may be given.
    """
    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"Nearest: {close[0]!r}."
    more = f" and {len(known) - _MOST_KNOWN} more" if len(known) > _MOST_KNOWN else ""
    return f"Known: {', '.join(repr(name) for name in known[:_MOST_KNOWN])}{more}." if known else ""

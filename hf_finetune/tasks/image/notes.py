"""Notes for the user on how images were read, one sentence for each kind of conversion."""

from hf_finetune.tasks.examples import Remarks
from hf_finetune.tasks.first_names import FirstNames
from hf_finetune.tasks.image.files import LARGE_EDGE, ImageFacts

__all__ = ["ImageNotes"]


class ImageNotes(Remarks):
    """Collector of conversions of images, in constant memory."""

    def __init__(self) -> None:
        self._scaled: dict[str, FirstNames] = {}
        self._not_numbers, self._frames, self._large = FirstNames(), FirstNames(), FirstNames()

    def add(self, name: str, facts: ImageFacts) -> None:
        """Record the facts of one image."""
        if facts.values is not None:
            self._scaled.setdefault(facts.values.name, FirstNames()).add(repr(name))
            if facts.values.has_nan:
                self._not_numbers.add(repr(name))
        if facts.has_frames:
            self._frames.add(repr(name))
        if facts.reduced_from is not None:
            width, height = facts.reduced_from
            self._large.add(f"{name!r} ({width:,} x {height:,} pixels)")

    def sentences(self) -> list[str]:
        """Return a sentence for each kind of conversion that occurred."""
        notes = []
        if self._scaled:
            kinds = "; ".join(f"from {values}: {names}" for values, names in self._scaled.items())
            notes.append(f"Images of more than 8 bits were scaled to 0..255, {kinds}.")
        if len(self._scaled) > 1:
            notes.append(
                "Their ranges differ. If these images belong together, save them as 8 bits, scaled from one range."
            )
        if self._not_numbers.count:
            notes.append(f"NaN values were replaced by the lowest value: {self._not_numbers}.")
        if self._frames.count:
            notes.append(f"Only the first frame or page is used of {self._frames}.")
        if self._large.count:
            notes.append(
                f"Large images are reduced to a shorter edge of {LARGE_EDGE:,} pixels: {self._large}."
            )
        return notes

"""Notes for the user on the recordings of a dataset."""

from hf_finetune.tasks.audio.files import RecordingFacts
from hf_finetune.tasks.examples import Remarks
from hf_finetune.tasks.first_names import FirstNames

__all__ = ["AudioNotes"]


class AudioNotes(Remarks):
    """Collector of silent recordings, and of sampling rates, in constant memory."""

    def __init__(self) -> None:
        self._silent = FirstNames()
        self._rates: dict[int, FirstNames] = {}

    def add(self, name: str, facts: RecordingFacts) -> None:
        """Record the facts of one recording."""
        if facts.is_silent:
            self._silent.add(repr(name))
        self._rates.setdefault(facts.rate, FirstNames()).add(repr(name))

    def sentences(self) -> list[str]:
        """Return a sentence on silent recordings, and one on different sampling rates."""
        notes = []
        if self._silent.count:
            notes.append(f"Recordings of silence only: {self._silent}.")
        if len(self._rates) > 1:
            usual, *others = sorted(self._rates, key=lambda rate: -self._rates[rate].count)
            rare = "; ".join(f"{rate:,} Hz: {self._rates[rate]}" for rate in others)
            count = self._rates[usual].count
            notes.append(
                f"Recordings have different sampling rates; {count:,} have {usual:,} Hz, others {rare}. "
                "If classes differ in their rates, a model can learn that instead of the sounds."
            )
        return notes

"""The page on Dutch dialogues: ``docs/dutch.md``."""

from collections.abc import Sequence

from benchmarks.kit.compare import signed
from benchmarks.speech.measure import SETTINGS, Row

__all__ = ["render"]

HEAD = """# Dutch dialogues: results of the recipe for speech recognition

The game Fish Fillets NG has dialogues in Dutch, spoken by actors, with the exact sentence of each recording (Debian
packages fillets-ng-data and fillets-ng-data-nl, GPL-2): {all} recordings in {levels} levels. Whole levels are held
out: a test split of at least 200 recordings, and a validation split of at least 150. Two roles speak, in every split:
these are results for known voices and new sentences, not for new voices.

The recipe [speech/transcripts-csv](../recipes/speech/transcripts-csv.yaml) fine-tunes the cross-attention of Whisper
base; the frozen encoder is computed once for each recording. The baseline is the same checkpoint before any training,
with its full window of 30 s.

`python -m benchmarks.speech measure` takes the recordings from the packages, runs all experiments and writes this page;
[benchmarks/results/speech.json](../benchmarks/results/speech.json) has the raw data.

Error rates on the test split: word errors per spoken word (WER) and character errors per character (CER), after lower
casing and without punctuation; *orthographic*: of the texts as they are. Lower is better. *difference*: of the model
from the checkpoint, with a 95 % confidence interval (paired bootstrap over levels).

| | seed | test recordings | WER | CER | WER, orthographic | difference of WER | 95 % interval |
|---|---:|---:|---:|---:|---:|---:|---:|
"""
RATES = ("wer", "cer", "wer_orthographic")
RECORDINGS, LEVELS = 1613, 83
"""Recordings with a sentence, and their levels, in the packages."""


def render(rows: Sequence[Row]) -> str:
    """Return the page of the measured rows."""
    if not rows:
        return ""
    ordered = sorted(rows, key=lambda row: (list(SETTINGS).index(row.setting), row.seed))
    lines = []
    for row in ordered:
        first = [str(row.seed), f"{row.utterances} in {row.levels} levels"]
        lines.append(["whisper-base before training", *first, *_rates(row.untrained), "", ""])
        tested = row.differences["wer"]
        low, high = tested["interval"]
        difference = [signed(tested["difference"]), f"{signed(low)} to {signed(high)}"]
        lines.append([row.setting, *first, *_rates(row.test), *difference])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return HEAD.format(all=f"{RECORDINGS:,}", levels=LEVELS) + table + "\n" + "".join(map(_foot, ordered))


def _rates(values: object) -> list[str]:
    return [f"{values[name]:.3f}" for name in RATES]  # type: ignore[index]


def _foot(row: Row) -> str:
    """Return the verdict on a run, and what is known of sentences that also occur in training."""
    verdict = {
        "below": "The fine-tuned model is better than the checkpoint",
        "above": "The fine-tuned model is worse than the checkpoint",
    }.get(
        row.differences["wer"]["verdict"],
        "The fine-tuned model is not shown to be better than the checkpoint",
    )
    known = row.sentences.get("in training")
    seen = (
        f"{known['examples']} of the test sentences also occur in training (WER {known['wer']:.3f})."
        if known
        else "No test sentence occurs in training."
    )
    start, end = row.validation["start"], row.validation["end"]
    return (
        f"\n{verdict} (seed {row.seed}). {seen} On the validation split the WER went from {start:.3f} to {end:.3f}.\n"
        f"The run took {row.seconds / 60:.0f} minutes.\n"
    )

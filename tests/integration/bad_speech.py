"""Bad inputs: speech recognition."""

from pathlib import Path

from bad_input_case import Case
from bad_input_steps import change, do, write

__all__ = ["CASES"]

RECIPE = """\
task: automatic-speech-recognition
model: ./whisper
data: {path: ./speech/utterances.csv}
stages:
  - {train: "last:1", epochs: 1, lr: 1e-3}
"""


def recordings(seconds: float):
    """Return a step that writes recordings with transcripts."""

    def step(folder: Path) -> None:
        from speech_data import write_speech

        write_speech(folder / "speech", count=12, seconds=seconds)

    return step


def whisper(folder: Path) -> None:
    """Write a tiny checkpoint of one language, whose window is a second."""
    from hf_finetune.tasks import TASKS

    TASKS["automatic-speech-recognition"].modality.save_tiny_checkpoint(folder / "whisper")


SPEECH = do(whisper, recordings(0.5), write("speech.yaml", RECIPE))

CASES = [
    Case(
        "a language for a checkpoint of one language",
        "plan speech.yaml data.language=nl",
        (
            "Problem:\n"
            "  data.language must not be set for a checkpoint without a choice of languages. Got 'nl'. Remove it."
        ),
        SPEECH,
    ),
    Case(
        "recordings that are longer than the input",
        "run speech.yaml --output-dir runs/speech data.on_error=skip data.limit=1 data.split.validation=0",
        (
            "Problem:\n"
            "  The train split must contain recordings of at most 1 s, the input of the checkpoint. Got '04.wav'. Cut "
            "longer ones at pauses, with their transcripts, or remove them."
        ),
        do(SPEECH, recordings(1.5)),
    ),
    Case(
        "classes as labels of speech recognition",
        "plan speech.yaml data.target=single_label",
        (
            "Problem:\n"
            "  data.target must be transcript when the task is automatic-speech-recognition. Got 'single_label'."
        ),
        SPEECH,
    ),
    Case(
        "transcripts as labels of a classifier",
        "plan speech.yaml task=audio-classification data.target=transcript",
        (
            "Problem:\n"
            "  data.target must be single_label or multi_label or regression when the task is audio-classification. "
            "Got 'transcript'."
        ),
        SPEECH,
    ),
    Case(
        "a new head for a model that generates",
        "plan speech.yaml stages.0.train=head",
        (
            "Problem:\n"
            "  stages[0].train must match at least one parameter. Got 'head'. This model has 5 layer groups and 89 "
            "parameter tensors."
        ),
        SPEECH,
    ),
    Case(
        "a metric of classes for transcripts",
        "plan speech.yaml metrics=[accuracy]",
        (
            "Problem:\n"
            "  metrics[0] must be a metric for the label type transcript. Got 'accuracy'. Known: 'wer', 'cer', "
            "'wer_orthographic', 'cer_orthographic'."
        ),
        SPEECH,
    ),
    Case(
        "transcripts without a column of a usual name",
        "plan speech.yaml",
        (
            "Problem:\n"
            "  data.columns.label must be set, because no column looks like labels. Got columns 'audio', 'words', "
            "'speaker'. Set data.columns.label to one of them."
        ),
        do(SPEECH, change("speech/utterances.csv", "sentence", "words")),
    ),
]

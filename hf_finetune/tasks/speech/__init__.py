"""Recordings of speech, and the models that write down what is said."""

from hf_finetune.targets.transcript import Transcript
from hf_finetune.tasks.speech.modality import Speech
from hf_finetune.tasks.speech.task import SpeechRecognition

__all__ = ["AUTOMATIC_SPEECH_RECOGNITION"]

AUTOMATIC_SPEECH_RECOGNITION = SpeechRecognition(
    name="automatic-speech-recognition",
    title="Automatic Speech Recognition",
    modality=Speech(),
    auto_model="AutoModelForSpeechSeq2Seq",
    further_auto_models=("AutoModelForCTC",),
    suffixes=("ForConditionalGeneration", "ForSpeechSeq2Seq", "ForCTC"),
    targets=(Transcript.name,),
    has_new_head=False,
)

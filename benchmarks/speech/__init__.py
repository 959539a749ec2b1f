"""Measurements on the transcription of speech."""

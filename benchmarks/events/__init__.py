"""Measurements on histories of events."""

"""Measurements on the ranking of texts."""

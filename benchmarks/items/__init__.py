"""Measurements on recommendation."""

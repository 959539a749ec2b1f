"""Measurements on recordings."""

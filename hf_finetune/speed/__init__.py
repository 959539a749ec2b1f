"""Frozen work done once."""

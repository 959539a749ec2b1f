"""Staged fine-tuning of image and text classifiers."""

__version__ = "0.1.0"

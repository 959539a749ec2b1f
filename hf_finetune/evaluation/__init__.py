"""Metrics, evaluation and prediction, through the pipelines of transformers."""

"""Kinds of labels (single-label, multi-label, regression), and what depends on them."""

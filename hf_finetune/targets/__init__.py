"""The kinds of labels, and what depends on them."""

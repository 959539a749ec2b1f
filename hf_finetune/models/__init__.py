"""Models: loaded with a classification head, described for the plan, and exported for other libraries."""

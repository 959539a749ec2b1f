"""A run from its recipe to its results: every check, the stages, the evaluation, the report."""

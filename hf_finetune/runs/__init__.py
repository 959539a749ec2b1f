"""Runs of a recipe: the checks, the stages, the evaluation and the report."""

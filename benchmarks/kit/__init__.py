"""Measured effects of settings of a recipe: real data with and without it, over several seeds."""

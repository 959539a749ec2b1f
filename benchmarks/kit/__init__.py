"""Measured effect of each option of a recipe: real data with and without it, over several seeds."""

"""Foundations of the other folders: fields of a recipe, registries, and modules that are imported late."""

"""Base class and value types of the fields of a recipe."""

"""Base classes and value types of recipe fields, registries, and lazy imports."""

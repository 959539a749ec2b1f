"""Recipes: schema, loading, overrides and shipped recipes."""

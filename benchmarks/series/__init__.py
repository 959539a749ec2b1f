"""Measurements of the recipe for time series on the Tourism competition."""

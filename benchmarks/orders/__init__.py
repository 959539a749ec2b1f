"""Measurements on requests and the set of items that belong to each."""

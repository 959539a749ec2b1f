"""Labelled images and texts: loaded, split, checked, and put in the form that a model takes."""

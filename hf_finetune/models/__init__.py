"""Checkpoints: built with the right head, described for the plan, and saved so that others load them."""

"""The shipped recipes on small real datasets, and the choice of the default learning rates."""

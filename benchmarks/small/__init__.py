"""The documented recipes on small real sets, and how the default rates were chosen."""

"""The report of a run: what was trained, how good it is, where it fails."""

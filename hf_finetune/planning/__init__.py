"""Plan of the trained parameters and learning rates of each stage: pure functions on names and numbers, no torch."""

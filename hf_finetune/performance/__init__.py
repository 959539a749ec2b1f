"""Speed of a training step: execution modes, their benchmark, and memory."""

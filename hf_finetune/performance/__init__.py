"""How fast a step computes: execution modes, their measurement, and memory."""

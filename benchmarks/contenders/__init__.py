"""Contenders: ``measure(work)`` of each module does the work once, in its own process, and times it."""

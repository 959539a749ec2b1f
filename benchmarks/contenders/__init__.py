"""The contenders: ``measure(work)`` of each module does its work once, in a process of its own, and times it."""

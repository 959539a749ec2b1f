"""Which parameters each stage trains, at which rates: pure functions on names and numbers, no torch."""

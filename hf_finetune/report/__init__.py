"""Report of a run: training stages, test metrics and errors."""

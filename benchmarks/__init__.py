"""The same fine-tuning done in several ways, side by side. ``python -m benchmarks`` runs it; see README.md."""

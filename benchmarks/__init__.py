"""Benchmarks of the same fine-tuning with several libraries. ``python -m benchmarks`` runs them; see README.md."""

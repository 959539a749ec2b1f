"""Training of the stages with the Trainer of transformers."""

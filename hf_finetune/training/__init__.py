"""The stages at work on the Trainer of transformers."""

"""Cache of the outputs of frozen layers."""

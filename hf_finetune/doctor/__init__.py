"""Numeric checks of a checkpoint, a recipe's stages and this machine, each in seconds."""

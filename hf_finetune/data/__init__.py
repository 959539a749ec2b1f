"""Loading, splitting, validation and encoding of labeled images and texts."""

"""From data to a recipe: inspect the data, choose a checkpoint, and write the recipe."""

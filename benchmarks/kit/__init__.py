"""What each option of a recipe is worth: real data with and without it, over several seeds."""

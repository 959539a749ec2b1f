"""``hf-finetune auto`` compared with frozen features, the shipped recipes, a stock script and a grid, on real data."""

"""``hf-finetune auto`` compared with frozen features, the shipped recipes, a stock script, AutoGluon and a grid."""

"""How good a model is: metrics, evaluation and prediction through the pipelines of transformers."""

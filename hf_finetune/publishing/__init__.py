"""Publishing of finished runs: model cards, uploads to the Hub, and exports to other formats."""

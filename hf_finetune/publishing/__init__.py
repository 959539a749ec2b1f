"""What leaves a run: its model card, the Hub, other formats."""

"""Tests of all registered tasks and kinds of labels."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))  # for run_helpers

"""Every bad input, by area."""

import bad_checkpoints
import bad_class_folders
import bad_data
import bad_domain
import bad_events
import bad_folders
import bad_items
import bad_labels
import bad_limits
import bad_models
import bad_pictures
import bad_ranking
import bad_recipes
import bad_results
import bad_rounds
import bad_search
import bad_security
import bad_series
import bad_speech
import bad_stages
import bad_tables
import bad_tasks
from bad_input_case import Case

__all__ = ["AREAS", "CASES"]

AREAS: dict[str, list[Case]] = {
    "Recipes": bad_recipes.CASES,
    "Untrusted files: code execution and resource exhaustion": bad_security.CASES,
    "Several errors at once": bad_rounds.CASES,
    "Selectors, optimizers and metrics": bad_stages.CASES,
    "Multi-task recipes": bad_tasks.CASES,
    "Data": [*bad_data.CASES, *bad_pictures.CASES],
    "Tables": bad_tables.CASES,
    "Histories of events, division by time": bad_events.CASES,
    "Speech recognition": bad_speech.CASES,
    "Recommendation": bad_items.CASES,
    "Time series": bad_series.CASES,
    "Ranking": bad_ranking.CASES,
    "Folders and paths": bad_class_folders.CASES,
    "Labels": bad_labels.CASES,
    "Domain adaptation": bad_domain.CASES,
    "Checkpoints": [*bad_checkpoints.CASES, *bad_limits.CASES],
    "Run directories, full disks, diverging training": bad_folders.CASES,
    "Metrics, costs and columns": bad_results.CASES,
    "Searches": bad_search.CASES,
    "Evaluation, prediction and the command line": bad_models.CASES,
}
CASES = [case for cases in AREAS.values() for case in cases]

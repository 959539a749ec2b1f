"""The benchmark of speech recognition: the row of a run, and the page."""

from benchmarks.contenders.speech_run import summary
from benchmarks.inputs import ROOT
from benchmarks.rows import read_rows
from benchmarks.speech.measure import RECIPE, SETTINGS, Row
from benchmarks.speech.page import RATES, render
from hf_finetune.recipe.load import load_recipe

(SETTING,) = SETTINGS
RATES_OF_MODEL = {"wer": 0.4, "cer": 0.2, "wer_orthographic": 0.5}


def metrics(verdict="below", sentences=()):
    """Return the metrics of a run, as far as a row reads them."""
    return {
        "test": {**RATES_OF_MODEL, "cer_orthographic": 0.3},
        "test_interval": {name: [0.3, 0.6] for name in RATES_OF_MODEL},
        "test_examples": 200,
        "test_groups": {"column": "level", "groups": 10},
        "baselines": {"untrained": dict.fromkeys(RATES_OF_MODEL, 0.6)},
        "baseline_differences": {
            "untrained": {
                name: {"difference": -0.2, "interval": [-0.3, -0.1], "verdict": verdict}
                for name in RATES_OF_MODEL
            }
        },
        "slices": {"sentence": {"slices": list(sentences)}} if sentences else {},
        "stages": [{"start": {"wer": 0.7}, "validation": {"wer": 0.45}}],
        "wall_seconds": 1800.04,
    }


def test_a_row_has_the_rates_of_the_model_and_of_the_checkpoint():
    known = [{"name": "in training", "examples": 3, "metrics": {"wer": 0.1}}]
    row = Row(SETTING, 1, **summary(metrics(sentences=known)))
    assert row.test == RATES_OF_MODEL and row.untrained["wer"] == 0.6
    assert row.sentences == {"in training": {"examples": 3, "wer": 0.1}}
    page = render([row])
    assert "| whisper-base before training | 1 | 200 in 10 levels | 0.600 | 0.600 | 0.600 |  |  |" in page
    assert f"| {SETTING} | 1 | 200 in 10 levels | 0.400 | 0.200 | 0.500 | -0.200 | -0.300 to -0.100 |" in page
    assert "3 of the test sentences also occur in training (WER 0.100)." in page
    assert "The fine-tuned model is better than the checkpoint (seed 1)." in page
    assert "the WER went from 0.700 to 0.450" in page and "took 30 minutes" in page


def test_the_page_says_where_no_gain_is_shown():
    page = render([Row(SETTING, 0, **summary(metrics("not distinguishable")))])
    assert (
        "is not shown to be better than the checkpoint (seed 0). No test sentence occurs in training." in page
    )
    assert "is worse than" in render([Row(SETTING, 0, **summary(metrics("above")))])
    assert render([]) == ""


def test_the_stored_rows_are_of_the_shipped_recipe():
    results = ROOT / "benchmarks" / "results" / "speech.json"
    rows = read_rows(Row, results)
    assert (ROOT / "docs" / "dutch.md").exists() == results.exists()
    assert {row.setting for row in rows} <= set(SETTINGS)
    assert all(row.utterances >= 200 and tuple(row.test) == RATES for row in rows)
    assert load_recipe(RECIPE).metrics == RATES

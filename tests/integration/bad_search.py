"""Searches that cannot begin."""

from bad_input_case import Case

__all__ = ["CASES"]

CASES = [
    Case(
        "a search without a limit",
        "tune text.yaml stages.0.lr=log:1e-5..1e-2 --output-dir found",
        "Problem:\n  A search must have a limit. Set --trials or --time.",
    ),
    Case(
        "a search without fields",
        "tune text.yaml --trials 2 --output-dir found",
        "Problem:\n  The search space must not be empty. Add a field with its values, such as "
        "stages.0.lr=log:1e-5..1e-2. Forms: log:LOW..HIGH, LOW..HIGH or VALUE,VALUE.",
    ),
    Case(
        "a range whose ends are exchanged",
        "tune text.yaml stages.0.lr=log:1e-2..1e-5 --trials 2 --output-dir found",
        "Problem:\n  stages.0.lr=log:1e-2..1e-5 must have a lower end that is below the upper end. "
        "Got log:1e-2..1e-5.",
    ),
    Case(
        "an unknown field of a search",
        "tune text.yaml stages.0.epoch=1,2 --trials 2 --output-dir found",
        "Problem:\n  stages.0.epoch=1,2 must set a known field. Got 'epoch'. Nearest: 'epochs'.",
    ),
    Case(
        "a search over the seed",
        "tune text.yaml seed=1,2,3 --trials 2 --output-dir found",
        "Problem:\n  seed must not vary in a search: trials are compared on the same examples.",
    ),
    Case(
        "a time that is not a duration",
        "tune text.yaml stages.0.lr=0.1,0.2 --time soon --output-dir found",
        "Problem:\n  --time must be a duration above 0, such as 90s, 20m or 1h30m. Got 'soon'.",
    ),
    Case(
        "`--resume` in a folder without a search",
        "tune text.yaml stages.0.lr=0.1,0.2 --trials 1 --resume --output-dir bert",
        "Problem:\n  --output-dir must contain a search. Got bert. Start it without --resume.",
    ),
    Case(
        "an unknown quality of `auto`",
        "auto reviews.csv --trials 1 --quality perfect --output-dir found",
        "Problem:\n  --quality must be fast, good, best. Got 'perfect'. Known: 'fast', 'good', 'best'.",
    ),
    Case(
        "`auto` without a limit",
        "auto reviews.csv --output-dir found",
        "Problem:\n  auto must have a limit. Set --time or --trials.",
    ),
    Case(
        "`auto` on data that does not exist",
        "auto reviewz.csv --trials 1 --output-dir found",
        "Problem:\n  data.path must be a folder, a data file or a Hub id. Got 'reviewz.csv'. Nearest: "
        "'./reviews.csv'.",
    ),
]

"""Inputs that cannot be predicted: all are reported at once, with a fix."""

import pytest

from hf_finetune.errors import InputError
from hf_finetune.evaluation.prediction_inputs import open_inputs
from hf_finetune.tasks import MODALITIES

TEXT, IMAGE = MODALITIES["text"], MODALITIES["image"]


def problem_of(*args, **kwargs):
    with pytest.raises(InputError) as caught:
        open_inputs(*args, **kwargs)
    return str(caught.value)


def test_all_unusable_inputs_are_reported_together(tmp_path):
    empty, odd, table, blank = (tmp_path / name for name in ("empty", "a.docx", "t.csv", "blank.csv"))
    empty.mkdir()
    odd.touch()
    table.write_text("headline,summary\na,b\n")
    blank.write_text("text\n")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    missing = tmp_path / "gone.csv"
    given = [str(path) for path in (empty, odd, table, blank, broken, missing)]
    lines = problem_of(given, TEXT).splitlines()
    assert lines[:4] == [
        f"{empty} contains no .txt files at any depth.",
        f"{odd} must be a text, or a file of texts with a known extension. Got a file. "
        "Known: '.txt', '.csv', '.tsv', '.json', '.jsonl', '.ndjson', '.parquet', '.xlsx'.",
        f"{table} must have exactly one possible text column. Got columns 'headline', 'summary'. "
        "Rename the column with the texts to 'text', or set --column text=NAME.",
        f"{blank} contains no rows.",
    ]
    assert lines[4].startswith(f"{broken} cannot be read as parquet. ArrowInvalid: ")
    assert lines[5:] == [f"{missing} does not exist."]


@pytest.mark.parametrize("modality", [TEXT, IMAGE])
@pytest.mark.parametrize("inputs", [[], [""], [" \n"]])
def test_nothing_to_predict(modality, inputs):
    assert problem_of(inputs, modality) == (
        "INPUT must be at least one file, folder or text, or - for standard input."
    )


def test_other_inputs_that_cannot_be_used(tmp_path):
    assert problem_of([str(tmp_path)], IMAGE) == f"{tmp_path} contains no images at any depth."
    table = tmp_path / "t.csv"
    table.write_text("headline,summary\na,b\n")
    assert problem_of([str(table)], TEXT, columns={"text": "sumary"}) == (
        f"{table} must have the column 'sumary', which is set for text. Nearest: 'summary'."
    )


@pytest.mark.parametrize("given", ["good film", "-"])
def test_a_model_of_pairs_is_given_no_single_texts(given):
    columns = {"text": "question", "text_pair": "other"}
    assert problem_of([given], TEXT, columns=columns, stdin=["good\n"]) == (
        f"{given} must be a table with the columns 'question' and 'other', because the model takes pairs of texts. "
        'Write each pair into a file such as pairs.jsonl as a line {"question": "...", "other": "..."}.'
    )

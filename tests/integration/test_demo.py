"""``hf-finetune demo`` of a whole run: examples from its test split, and the same answers in its Space."""

import shutil
from pathlib import Path

from forked_cli import forked_cli
from PIL import Image

from hf_finetune.evaluation.evaluate_run import load_labeled
from hf_finetune.evaluation.predictions import read_predictions
from hf_finetune.publishing.demo import MAX_EXAMPLES, prepare_page


def test_texts_of_the_test_split_are_the_examples(tmp_path, text_run):
    folder = text_run[1].folder
    page = prepare_page(folder, tmp_path)
    assert page.title == folder.name
    texts = load_labeled(folder, page.classifier)["text"]
    assert [example["text"] for example in page.examples] == list(texts)[:MAX_EXAMPLES]
    assert not page.pairs
    expected = read_predictions(folder / "predictions.parquet")
    for example, scores in zip(page.examples, expected.scores, strict=False):
        found = page.predict_one(example["text"]).scores
        assert [round(found[name], 5) for name in expected.label_names] == [round(each, 5) for each in scores]


def test_images_of_the_test_split_are_the_examples(tmp_path, image_run):
    page = prepare_page(image_run[1].folder, tmp_path)
    assert 0 < len(page.examples) <= MAX_EXAMPLES
    for example in page.examples:
        assert Path(example["image"]).parent == tmp_path
        with Image.open(example["image"]) as image:
            assert image.size == (40, 40)
    assert page.predict_one(page.examples[0]["image"]).label in page.classifier.label_names


def test_a_run_whose_data_is_gone_has_no_examples(tmp_path, text_run):
    run = shutil.copytree(text_run[1].folder, tmp_path / "run")
    recipe = run / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace(text_run[0].data.path, str(tmp_path / "gone.csv")), encoding="utf-8")
    (tmp_path / "page").mkdir()
    page = prepare_page(run, tmp_path / "page")
    assert page.examples == ()
    assert page.predict_one("good film").label in page.classifier.label_names


def test_the_command_writes_a_space(tmp_path, text_run):
    done = forked_cli("demo", text_run[1].folder, "--space", tmp_path / "space")
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.strip()
        == f"Wrote {tmp_path / 'space'}: it runs as a Space, or locally with python app.py."
    )
    assert (tmp_path / "space" / "model" / "model.safetensors").is_file()

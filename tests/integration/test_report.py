"""The report of a run: one self-contained file, in which text of the data is escaped."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from hf_finetune.cli.app import app
from hf_finetune.errors import InputError
from hf_finetune.report.page import write_report

SCRIPT = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Elements of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def reports(tmp_path_factory, image_run, text_run):
    """Return copies of an image run and a text run, with their reports."""
    folder = tmp_path_factory.mktemp("reports")
    for name, (_, done) in (("image", image_run), ("text", text_run)):
        shutil.copytree(done.folder, folder / name)
        write_report(folder / name)
    return folder


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_report_shows_the_results_of_the_run(reports, kind):
    text = (reports / kind / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    metrics = json.loads((reports / kind / "metrics.json").read_text(encoding="utf-8"))
    assert f"{metrics['test']['accuracy']:.3f}" in page.text
    low, high = metrics["test_interval"]["accuracy"]
    assert f"{low:.3f} to {high:.3f}" in page.text
    assert "for the linear probe (logistic regression)" in page.text
    assert next(attributes["id"] for attributes in page.all("h2")) == "stages"
    for stage in metrics["stages"]:
        assert f"{stage['trainable_parameters']:,}" in page.text


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_report_is_self_contained(reports, kind):
    text = (reports / kind / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.all("link") and not page.all("iframe")
    assert all("src" not in attributes for attributes in page.all("script"))
    assert all(attributes["src"].startswith("data:image/jpeg") for attributes in page.all("img"))
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert all(
        address.startswith(("http://www.w3.org/", "http://purl.org", "http://creativecommons"))
        for address in addresses
    )


@pytest.mark.parametrize("kind", ["image", "text"])
def test_ids_in_a_report_are_unique_and_figures_are_described(reports, kind):
    page = Page((reports / kind / "report.html").read_text(encoding="utf-8"))
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    pictures = page.all("svg")
    assert len(pictures) >= 3
    assert all(each["role"] == "img" and each["aria-label"] for each in pictures)
    assert all(attributes.get("alt") for attributes in page.all("img"))
    referred = {each["aria-labelledby"] for _, each in page.elements if "aria-labelledby" in each}
    assert referred <= set(names)


def test_figures_are_files_too(reports):
    names = {path.name for path in (reports / "image" / "figures").iterdir()}
    assert names == {"learning-curves.svg", "confusion-matrix.svg", "reliability.svg", "class-balance.svg"}


def test_a_report_is_the_same_when_it_is_rebuilt(reports, capsys):
    before = (reports / "image" / "report.html").read_bytes()
    app(["report", str(reports / "image")], standalone_mode=False)
    assert (reports / "image" / "report.html").read_bytes() == before
    assert "report.html" in capsys.readouterr().out


def test_text_of_the_data_stays_text(reports, tmp_path):
    folder = shutil.copytree(reports / "text", tmp_path / "run")
    mistakes = [{"id": SCRIPT, "label": SCRIPT, "prediction": "good", "confidence": 0.9, "text": SCRIPT}]
    (folder / "mistakes.json").write_text(json.dumps(mistakes), encoding="utf-8")
    data = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    data["notes"] = [SCRIPT]
    data["splits"]["train"]["classes"] = {SCRIPT: 3, "$a$ & b": 2}
    (folder / "data.json").write_text(json.dumps(data), encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["recipe"]["data"]["path"] = manifest["recipe"]["model"]["path"] = SCRIPT
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    text = write_report(folder).read_text(encoding="utf-8")
    assert SCRIPT not in text and "&lt;script&gt;alert(1)" in text
    assert len(Page(text).all("script")) == 1


def test_misclassified_examples_are_shown_with_their_images(reports, tmp_path):
    folder = shutil.copytree(reports / "image", tmp_path / "run")
    mistakes = json.loads((folder / "mistakes.json").read_text(encoding="utf-8"))
    wrong = 1 - json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["test"]["accuracy"]
    assert bool(mistakes) == (wrong > 0)
    assert all(each["image"].startswith("data:image/jpeg;base64,") for each in mistakes)
    confidences = [each["confidence"] for each in mistakes]
    assert confidences == sorted(confidences, reverse=True)


def test_an_unfinished_run_has_no_report(reports, tmp_path):
    with pytest.raises(InputError, match="must be a run directory"):
        write_report(tmp_path)
    folder = shutil.copytree(reports / "text", tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    (folder / "manifest.json").write_text(json.dumps({**manifest, "state": "running"}), encoding="utf-8")
    with pytest.raises(InputError, match=r"must be a finished run. Got running. Finish it: hf-finetune run"):
        write_report(folder)

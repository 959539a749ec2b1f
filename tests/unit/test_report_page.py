"""Content of a report for every kind of run; layout and behavior are tested in a browser."""

import base64
import hashlib
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from report_helpers import make_record

from hf_finetune.report.figures import class_balance, confused_classes, confusion_matrix, learning_curves
from hf_finetune.report.page import EMPTY_CELL, figures_of, render_report
from hf_finetune.report.tables import class_rows, confusion_rows, primary_metric_bars, stage_rows
from hf_finetune.report.verdict import calibration_verdict, verdict

pytestmark = pytest.mark.slow

SCRIPT = '</script><script>alert(1)</script>"><img src=x onerror=alert(2)>'
MANY = tuple(f"class {index:03d} of a long name that goes on" for index in range(200))


class Page(HTMLParser):
    """The text of a page, its elements, and the tables as lists of rows."""

    def __init__(self, record, *, figures=True):
        super().__init__()
        self.source = render_report(record, figures_of(record) if figures else [])
        self.text, self.elements, self.rows, self._inside = "", [], [], []
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"style", "script"} & set(self._inside):
            self.text += data
        if {"td", "th"} & set(self._inside):
            self.rows[-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def headings(self):
        return [attributes["id"] for attributes in self.all("h2")]


RECORDS = {
    "three": {},
    "many": {"names": MANY, "examples": 600},
    "right": {"skill": 50.0},
    "multi": {"target": "multi_label"},
    "amounts": {"target": "regression"},
    "untested": {"predictions": None, "mistakes": []},
}


@pytest.fixture(scope="module", params=RECORDS)
def page(request):
    options = dict(RECORDS[request.param])
    record = make_record(**options)
    if request.param == "untested":
        record.metrics.update(test={}, test_interval={}, baselines={}, test_calibration=None)
    return request.param, Page(record)


def test_each_kind_of_run_has_its_sections(page):
    kind, found = page
    everything = [
        "stages",
        "metrics",
        "confusion",
        "classes",
        "reliability",
        "mistakes",
        "data",
        "environment",
    ]
    lacking = {
        "three": set(),
        "many": set(),
        "right": {"mistakes"},
        "multi": {"confusion"},
        "amounts": {"confusion", "classes", "reliability"},
        "untested": {"metrics", "confusion", "classes", "reliability", "mistakes"},
    }[kind]
    assert found.headings() == [name for name in everything if name not in lacking]
    links = [attributes["href"].removeprefix("#") for attributes in found.all("a")]
    assert links == found.headings()


def test_no_page_shows_nan(page):
    _, found = page
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", found.text.split("The recipe, with")[0])


def test_ids_are_unique_and_references_exist(page):
    _, found = page
    names = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(names) == len(set(names))
    referred = {each["aria-labelledby"] for _, each in found.elements if "aria-labelledby" in each}
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", found.source))
    assert referred | used <= set(names)


def test_each_figure_has_a_name_and_a_caption(page):
    _, found = page
    drawn = found.all("svg")
    assert drawn and len(drawn) == len(found.all("figure")) == len(found.all("figcaption"))
    assert all(each["role"] == "img" and each["aria-label"] for each in drawn)


def test_the_only_script_is_the_one_that_the_page_allows(page):
    _, found = page
    (script,) = re.findall(r"<script>(.*?)</script>", found.source, re.DOTALL)
    (policy,) = [each["content"] for each in found.all("meta") if "http-equiv" in each]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


def test_everything_of_the_data_stays_text():
    record = make_record(names=(SCRIPT, "b & <i>", "$x$ c"), name=SCRIPT)
    record.mistakes[0].update(id=SCRIPT, text=SCRIPT)
    record.data["notes"].append(SCRIPT)
    record.recipe["data"]["path"] = SCRIPT
    record.metrics["stages"][0]["prefix_cache"]["used"] = False
    record.metrics["stages"][0]["prefix_cache"]["reason"] = SCRIPT
    found = Page(record)
    assert len(found.all("script")) == 1 and not found.all("img") and not found.all("i")
    assert found.text.count(SCRIPT) >= 5


def test_the_weakest_class_is_first_and_untested_ones_are_last():
    record = make_record(names=("cake", "soup", "tea", "never tested"))
    labels = np.where(record.predictions.labels == 3, 0, record.predictions.labels)
    record = replace(record, predictions=replace(record.predictions, labels=labels))
    record.data["splits"]["train"]["classes"]["never tested"] = 9
    found = Page(record, figures=False)
    start = next(index for index, row in enumerate(found.rows) if row[0] == "class")
    assert found.rows[start] == ["class", "F1", "precision", "recall", "test examples", "training examples"]
    rows = found.rows[start + 1 : start + 5]
    assert rows[-1] == ["never tested", EMPTY_CELL, EMPTY_CELL, EMPTY_CELL, "0", "9"]
    assert [row[1] for row in rows[:3]] == sorted(row[1] for row in rows[:3])


def test_thresholds_are_shown_class_by_class():
    record = make_record("multi_label")
    record.metrics["thresholds"] = {"cake": 0.31, "soup": 0.5, "tea": 0.62}
    rows = [row for row in Page(record, figures=False).rows if row and row[0] in ("class", "cake")]
    assert rows[0][4] == "threshold" and rows[1][4] == "0.310"
    (cake,) = [row for row in class_rows(record.predictions, record.data, record.rule) if row.name == "cake"]
    assert rows[1][1:4] == [f"{value:.3f}" for value in (cake.f1, cake.precision, cake.recall)]


def test_bars_are_drawn_for_shares_only():
    bars = primary_metric_bars(make_record())
    assert [bar.name for bar in bars] == [
        "this model",
        "majority-class baseline",
        "linear probe (logistic regression)",
    ]
    assert bars[0].interval[0] < bars[0].value < bars[0].interval[1]
    assert primary_metric_bars(make_record("regression")) == []
    undefined = make_record()
    undefined.metrics["test"]["accuracy"] = undefined.metrics["test_interval"]["accuracy"] = None
    assert primary_metric_bars(undefined) == []
    below = make_record(metric_names=("matthews",))
    below.metrics["test"]["matthews"], below.metrics["test_interval"]["matthews"] = 0.2, [-0.1, 0.4]
    assert primary_metric_bars(below) == []


def kept_tests(**found):
    """Return the paired tests of a run: for each baseline, difference, interval and verdict."""
    return {
        baseline: {"accuracy": {"difference": apart, "interval": ends, "p_value": 0.01, "verdict": word}}
        for baseline, (apart, ends, word) in found.items()
    }


def made_of(value, baseline, word, apart):
    record = make_record()
    record.metrics["test"]["accuracy"] = value
    record.metrics["test_interval"]["accuracy"] = [value - 0.08, value + 0.08]
    record.metrics["baselines"]["linear_probe"]["accuracy"] = baseline
    ends = [apart - 0.05, apart + 0.05]
    record.metrics["baseline_differences"] = kept_tests(
        majority=(value - 0.1, [0.2, 0.6], "above"), linear_probe=(apart, ends, word)
    )
    return verdict(record)


def test_a_verdict_is_better_worse_or_undecided():
    worse = made_of(0.589, 0.670, "below", -0.081)
    assert worse == (
        "On 240 test examples the accuracy is 0.589 (95 % confidence interval 0.509 to 0.669), compared with 0.100 "
        "for the majority-class baseline and 0.670 for the linear probe (logistic regression). On the same examples, "
        "the model's accuracy is above that of the majority-class baseline (difference +0.489, 95 % confidence "
        "interval +0.200 to +0.600) and below that of the linear probe (logistic regression) (difference -0.081, 95 % "
        "confidence interval -0.131 to -0.031). The simpler model is better here."
    )
    better = made_of(0.732, 0.661, "above", 0.071)
    assert "and above that of the linear probe (logistic regression) (difference +0.071" in better
    assert "simpler" not in better and "not shown" not in better
    alike = made_of(0.732, 0.725, "not distinguishable", 0.007)
    assert "and not distinguishable from that of the linear probe (logistic regression) (diff" in alike
    assert "simpler" not in alike and "but p is" not in alike
    by_few = made_of(0.667, 0.771, "not distinguishable", -0.104)
    assert "(difference -0.104, 95 % confidence interval -0.154 to -0.054, but p is 0.0100)." in by_few


def test_of_a_loss_above_is_worse():
    record = make_record(metric_names=("log_loss",))
    record.metrics["test"]["log_loss"], record.metrics["test_interval"]["log_loss"] = 0.9, [0.8, 1.0]
    record.metrics["baselines"] = {"majority": {"log_loss": 0.5}}
    found = {"difference": 0.4, "interval": [0.3, 0.5], "p_value": 0.01, "verdict": "above"}
    record.metrics["baseline_differences"] = {"majority": {"log_loss": found}}
    assert verdict(record).endswith(
        "the model's log_loss is above (worse than) that of the majority-class baseline (difference +0.400, 95 % "
        "confidence interval +0.300 to +0.500). The simpler model is better here."
    )


def test_a_run_of_a_version_without_baselines_is_reported():
    assert verdict(make_record()).endswith(
        "This run stored no predictions of its baselines, so the differences cannot be tested for significance."
    )


def test_groups_are_named_in_the_verdict_and_few_of_them_warned_of():
    record = make_record()
    record.metrics["baselines"] = {}
    record.metrics["test_groups"] = {"column": "patient", "groups": 30}
    assert re.search(r"\(95 % confidence interval .{14}, by groups of patient\)\.$", verdict(record))
    record.metrics["test_groups"]["groups"] = 9
    assert verdict(record).endswith(
        "There are only 9 groups of patient; intervals from so few groups are unreliable."
    )


def test_a_verdict_without_a_baseline_ends_as_a_sentence():
    record = make_record()
    record.metrics["baselines"]["majority"]["accuracy"] = None
    del record.metrics["baselines"]["linear_probe"]
    assert re.fullmatch(
        r"On 240 test examples the accuracy is 0\.\d{3} \(95 % confidence interval .*\)\.", verdict(record)
    )


def test_amounts_are_compared_with_another_regression():
    assert "0.300 for the linear probe (ridge regression)" in verdict(make_record("regression"))


def test_the_verdict_on_calibration_names_the_split_of_each_error():
    bins = [{"count": 10, "confidence": 0.5, "right": 0.65}]
    errors = {"before": {"ece": 0.201}, "after": {"ece": 0.155}}
    fitted = {"temperature": 0.75, "applied": None, "validation": errors}
    assert calibration_verdict({"test_calibration": {"ece": 0.154, "bins": bins}, "calibration": fitted}) == (
        "Probabilities are underconfident: the expected calibration error (ECE) on the test split is 0.154. A "
        "temperature of 0.75, fitted on the validation split, would reduce the ECE on that split from 0.201 to 0.155 "
        "(evaluation.calibrate: true)."
    )


def test_the_conditions_of_reproducibility_are_one_list():
    record = make_record()
    provided = {
        "versions": "as listed",
        "processes": 1,
        "processor": "AVX512",
        "threads": 2,
        "prefix_cache": "x",
    }
    record.manifest["determinism"] = {"bit_for_bit": True, "provided": provided, "obstacles": []}
    assert (
        "bit for bit with the same library versions, number of processes (1), type of processor (AVX512), number of "
        "threads (2), use of the prefix cache (in metrics.json, for each stage)"
    ) in Page(record, figures=False).text


def test_stages_follow_each_other_in_time():
    first, second = stage_rows(make_record())
    assert (first["start"], first["share"]) == (0.0, pytest.approx(1 / 3))
    assert (second["start"], second["share"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert second["train"] == "last:3, norms" and second["groups"] == 3


def test_the_best_checkpoint_is_counted_in_epochs_as_in_the_log():
    record = make_record()
    record.metrics["stages"][0]["start"] = {"accuracy": 0.25}
    text = re.sub(r"\s+", " ", Page(record, figures=False).text)
    assert re.search(r"accuracy 0\.\d{3} after epoch 1 \(0\.250 before training\)", text)
    assert re.search(r"accuracy 0\.\d{3} after epoch 2", text)


def test_rates_are_shown_as_in_the_recipe():
    record = make_record()
    record.recipe["stages"][0]["lr"] = {"head": 1e-2, "backbone": [1e-5, 1e-3]}
    text = re.sub(r"\s+", " ", Page(record, figures=False).text)
    assert "adamw, learning rate 0.01 for the head, 1e-05 (nearest the input) to 0.001 below it" in text
    assert (
        "adamw, learning rate 0.0001 at the head, multiplied by 0.9 for each of 2 layer groups below it"
        in text
    )
    assert "1 view of each example, 3.4 MB" in text
    assert "not used: the first layer is trained" in text


def letters(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")]


def test_few_classes_have_their_names_and_counts():
    labels, answers = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 2])
    drawn = confusion_matrix(labels, answers, ("cake", "soup", "tea"))
    assert {"cake", "soup", "tea", "1", "2"} <= set(letters(drawn.svg))
    assert "80.0% of 5 examples are correct" in drawn.caption
    assert confused_classes(labels, answers, ("cake", "soup", "tea")) is None


def test_of_many_classes_those_that_are_confused_have_names():
    record = make_record(names=MANY, examples=600)
    answers = record.predictions.labels.copy()
    answers[answers == 7] = 150
    whole = confusion_matrix(record.predictions.labels, answers, MANY)
    assert not any("class" in text for text in letters(whole.svg))
    confused = confused_classes(record.predictions.labels, answers, MANY)
    assert confused.title == "The 2 most confused classes"
    assert confused.caption.startswith("3 of the 3 errors are among these classes.")
    assert [text for text in letters(confused.svg) if text.isdigit()] == ["3", "3"]
    assert confused_classes(record.predictions.labels, record.predictions.labels, MANY) is None


def test_every_name_can_be_drawn():
    names = ("Müsli", "饺子", "пельмени", "$math_{", "a\nb", "\N{DUMPLING}", "x" * 300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = class_balance({name: index + 1 for index, name in enumerate(names)})
    found = letters(drawn.svg)
    assert {"Müsli", "饺子", "пельмени", "$math_{", "a b", "\N{DUMPLING}"} <= set(found)
    assert any(text.startswith("xxx") and len(text) == 24 for text in found)


def test_confusions_are_counted_by_pair():
    record = make_record()
    rows = confusion_rows(record.predictions)
    wrong = (record.predictions.scores.argmax(axis=1) != record.predictions.labels).sum()
    assert sum(count for _, _, count in rows) == wrong
    assert [count for _, _, count in rows] == sorted((count for _, _, count in rows), reverse=True)
    assert all(label != answer for label, answer, _ in rows)


def test_a_stage_without_steps_shares_its_title_with_the_next():
    stages = [{"name": name, "steps": steps} for name, steps in (("head", 0), ("some", 4), ("all", 4))]
    steps = [{"step": step, "loss": 1.0 / step} for step in range(1, 5)]
    picture = learning_curves(stages, [([], []), (steps, []), (steps, [])], "accuracy")
    titles = re.findall(r">([a-z, ]+)</text>", picture.svg)
    assert [title for title in titles if title in ("head, some", "all", "head", "some")] == [
        "head, some",
        "all",
    ]

"""``RUN/report.html``: one file that needs nothing else, and the figures as SVG files beside it."""

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from hf_finetune.evaluation.metrics import decide
from hf_finetune.files import replacing
from hf_finetune.recipe.head import POOLING_NAMES
from hf_finetune.recipe.yaml_text import write_yaml
from hf_finetune.report.compression import size_tables
from hf_finetune.report.domain_adaptation import domain_sentence
from hf_finetune.report.figures import (
    COLOURS,
    Picture,
    class_balance,
    confused_classes,
    confusion_matrix,
    learning_curves,
    reliability_curve,
)
from hf_finetune.report.run_record import RunRecord, read_run
from hf_finetune.report.slices import slice_tables, slices_verdict
from hf_finetune.report.tables import (
    ClassRow,
    class_rows,
    confusion_rows,
    headline_bars,
    metric_rows,
    stage_rows,
)
from hf_finetune.report.verdict import calibration_verdict, spread_verdict, verdict

__all__ = ["figures_of", "render_report", "write_report"]

FIGURES = "figures"
NONE = "\N{EN DASH}"
HEADS = {"majority": "ignoring the input", "linear_probe": "on frozen features"}
"""Of the columns of baselines, in the order of ``BASELINES``."""
PIXELS = 4 / 3
"""Of a page, for each point of a figure."""
SMALL = 720
"""Pixels up to which a figure is enlarged."""
LARGER, SMALLER = 1.3, 0.7
"""How much a figure is enlarged, and how far it may shrink before it is scrolled: its letters must stay readable."""
ROWS = 200
"""Classes up to which all stand in the table; of more, the weakest."""
PHONE = 358
"""Pixels of a phone's width that are left for a figure."""


@dataclass(frozen=True)
class Drawn:
    """A figure as a part of a page.

    Attributes:
        title: Above it.
        about: Below it.
        svg: The element.
        scrolls: Whether it is too wide for a phone.
    """

    title: str
    about: str
    svg: Markup
    scrolls: bool


def write_report(folder: Path) -> Path:
    """Write the report of a run, or write it anew; give its path.

    Raises:
        InputError: If the folder holds no run that is done.
    """
    record = read_run(folder)
    pictures = figures_of(record)
    (folder / FIGURES).mkdir(exist_ok=True)
    for each in pictures:
        with replacing(folder / FIGURES / f"{each.name}.svg") as partial:
            partial.write_text(each.svg, encoding="utf-8")
    with replacing(folder / "report.html") as partial:
        partial.write_text(render_report(record, pictures), encoding="utf-8")
    return folder / "report.html"


def figures_of(record: RunRecord) -> list[Picture]:
    """Draw the figures that a run has the numbers for."""
    logs = [(each.steps, each.evaluations) for each in record.logs]
    metric = record.headline[0] if record.headline else "loss"
    made = [learning_curves(record.metrics["stages"], logs, metric)]
    found = record.predictions
    if found is not None and found.target == "single_label":
        answers = (found.labels, decide(found.scores, found.target), found.label_names)
        made += [confusion_matrix(*answers), confused_classes(*answers)]
    calibration = record.metrics.get("test_calibration")
    if calibration:
        made.append(reliability_curve(calibration["bins"], calibration["ece"]))
    made.append(class_balance(record.data["splits"].get("train", {}).get("classes", {})))
    return [each for each in made if each is not None]


def render_report(record: RunRecord, pictures: Sequence[Picture]) -> str:
    """Write the page. All text of the data is escaped, and the browser is told to run no other script than the page's.

    Args:
        record: The run.
        pictures: Its figures.
    """
    environment = _environment()
    script = (Path(__file__).parent / "templates" / "page.js").read_text(encoding="utf-8")
    figures = {each.name: _drawn(each) for each in pictures}
    thresholds = record.metrics.get("thresholds")
    classes = class_rows(record.predictions, record.data, thresholds)
    baselines = [said for name, said in HEADS.items() if name in record.metrics.get("baselines", {})]
    metrics, sizes = metric_rows(record), size_tables(record.metrics)
    return environment.get_template("page.html").render(
        run=record,
        amounts=record.predictions is not None and record.predictions.target == "regression",
        verdict=verdict(record),
        bars=headline_bars(record),
        calibration=calibration_verdict(record.metrics),
        spread=spread_verdict(record.metrics, record.headline[0] if record.headline else ""),
        contents=_contents(record, bool(metrics), bool(classes), bool(sizes), figures),
        figures=figures,
        sizes=sizes,
        metrics=metrics,
        slices=slice_tables(record.metrics.get("slices", {})),
        worst=slices_verdict(record.metrics),
        baselines=baselines,
        domain=domain_sentence(record),
        stages=stage_rows(record),
        classes=sorted(classes, key=lambda row: (not row.test, row.f1))[:ROWS],
        class_count=len(classes),
        class_columns=_class_columns(classes, bool(thresholds)),
        thresholds=thresholds,
        confusions=confusion_rows(record.predictions),
        recipe=write_yaml(record.recipe),
        script=Markup(script),
        script_hash=_hash(script),
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hf_finetune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["poolings"] = POOLING_NAMES
    environment.filters.update(
        number=_number, duration=_duration, size=_size, said=_said, amount=lambda value: f"{value:g}"
    )
    return environment


def _contents(
    record: RunRecord, metrics: bool, classes: bool, sizes: bool, figures: dict[str, Drawn]
) -> list[tuple[str, str]]:
    """Give the name and the short title of each section that there is."""
    errors = record.predictions is not None and record.predictions.target == "regression"
    there = [
        ("stages", "Stages", True),
        ("metrics", "Metrics", metrics),
        ("slices", "Slices", bool(record.metrics.get("slices"))),
        ("confusion", "Confusions", bool({"confusion-matrix", "confused-classes"} & figures.keys())),
        ("classes", "Classes", classes),
        ("reliability", "Probabilities", "reliability" in figures),
        ("sizes", "Size", sizes),
        ("mistakes", "Errors" if errors else "Mistakes", bool(record.mistakes)),
        ("data", "Data", True),
        ("environment", "Environment", True),
    ]
    return [(name, title) for name, title, held in there if held]


def _class_columns(classes: Sequence[ClassRow], thresholds: bool) -> list[str]:
    """Name the columns of numbers. The classes of a run are all known to its training split, or none is."""
    train = ["training examples"] if classes and classes[0].train is not None else []
    chosen = ["threshold"] if thresholds else []
    return ["F1", "precision", "recall", *chosen, "test examples", *train]


def _hash(script: str) -> str:
    """Name a script as a content security policy does."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _number(value: float | None, digits: int = 3) -> str:
    """Write a number with so many decimals, or as many digits if it is less than that."""
    if value is None or not math.isfinite(value):
        return NONE
    small = 0 < abs(value) < 0.5 * 10**-digits
    return f"{value:.1e}" if small else f"{value:,.{digits}f}"


def _said(label: str | float | Sequence[str]) -> str:
    """Write a label or an answer: a class, an amount, or the classes that hold."""
    if isinstance(label, int | float):
        return f"{label:.6g}"
    return label if isinstance(label, str) else ", ".join(label) or "none"


def _duration(seconds: float) -> str:
    """Write a time in the two largest of its units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _size(count: int) -> str:
    """Write a number of bytes."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def _drawn(picture: Picture) -> Drawn:
    """Make a figure part of a page: in the page's colours, with names of its own, and words for who cannot see it."""
    text = re.sub(r'\b(id|xlink:href|href)="(#?)', rf'\1="\2{picture.name}-', picture.svg)
    text = text.replace("url(#", f"url(#{picture.name}-")
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var({name})")
    head, rest = text.split(">", 1)
    width = PIXELS * float(re.search(r'viewBox="0 0 ([\d.]+)', head)[1])  # type: ignore[index]
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    scrolls = SMALLER * width > PHONE
    least = f"; min-width: {SMALLER * width:.0f}px" if scrolls else ""
    style = f"width: {width * (LARGER if width <= SMALL else 1):.0f}px{least}"
    svg = Markup(f'{head} role="img" aria-label="{escape(picture.title)}" style="{style}">{rest}')
    return Drawn(picture.title, picture.about, svg, scrolls)

"""Self-contained HTML report (``RUN/report.html``), with the figures as SVG files in a folder next to it."""

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
from hf_finetune.files import atomic_file
from hf_finetune.recipe.head import POOLING_DESCRIPTIONS
from hf_finetune.recipe.yaml_text import write_yaml
from hf_finetune.report.compression import size_tables
from hf_finetune.report.domain_adaptation import domain_sentence
from hf_finetune.report.figures import (
    COLORS,
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
    metric_rows,
    primary_metric_bars,
    stage_rows,
)
from hf_finetune.report.verdict import (
    BASELINES,
    baseline_name,
    calibration_verdict,
    cross_validation_sentence,
    verdict,
)
from hf_finetune.targets import TARGETS

__all__ = ["figures_of", "render_report", "write_report"]

FIGURES_FOLDER = "figures"
EMPTY_CELL = "\N{EN DASH}"
PIXELS = 4 / 3
"""CSS pixels per point of a figure."""
MAX_ENLARGED_WIDTH = 720
"""Maximum width of a figure that is enlarged, in pixels."""
MAX_SCALE = 1.3
MIN_SCALE = 0.7
"""Scale below which the text of a figure is not readable, so that the figure scrolls instead."""
MAX_CLASS_ROWS = 200
"""Maximum number of classes in the table; if there are more, those with the lowest F1 are listed."""
PHONE_WIDTH = 358
"""Width available for a figure on a phone, in pixels."""


@dataclass(frozen=True)
class EmbeddedFigure:
    """Figure prepared for embedding in the page.

    Attributes:
        title: Title above the figure.
        caption: Description below the figure.
        svg: SVG element.
        scrolls: Whether the figure is too wide for a phone, and scrolls there.
    """

    title: str
    caption: str
    svg: Markup
    scrolls: bool


def write_report(folder: Path) -> Path:
    """Write the report of a finished run, replacing an earlier one.

    Args:
        folder: Run directory.

    Returns:
        Path of the report.

    Raises:
        InputError: If the folder is not a finished run.
    """
    record = read_run(folder)
    pictures = figures_of(record)
    (folder / FIGURES_FOLDER).mkdir(exist_ok=True)
    for picture in pictures:
        with atomic_file(folder / FIGURES_FOLDER / f"{picture.name}.svg") as partial:
            partial.write_text(picture.svg, encoding="utf-8")
    with atomic_file(folder / "report.html") as partial:
        partial.write_text(render_report(record, pictures), encoding="utf-8")
    return folder / "report.html"


def figures_of(record: RunRecord) -> list[Picture]:
    """Return all figures for which the run has data."""
    logs = [(item.steps, item.evaluations) for item in record.logs]
    metric = record.metric_names[0] if record.metric_names else "loss"
    figures = [learning_curves(record.metrics["stages"], logs, metric)]
    predictions = record.predictions
    if predictions is not None and TARGETS[predictions.target].is_exclusive:
        decisions = decide(predictions.scores, predictions.target)
        answers = (predictions.labels, decisions, predictions.label_names)
        figures += [confusion_matrix(*answers), confused_classes(*answers)]
    calibration = record.metrics.get("test_calibration")
    if calibration:
        figures.append(reliability_curve(calibration["bins"], calibration["ece"]))
    figures.append(class_balance(record.data["splits"].get("train", {}).get("classes", {})))
    return [item for item in figures if item is not None]


def render_report(record: RunRecord, pictures: Sequence[Picture]) -> str:
    """Return the HTML of the report.

    All text from the data is escaped, and the content security policy allows no script other than the page's own.

    Args:
        record: Finished run.
        pictures: Figures of the run.
    """
    script = (Path(__file__).parent / "templates" / "page.js").read_text(encoding="utf-8")
    figures = {picture.name: _embed(picture) for picture in pictures}
    thresholds = record.metrics.get("thresholds")
    classes = class_rows(record.predictions, record.data, record.rule)
    target = record.predictions.target if record.predictions is not None else None
    known = record.metrics.get("baselines", {})
    baselines = [baseline_name(name, target) for name in BASELINES if name in known]
    metrics, sizes = metric_rows(record), size_tables(record.metrics)
    template = _environment().get_template("page.html")
    return template.render(
        run=record,
        mistakes_title=_mistakes_title(target),
        has_confidence=_has_confidence(target),
        verdict=verdict(record),
        bars=primary_metric_bars(record),
        calibration=calibration_verdict(record.metrics),
        fold_sentence=cross_validation_sentence(
            record.metrics, record.metric_names[0] if record.metric_names else ""
        ),
        contents=_contents(
            record, bool(metrics), bool(classes), bool(sizes), figures, _mistakes_title(target)
        ),
        figures=figures,
        sizes=sizes,
        metrics=metrics,
        slices=slice_tables(record.metrics.get("slices", {})),
        slice_sentences=slices_verdict(record.metrics),
        baselines=baselines,
        domain_sentence=domain_sentence(record),
        stages=stage_rows(record),
        classes=sorted(classes, key=lambda row: (not row.test, row.f1))[:MAX_CLASS_ROWS],
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
    environment.globals["poolings"] = POOLING_DESCRIPTIONS
    environment.filters.update(
        number=_number,
        duration=_duration,
        size=_size,
        label_text=_label_text,
        number_g=lambda value: f"{value:g}",
    )
    return environment


def _has_confidence(target: str | None) -> bool:
    """Return whether a decision has a confidence; without classes, it has an error instead."""
    return target is None or TARGETS[target].has_classes


def _mistakes_title(target: str | None) -> str:
    return "Most confident errors" if _has_confidence(target) else "Largest errors"


def _contents(
    record: RunRecord,
    metrics: bool,
    classes: bool,
    sizes: bool,
    figures: dict[str, EmbeddedFigure],
    mistakes_title: str,
) -> list[tuple[str, str]]:
    """Return the table of contents: the anchor and title of each section that the report has."""
    sections = [
        ("stages", "Stages", True),
        ("search", "Search", bool(record.search)),
        ("metrics", "Test metrics", metrics),
        ("slices", "Slices", bool(record.metrics.get("slices"))),
        ("confusion", "Confusion matrix", bool({"confusion-matrix", "confused-classes"} & figures.keys())),
        ("classes", "Classes", classes),
        ("reliability", "Calibration", "reliability" in figures),
        ("sizes", "Size and speed", sizes),
        ("mistakes", mistakes_title, bool(record.mistakes)),
        ("data", "Data", True),
        ("environment", "Environment", True),
    ]
    return [(name, title) for name, title, present in sections if present]


def _class_columns(classes: Sequence[ClassRow], thresholds: bool) -> list[str]:
    """Return the headings of the numeric columns of the class table.

    Checking the first class for its number of training examples is enough: it is known for all classes or for none.
    """
    train = ["training examples"] if classes and classes[0].train is not None else []
    chosen = ["threshold"] if thresholds else []
    return ["F1", "precision", "recall", *chosen, "test examples", *train]


def _hash(script: str) -> str:
    """Return the SHA-256 hash of a script in the form of a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _number(value: float | None, digits: int = 3) -> str:
    """Format a number with ``digits`` decimals, or in scientific notation if it would be rounded to 0."""
    if value is None or not math.isfinite(value):
        return EMPTY_CELL
    small = 0 < abs(value) < 0.5 * 10**-digits
    return f"{value:.1e}" if small else f"{value:,.{digits}f}"


def _label_text(label: str | float | Sequence[str | float]) -> str:
    """Format a label or a prediction: a class, a number, or a list of them."""
    if isinstance(label, int | float):
        return f"{label:.6g}"
    return label if isinstance(label, str) else ", ".join(map(_label_text, label)) or "none"


def _duration(seconds: float) -> str:
    """Format a duration in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, remainder = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {remainder} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _size(count: int) -> str:
    """Format a number of bytes in decimal units."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def _embed(picture: Picture) -> EmbeddedFigure:
    """Prepare a figure for embedding: use the page's colors, make its ids unique, and label it for screen readers."""
    text = re.sub(r'\b(id|xlink:href|href)="(#?)', rf'\1="\2{picture.name}-', picture.svg)
    text = text.replace("url(#", f"url(#{picture.name}-")
    for name, color in COLORS.items():
        text = text.replace(color, f"var({name})")
    start_tag, body = text.split(">", 1)
    width = PIXELS * float(re.search(r'viewBox="0 0 ([\d.]+)', start_tag)[1])  # type: ignore[index]
    start_tag = re.sub(r'\s(width|height)="[^"]*"', "", start_tag)
    scrolls = MIN_SCALE * width > PHONE_WIDTH
    least = f"; min-width: {MIN_SCALE * width:.0f}px" if scrolls else ""
    style = f"width: {width * (MAX_SCALE if width <= MAX_ENLARGED_WIDTH else 1):.0f}px{least}"
    svg = Markup(f'{start_tag} role="img" aria-label="{escape(picture.title)}" style="{style}">{body}')
    return EmbeddedFigure(picture.title, picture.caption, svg, scrolls)

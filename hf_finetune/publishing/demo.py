"""Local web page to try a model: classify one example, or many files into a table."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from hf_finetune.data.input_columns import takes_pairs
from hf_finetune.errors import InputError, Problem
from hf_finetune.evaluation.classifier import Classifier, resolve_model_dir
from hf_finetune.evaluation.evaluate import model_examples
from hf_finetune.evaluation.evaluate_run import load_labeled
from hf_finetune.evaluation.example_reading import PredictionInputs, read_example, read_file
from hf_finetune.evaluation.finished import find_run, find_run_recipe, load_finished, training_columns
from hf_finetune.evaluation.predict import Prediction, PredictionStream, predict
from hf_finetune.evaluation.prediction_writers import open_output
from hf_finetune.publishing.optional_packages import require_extra
from hf_finetune.targets import TARGETS
from hf_finetune.tasks import Modality

__all__ = ["Page", "build_page", "prepare_page", "serve"]

logger = logging.getLogger(__name__)

MAX_EXAMPLES = 8
"""Maximum number of test examples on the page."""
MAX_CLASSES = 10
"""Maximum number of classes that are shown for one prediction."""
TABLE_FILE = "predictions.csv"

Example = dict[str, str]


@dataclass(frozen=True)
class Page:
    """State and actions of the demo page, independent of gradio.

    Attributes:
        title: Name of the model.
        classifier: Model to try.
        pairs: Whether examples have the optional column, such as a second text.
        examples: Examples to choose from, by column: texts, or paths of files.
        folder: Folder for files and tables while the page is open.
    """

    title: str
    classifier: Classifier
    pairs: bool
    examples: tuple[Example, ...]
    folder: Path

    @property
    def modality(self) -> Modality:
        """Kind of input."""
        return self.classifier.modality

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of an example."""
        return self.modality.columns if self.pairs else self.modality.columns[:1]

    def predict_one(self, *values: str | None) -> Prediction:
        """Return the prediction for one example; for an unreadable example, its ``error`` is set.

        Args:
            values: Path of a file or a text, for each column. None if the field is empty.
        """
        if self.modality.opens_files:
            item = read_file(self.modality, "", Path(values[0]) if values[0] else None)
        else:
            cells = {name: value or "" for name, value in zip(self.columns, values, strict=True)}
            item = read_example(self.modality, "", cells)
        (prediction,) = PredictionStream(self.classifier, PredictionInputs(iter([item]), 1))
        return prediction

    def predict_files(self, files: Sequence[str | Path]) -> tuple[Path, int, int]:
        """Predict files, or texts in csv, jsonl, parquet and txt files, and write a table of the predictions.

        Args:
            files: Paths of the files. The row of an example that cannot be read contains the error.

        Returns:
            Path of the csv file, number of its rows, and number of rows with an error.

        Raises:
            InputError: If there are no files.
        """
        if not files:
            raise InputError(Problem("Files", "must be chosen first"))
        path = Path(tempfile.mkdtemp(dir=self.folder)) / TABLE_FILE
        rows = failed = 0
        with open_output(path, self.classifier.target, self.classifier.label_names) as write:
            for prediction in self._predictions(files):
                rows += 1
                failed += prediction.error is not None
                write(prediction)
        return path, rows, failed

    def _predictions(self, files: Sequence[str | Path]) -> Iterator[Prediction]:
        if self.modality.opens_files:  # a table could name any file on this machine, so no table is read
            paths = [Path(file) for file in files]
            items = (read_file(self.modality, path.name, path) for path in paths)
            yield from PredictionStream(self.classifier, PredictionInputs(items, len(paths)))
            return
        for file in files:
            # gradio puts each upload into a temporary folder; its name means nothing to the user.
            folder = f"{Path(file).parent}{os.sep}"
            try:
                for prediction in predict(self.classifier, [str(file)]):
                    yield replace(prediction, id=prediction.id.removeprefix(folder))
            except InputError as error:
                yield Prediction(Path(file).name, error=str(error).replace(folder, ""))


def prepare_page(model_or_run: str | Path, folder: Path, *, trust_remote_code: bool = False) -> Page:
    """Load a model, and examples from the test split of its run where that data is available.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.
        folder: Folder for files and tables while the page is open.
        trust_remote_code: Whether code next to the weights may run.

    Returns:
        State of the demo page.

    Raises:
        InputError: If the model cannot be loaded.
    """
    recipe = find_run_recipe(model_or_run)
    classifier = load_finished(model_or_run, trust_remote_code=trust_remote_code)
    examples: tuple[Example, ...] = ()
    if recipe is not None:
        try:
            dataset = load_labeled(model_or_run, classifier)
            examples = tuple(
                classifier.modality.demo_values(example, folder / f"example-{number}")
                for number, example in enumerate(model_examples(dataset, MAX_EXAMPLES))
            )
        except InputError as error:
            logger.info("The page has no examples. %s", error)
    columns = training_columns(model_or_run, classifier)
    classifier = replace(classifier, columns=columns)
    title = (find_run(model_or_run) or Path(resolve_model_dir(model_or_run))).absolute().name
    pairs = bool(takes_pairs(columns)) or any(len(example) > 1 for example in examples)
    return Page(title, classifier, pairs, examples, folder)


def serve(
    model_or_run: str | Path, *, port: int, on_ready: Callable[[str], None], trust_remote_code: bool = False
) -> None:
    """Serve the page on this machine only, until Ctrl-C.

    Args:
        model_or_run: Run directory, checkpoint folder or Hub id.
        port: Port to serve on; 0 picks a free one.
        on_ready: Function that is called with the address once the page can be opened.
        trust_remote_code: Whether code next to the weights may run.

    Raises:
        InputError: If gradio is missing, the model cannot be loaded, or the port is in use.
    """
    require_extra("demo", "hf-finetune demo")
    with tempfile.TemporaryDirectory(prefix="hf-finetune-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # otherwise uploads would stay on the disk
        page = prepare_page(model_or_run, Path(folder), trust_remote_code=trust_remote_code)
        app = build_page(page)
        try:
            _, address, _ = app.launch(
                server_name="127.0.0.1",
                server_port=port or None,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                allowed_paths=[folder],
                theme=_theme(),
                footer_links=[],
            )
        except OSError as error:
            repair = "Choose another port, or 0 to pick a free one."
            raise InputError(Problem("--port", "must be a free port", str(port), repair)) from error
        on_ready(address)
        try:
            app.block_thread()
        finally:
            app.close()


def build_page(page: Page) -> Any:
    """Build the gradio page, with one tab for a single example and one for many.

    Returns:
        The ``gradio.Blocks`` of the page, not yet launched.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio

    with gradio.Blocks(title=page.title, analytics_enabled=False) as app:
        gradio.HTML(f"<h1>{escape(page.title)}</h1><p>{escape(_about(page))}</p>")
        with gradio.Tab(f"One {page.modality.file_noun}"):
            _build_single_tab(gradio, page)
        with gradio.Tab("Several files"):
            _build_files_tab(gradio, page)
    return app


def _about(page: Page) -> str:
    """Return the introduction of the page: what the model predicts, and that the data stays on this machine."""
    modality = page.modality
    subject = f"a pair of {modality.plural}" if page.pairs else f"a {modality.file_noun}"
    classes = f"{len(page.classifier.label_names):,} classes"
    does = TARGETS[page.classifier.target].summary(subject, classes)
    return f"This model {does}. Nothing leaves this machine."


def _build_single_tab(gradio: Any, page: Page) -> None:
    has_classes = TARGETS[page.classifier.target].has_classes
    with gradio.Row():
        with gradio.Column():
            fields = page.modality.demo_components(gradio, pair=page.pairs)
            button = gradio.Button("Classify", variant="primary")
        with gradio.Column():
            if has_classes:
                top = min(MAX_CLASSES, len(page.classifier.label_names))
                answer = gradio.Label(label="Probabilities", num_top_classes=top)
            else:
                answer = gradio.Textbox(label="Prediction", interactive=False)

    def classify(*values: Any) -> Any:
        prediction = page.predict_one(*values)
        if prediction.error is not None:
            raise gradio.Error(prediction.error)
        return dict(prediction.scores) if has_classes else str(prediction.label)

    button.click(classify, fields, answer)
    if page.examples:
        rows = [[example.get(name, "") for name in page.columns] for example in page.examples]
        label = "Examples of the test split; click one"
        gradio.Examples(rows, fields, answer, classify, label=label, run_on_click=True, cache_examples=False)


def _build_files_tab(gradio: Any, page: Page) -> None:
    modality = page.modality
    kinds, label = [modality.name], modality.plural_files.capitalize()  # gradio has kinds of these names
    if not modality.opens_files:
        kinds = [".csv", ".jsonl", ".json", ".parquet", ".txt"]
        label = (
            f"Tables with a column of {modality.plural}, or .txt files with {modality.article} in each line"
        )
    with gradio.Row():
        with gradio.Column():
            files = gradio.File(label=label, file_count="multiple", type="filepath", file_types=kinds)
            button = gradio.Button("Classify all", variant="primary")
        with gradio.Column():
            table = gradio.File(label="Predictions, a row for each example", interactive=False)
            status = gradio.Textbox(label="Done", interactive=False)

    def classify(paths: list[str] | None) -> tuple[str, str]:
        try:
            path, rows, failed = page.predict_files(paths or [])
        except InputError as error:
            raise gradio.Error(str(error)) from error
        unread = f"; {failed:,} could not be read" if failed else ""
        return f"{rows:,} rows{unread}", str(path)

    button.click(classify, files, [status, table])


def _theme() -> Any:
    """Return a theme with the system's fonts; the default fonts of gradio are loaded from another server."""
    import gradio

    return gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])

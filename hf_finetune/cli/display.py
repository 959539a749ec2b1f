"""Progress bars, log lines and results of a run on the command line."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime
from glob import escape
from io import TextIOWrapper
from math import floor
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hf_finetune.errors import InputError, Problem, format_seconds

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from hf_finetune.runs.run import RunResult

__all__ = [
    "RunDisplay",
    "StageClock",
    "counting_bar",
    "default_run_folder",
    "quiet_hub",
    "quiet_libraries",
    "use_utf8",
]

LINE_SECONDS = 30.0
"""Interval in seconds at which progress within an epoch is logged if nothing else is."""


def use_utf8() -> None:
    """Use UTF-8 for standard streams that are files or pipes, whatever the locale.

    A terminal keeps its encoding; a character that it cannot encode is written as an escape, so no output is lost.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if not isinstance(stream, TextIOWrapper):
            continue
        if not stream.isatty():
            stream.reconfigure(encoding="utf-8")
        if stream is not sys.stdin:
            stream.reconfigure(errors="backslashreplace")


def quiet_libraries(console: Console) -> None:
    """Show the log lines of this package, and only errors of other libraries; hide their progress bars."""
    quiet_hub(console)
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    _quiet_datasets()


def _quiet_datasets() -> None:
    """Silence datasets, which also logs the exceptions that it raises. It reads the variables when it is imported."""
    if "datasets" not in sys.modules:
        os.environ.setdefault("DATASETS_VERBOSITY", "critical")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        return
    import datasets

    datasets.utils.logging.set_verbosity(logging.CRITICAL)
    datasets.disable_progress_bars()


def quiet_hub(console: Console) -> None:
    """Show the log lines of this package; from the Hub client, only errors and one line if the Hub does not respond."""
    package_logger = logging.getLogger("hf_finetune")
    package_logger.handlers, package_logger.propagate = [_log_handler(console)], False
    package_logger.setLevel(logging.INFO if _rank() == 0 else logging.ERROR)
    logging.getLogger("httpx").setLevel(logging.ERROR)
    from huggingface_hub.utils.logging import get_logger

    hub_logger = get_logger()  # it has set a handler, which is replaced
    handler = _log_handler(console)
    handler.addFilter(_RetryFilter())
    hub_logger.handlers, hub_logger.propagate = [handler], False


class _RetryFilter(logging.Filter):
    """Log filter that reports once that the Hub does not respond; huggingface_hub reports every retry."""

    def __init__(self) -> None:
        super().__init__()
        self.has_reported = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return True
        if self.has_reported or "Retrying" not in record.getMessage():
            return False
        self.has_reported = True
        record.msg, record.args = "The Hugging Face Hub does not respond; retrying for half a minute.", ()
        return True


def _log_handler(console: Console) -> logging.Handler:
    """Return a handler that writes above the bars on a terminal, and unwrapped plain lines elsewhere (a job's log)."""
    if console.is_terminal:
        return RichHandler(console=console, show_time=False, show_level=False, show_path=False, markup=False)
    return _PlainHandler(console)


class _PlainHandler(logging.Handler):
    """Log handler that prints through a console, so that a later redirection of its output is respected."""

    def __init__(self, console: Console):
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(self.format(record), markup=False)


_MARKERS = {"auto": "search/request.json", "tune": "search.json"}
"""File by which the folder of a command is recognized; others are those of ``run``."""


def default_run_folder(recipe: str, resume: bool, command: str = "run") -> Path | None:
    """Return the default run directory: a new ``runs/RECIPE-DATE``, or the newest existing one to resume.

    Args:
        recipe: Path or name of the recipe.
        resume: Whether to resume a run.
        command: Command whose folder is resumed: ``run``, ``tune`` or ``auto``.

    Returns:
        Run directory. None for a new run on several processes: its folder is named later, so that all processes use the
        same name.

    Raises:
        InputError: If there is no run to resume.
    """
    stem = Path(recipe).stem
    if resume:
        folders = sorted(Path("runs").glob(f"{escape(stem)}-????????-??????"))
        run_folders = [folder for folder in folders if _command_of(folder) == command]
        if not run_folders:
            rule = f"found no run of {stem} in runs/"
            raise InputError(Problem("--resume", rule, "", "Add --output-dir RUN."))
        return run_folders[-1]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return None
    return Path("runs") / f"{stem}-{datetime.now():%Y%m%d-%H%M%S}"


def _command_of(folder: Path) -> str:
    """Return the command that created a folder; the final run of ``auto`` is in its folder, too."""
    return next((name for name, marker in _MARKERS.items() if (folder / marker).exists()), "run")


class RunDisplay:
    """Progress bar and log lines of a run. Silent on all processes but the main one.

    Args:
        console: Console to print to.
        folder: Run directory, for the line that is printed after Ctrl-C.
    """

    def __init__(self, console: Console, folder: Path | None):
        self.console, self.folder, self.is_main = console, folder, _rank() == 0
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeElapsedColumn(),
            TextColumn("remaining"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (self.is_main and console.is_terminal),
        )
        self.evaluation: Any = None

    def __enter__(self) -> "RunDisplay":
        with self.console.status("Loading libraries") if self.console.is_terminal else nullcontext():
            quiet_libraries(self.console)
        self.bar.start()
        self.callback = _make_callback(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self.bar.stop()
        if kind is None or not issubclass(kind, KeyboardInterrupt) or not self.is_main:
            return
        if self.folder is None or not (self.folder / "manifest.json").is_file():
            self.console.print("[bold]Stopped[/] before anything was written.")
        else:
            saved = "[bold]Stopped; the state is saved.[/]"
            self.console.print(f"{saved} To resume, repeat the command with", end=" ")
            self.console.print(f"--output-dir {self.folder} --resume", markup=False)

    def update_evaluation(self, done: int) -> None:
        """Update the bar with the number of test examples predicted so far."""
        if self.evaluation is None:
            self.evaluation = self.bar.add_task("test", total=None, metrics="")
        self.bar.update(self.evaluation, completed=done)

    def print_result(self, console: Console, result: "RunResult") -> None:
        """Print the final lines: the metrics of the model and its baselines, and the paths of all outputs."""
        from hf_finetune.report.verdict import BASELINES, baseline_name

        test, baselines = result.metrics["test"], result.metrics["baselines"]
        if test:
            primary = {name: test.get(name) for name in result.primary_metrics}
            references = [
                f"{baseline_name(name, result.metrics.get('target'))}: {_line(baselines[name])}"
                for name in BASELINES
                if name in baselines
            ]
            compared = f"   ({'; '.join(references)})" if references else ""
            console.print(f"Test: {_line(primary)}{compared}", markup=False)
            for sentence in _baseline_sentences(result):
                console.print(sentence, markup=False)
        else:
            console.print("There is no test split, so performance on new data is unknown.")
        for name, values in result.metrics.get("cross_validation", {}).get("metrics", {}).items():
            if name in result.primary_metrics and values["mean"] is not None:
                folds = result.metrics["cross_validation"]["folds"]
                deviation = f", standard deviation {values['std']:.4f}" if values["std"] is not None else ""
                mean = f"{name} {values['mean']:.4f}{deviation}"
                console.print(f"Cross-validation, {folds} folds: {mean}", markup=False)
        console.print(f"{_loading_hint(result)} All results are in {result.folder}.", markup=False)
        console.print(f"Report: {result.folder / 'report.html'}", markup=False, soft_wrap=True)


def _loading_hint(result: "RunResult") -> str:
    """Return a sentence on how to load the model of a run, or the models of its tasks."""
    from hf_finetune.tasks import TASKS

    path = f"{result.folder}/model"
    if not (result.folder / "model").exists():
        return f"See {result.folder}/adapter/README.md for loading the adapter with peft."
    if tasks := result.metrics.get("tasks"):
        pipes = [TASKS[task["task"]].loading_code(f"{path}/{name}") for name, task in tasks.items()]
        return f"Load the models with {' and '.join(pipes)}."
    trusted = ", trust_remote_code=True" if any((result.folder / "model").glob("*.py")) else ""
    return f"Load the model with {TASKS[result.metrics['task']].loading_code(path, trusted)}."


@contextmanager
def counting_bar(console: Console, title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar, and yield a function that sets the number of examples done.

    Args:
        console: Console to print to.
        title: Text before the bar.
        total: Number of examples; None if it is unknown.
    """
    title_column = TextColumn("{task.description}")
    columns = (SpinnerColumn(), title_column, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.update(task, completed=done)


class StageClock:
    """Progress lines of a stage for output without a bar: mean loss of the epoch, learning rate and time left.

    Args:
        stage: Name of the stage.
        steps: Number of optimizer steps of the stage.
        done: Number of optimizer steps that were done before an interruption.
        now: Clock that returns the time in seconds.
    """

    def __init__(self, stage: str, steps: int, done: int = 0, now: Callable[[], float] = perf_counter):
        self.stage, self.steps, self.begun_at, self.now = stage, steps, done, now
        self.started = self.last_line = now()
        self.losses: list[float] = []

    def line(self, epoch: float, epochs: float, step: int, rate: float | None) -> str:
        """Return the current progress line.

        The loss is the mean over the steps of the epoch so far: the last step of an epoch alone, whose batch can be
        small, would look like a jump.

        Args:
            epoch: Epochs done, with fraction.
            epochs: Number of epochs of the stage.
            step: Number of optimizer steps done.
            rate: Learning rate; None leaves it out.
        """
        loss = f"mean loss of this epoch {fmean(self.losses):.4f}" if self.losses else ""
        rates = f"learning rate {rate:.2g}" if rate is not None else ""
        if float(epoch).is_integer():
            self.losses = []
        self.last_line = self.now()
        return f"{self.position(epoch, epochs)}: {', '.join(filter(None, (loss, rates, self._left(step))))}."

    def position(self, epoch: float, epochs: float) -> str:
        """Return the start of a line: the stage, and the epochs done.

        Args:
            epoch: Epochs done, with fraction.
            epochs: Number of epochs of the stage.
        """
        done = f"epoch {floor(100 * epoch) / 100:g} of {epochs:.4g}" if epoch else "before training"
        return f"Stage {self.stage}, {done}"

    def is_due(self) -> bool:
        """Return whether ``LINE_SECONDS`` have passed since the last line."""
        return self.now() - self.last_line >= LINE_SECONDS

    def _left(self, step: int) -> str:
        done = step - self.begun_at
        seconds = (self.now() - self.started) / done * (self.steps - step) if done else 0.0
        return f"about {format_seconds(seconds)} left" if step < self.steps and done else ""


def _make_callback(display: RunDisplay) -> "TrainerCallback":
    from transformers import TrainerCallback

    log = logging.getLogger("hf_finetune")

    class ProgressCallback(TrainerCallback):
        """Trainer callback that moves the bar at every step, and logs the loss and the metrics of each epoch."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            folder = Path(args.output_dir).name
            self.clock = StageClock(folder.partition("-")[2] or folder, state.max_steps, state.global_step)
            self.task = display.bar.add_task(
                folder, total=state.max_steps, completed=state.global_step, metrics=""
            )

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            display.bar.update(self.task, completed=state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" not in logs:
                return
            self.clock.losses.append(logs["loss"])
            display.bar.update(self.task, metrics=f"loss {logs['loss']:.3f}")
            ends = float(state.epoch or 0.0).is_integer() or state.global_step >= state.max_steps
            due = ends or (self.clock.is_due() and not display.console.is_terminal)
            if due and not (ends and args.eval_strategy != "no"):  # on_evaluate logs the epoch
                rate = logs.get("learning_rate")
                log.info(self.clock.line(state.epoch, state.num_train_epochs, state.global_step, rate))

        def on_evaluate(
            self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
        ) -> None:
            skipped = ("runtime", "samples_per_second", "steps_per_second")
            shown = {k.removeprefix("eval_"): v for k, v in metrics.items() if k.startswith("eval_")}
            line = _line({k: v for k, v in shown.items() if k not in skipped})
            log.info(
                "%s: validation %s", self.clock.position(state.epoch or 0.0, state.num_train_epochs), line
            )
            self.clock.losses, self.clock.last_line = [], self.clock.now()

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            display.bar.remove_task(self.task)

    return ProgressCallback()


def _line(metrics: Mapping[str, float | None]) -> str:
    return ", ".join(
        f"{name} undefined" if value is None else f"{name} {value:.4f}" for name, value in metrics.items()
    )


def _baseline_sentences(result: "RunResult") -> list[str]:
    """Return a sentence on whether the model is better than its baselines; for several tasks, one for each."""
    from hf_finetune.report.verdict import baseline_verdict, leading_metric

    tasks = result.metrics.get("tasks")
    if not tasks:
        return [sentence] if (sentence := baseline_verdict(result.metrics, result.primary_metrics[0])) else []
    verdicts = {name: baseline_verdict(task, leading_metric(task) or "") for name, task in tasks.items()}
    return [f"{name}: {sentence}" for name, sentence in verdicts.items() if sentence]


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))

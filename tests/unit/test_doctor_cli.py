"""``hf-finetune doctor``: the table, the exit codes, and a row for a check that fails with an exception."""

import io
import re
import subprocess
import sys

import pytest
from rich.console import Console

from hf_finetune.cli import app as cli
from hf_finetune.doctor import check_suite, table
from hf_finetune.doctor.check_suite import CheckSuite, check_suites, run_check
from hf_finetune.doctor.result import Check, CheckResult, sentence
from hf_finetune.doctor.table import print_checks
from hf_finetune.errors import InputError, join_words

GOOD = CheckResult("loss scaling", "pass", "Accumulation 1 x 8 and 4 x 2 give the same gradient.")
BAD = CheckResult("stage head", "fail", "Planned, and not changed: head.weight.", "Update transformers.")
LEFT_OUT = CheckResult("two processes", "skipped", "This build of torch has no gloo.")
FAST = CheckResult(
    "precision", "pass", "A step of 8: fp32 2 ms.", "speed.precision=bf16 is 2.0 times as fast."
)


def examination(*results, remark=""):
    checks = tuple(Check(result.name, lambda folder, result=result: result) for result in results)
    return CheckSuite("models/mine: text-classification, 10 parameters", remark, checks)


def printed(console, folder, *results, **options):
    healthy = print_checks(console, [examination(*results, **options)], folder)
    text = console.file.getvalue()
    return healthy, [line.rstrip() for line in text.splitlines()]


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr(table, "describe_machine", lambda: "one CPU, torch 2")
    monkeypatch.setattr(table, "perf_counter", iter([0.0, 7.2]).__next__)


def test_off_a_terminal_each_check_is_one_plain_line(tmp_path):
    console = Console(file=io.StringIO(), soft_wrap=True, highlight=False, width=60)
    healthy, lines = printed(console, tmp_path, GOOD, BAD, LEFT_OUT, FAST, remark="The data is not at hand.")
    assert not healthy
    assert lines == [
        "one CPU, torch 2",
        "models/mine: text-classification, 10 parameters",
        "The data is not at hand.",
        "pass     loss scaling   Accumulation 1 x 8 and 4 x 2 give the same gradient.",
        "fail     stage head     Planned, and not changed: head.weight. Fix: Update transformers.",
        "skipped  two processes  This build of torch has no gloo.",
        "pass     precision      A step of 8: fp32 2 ms. Suggestion: speed.precision=bf16 is 2.0 times as fast.",
        "4 checks in 7 s: 2 passed, 1 failed, 1 skipped.",
    ]


def test_on_a_terminal_the_rows_are_columns_that_wrap(tmp_path):
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        no_color=True,
        highlight=False,
        width=60,
        legacy_windows=False,
    )
    healthy, lines = printed(console, tmp_path, GOOD, BAD)
    assert not healthy
    text = plain("\n".join(lines))
    for expected in (
        "pass     loss scaling  Accumulation 1 x 8 and 4 x 2 give the",
        "                       same gradient.",
        "fail     stage head    Planned, and not changed:",
        "                       head.weight.",
    ):
        assert expected in text
    assert "                       Fix: Update transformers." in text


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text)


def test_all_passed_or_skipped_is_healthy(tmp_path):
    console = Console(file=io.StringIO(), soft_wrap=True, width=80)
    healthy, lines = printed(console, tmp_path, GOOD, LEFT_OUT)
    assert healthy
    assert lines[-1] == "2 checks in 7 s: 1 passed, 1 skipped."


def test_a_check_that_raises_an_error_is_a_failed_row_and_the_others_still_run(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_FINETUNE_TRACEBACK", raising=False)

    def broken(folder):
        (folder / "left").write_text("behind", encoding="utf-8")
        raise ValueError("no such luck\nand more")

    found = run_check(Check("determinism", broken), tmp_path)
    assert found == CheckResult(
        "determinism",
        "fail",
        "The check raised an exception. ValueError: no such luck",
        "Set HF_FINETUNE_TRACEBACK=1 to see the traceback.",
    )
    assert run_check(Check("loss scaling", lambda folder: GOOD), tmp_path) == GOOD


def test_with_the_traceback_option_the_error_is_raised(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_FINETUNE_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        run_check(Check("determinism", lambda folder: 1 / 0), tmp_path)


@pytest.mark.parametrize("end", [None, ValueError, KeyboardInterrupt])
def test_files_of_a_check_are_removed(tmp_path, end):
    seen = []

    def check(folder):
        (folder / "weights").write_bytes(b"1")
        seen.append(folder)
        if end is not None:
            raise end
        return GOOD

    if end is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            run_check(Check("determinism", check), tmp_path)
    else:
        run_check(Check("determinism", check), tmp_path)
    assert seen[0].parent == tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("results", "code"), [((GOOD, LEFT_OUT), 0), ((GOOD, BAD), 1)])
def test_the_exit_code_shows_whether_a_check_failed(monkeypatch, capsys, results, code):
    monkeypatch.setattr(
        check_suite, "check_suites", lambda recipe, folder, **options: [examination(*results)]
    )
    assert run("doctor") == code


def test_wrong_input_exits_with_2(monkeypatch, tmp_path, capsys, timm_checkpoint):
    monkeypatch.chdir(tmp_path)
    assert run("doctor", "nothing.yaml") == 2
    assert "nothing.yaml must exist." in capsys.readouterr().err
    recipe = (
        f"task: image-classification\nmodel: {timm_checkpoint}\ndata: ./none\n"
        "stages: [{train: heads, epochs: 1, lr: 0.1}]\n"
    )
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    assert run("doctor", "recipe.yaml") == 2
    assert "stages[0].train must be" in " ".join(capsys.readouterr().err.split())
    assert run("doctor", "recipe.yaml", "stages.0.train=head", "model=./nowhere") == 2
    assert "model.path must be a checkpoint" in " ".join(capsys.readouterr().err.split())


def test_ctrl_c_exits_with_130(monkeypatch, capsys):
    def stop(folder):
        raise KeyboardInterrupt

    stopped = CheckSuite("mine", "", (Check("determinism", stop),))
    monkeypatch.setattr(check_suite, "check_suites", lambda recipe, folder, **options: [stopped])
    assert run("doctor") == 130


def run(*arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["hf-finetune", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    return caught.value.code


def test_it_is_refused_among_several_processes(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError) as caught:
        next(check_suites(None, tmp_path))
    assert str(caught.value) == (
        "hf-finetune doctor cannot run under accelerate launch. Got 2 processes. Run it directly; it starts "
        "its own processes."
    )


def test_the_help_does_not_import_torch():
    code = (
        "import sys; sys.argv = ['hf-finetune', 'doctor', '--help']\n"
        "from hf_finetune.cli.app import main\n"
        "try:\n    main()\nfinally:\n    sys.exit(3 if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "[RECIPE]" in done.stdout) == (0, True)


def test_names_are_listed_in_short():
    assert join_words(["a", "b"], most=3) == "a, b"
    assert join_words(["a", "b", "c", "d", "e"], most=3) == "a, b, c and 2 more"
    assert sentence(["not planned: Conv.W", "held twice"]) == "Not planned: Conv.W; held twice."

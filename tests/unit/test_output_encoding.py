"""Everything that is printed into a file or a pipe is UTF-8, whatever the locale."""

import os
import pty
import subprocess
import sys

import pytest

PLACES = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},  # Windows writes files so
    "ascii": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}


def environment(place):
    return {key: value for key, value in os.environ.items() if key != "PYTHONIOENCODING"} | PLACES[place]


@pytest.mark.slow
def test_a_message_with_any_characters_reaches_a_pipe(tmp_path):
    command = [sys.executable, "-m", "hf_finetune", "recipes", "show", "寿司.yaml"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment("cp1252"), timeout=60)
    assert done.returncode == 2
    assert "寿司.yaml must exist." in done.stderr.decode("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_recipe_with_any_characters_is_shown_completely(tmp_path, place):
    (tmp_path / "r.yaml").write_text("# 寿司, żurek, 🍣\n", encoding="utf-8")
    command = [sys.executable, "-m", "hf_finetune", "recipes", "show", "r.yaml"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment(place), timeout=60)
    assert (done.returncode, done.stdout.decode("utf-8"), done.stderr) == (0, "# 寿司, żurek, 🍣\n", b"")


@pytest.mark.parametrize("place", PLACES)
def test_piped_input_is_read_as_utf8(place):
    code = (
        "from hf_finetune.cli.display import use_utf8; use_utf8(); import sys; print(ascii(sys.stdin.read()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input="寿司".encode(),
        capture_output=True,
        env=environment(place),
        timeout=60,
    )
    assert done.stdout.decode() == f"{'寿司'!a}\n"


def test_characters_that_a_terminal_lacks_are_escaped():
    code = "from hf_finetune.cli.display import use_utf8; use_utf8(); print('寿')"
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", code], stdout=theirs, env=environment("cp1252"), timeout=60, check=True
    )
    os.close(theirs)
    assert os.read(ours, 100) == b"\\u5bff\r\n"
    os.close(ours)

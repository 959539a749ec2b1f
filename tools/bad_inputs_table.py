"""Write docs/bad-inputs.md: the error message of the command line and the exit code for each bad input of the tests.

    python tools/bad_inputs_table.py

Every case is run; the page does not use the messages that the tests expect.
"""

import os
import sys
import tempfile
from pathlib import Path

__all__ = ["main", "table"]

ROOT = Path(__file__).parents[1]
HEADER = """\
# Error messages for invalid input

The tables give the complete standard-error output of each command. `.` is the working directory. The exit code is 0
for success, 2 for invalid input, 130 after an interruption, and 1 otherwise. The column *command* names files that a
failed command leaves behind.

The cases are in `tests/integration/bad_*.py`; the tests compare every message, and check that no other files remain.
`python tools/bad_inputs_table.py` generates this page. To simulate a full disk, a limit was set on the file size; a
read-only folder was simulated by a patched access check.
"""


def main() -> None:
    """Run every case, and write the page."""
    sys.path[:0] = [str(ROOT / "tests" / "unit"), str(ROOT / "tests" / "integration")]
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory(prefix="bad-inputs-") as scratch:
        # Set before the libraries are imported, which read these: an empty cache, and no network.
        os.environ |= {
            "HF_HOME": cache,
            "HF_DATASETS_CACHE": f"{cache}/datasets",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        (ROOT / "docs" / "bad-inputs.md").write_text(table(Path(scratch)), encoding="utf-8")


def table(scratch: Path) -> str:
    """Run every case, and return the page.

    Args:
        scratch: Folder in which the cases are run.
    """
    from bad_input_case import Workspace
    from bad_inputs import AREAS

    workspace = Workspace(scratch)
    lines = [HEADER]
    for area, cases in AREAS.items():
        lines += [f"## {area}", "", "| Input | Command | Message | Exit code |", "|---|---|---|---|"]
        for case in cases:
            outcome = workspace.outcome(case)
            command = f"`hf-finetune {case.command}`".replace("|", "\\|")
            if case.partial:
                command += f" (leaves `{case.partial}`)"
            lines.append(f"| {case.title} | {command} | {_cell(outcome.message)} | {outcome.code} |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _cell(message: str) -> str:
    """Return a message as a cell of the table, without markup and with its lines below each other."""
    escaped = message.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return "<br>".join(line.strip() for line in escaped.splitlines() if line.strip())


if __name__ == "__main__":
    main()

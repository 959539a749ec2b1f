"""Write docs/bad-inputs.md: what the command line says to each bad input of the tests, and its exit code.

    python tools/bad_inputs_table.py

Every case is run for that; nothing is taken from what the tests expect.
"""

import os
import sys
import tempfile
from pathlib import Path

__all__ = ["main", "table"]

ROOT = Path(__file__).parents[1]
HEADER = """\
# What is said to bad inputs

Each of these inputs was given to the command line, and this is what it printed on standard error, whole; `.` is
the folder it ran in. The exit code is 0 when all went well, 2 when the input is wrong, 1 for anything else and
130 after Ctrl-C. Nothing is written unless the row says so.

The cases are in `tests/integration/bad_*.py`, and the tests compare every message and look for files left
behind. `python tools/bad_inputs_table.py` makes this page. Where a disk fills up, the size of files was limited;
the folder that may not be written to is one of which the system says so (root may write to any).
"""


def main() -> None:
    """Run every case, and write the page."""
    sys.path[:0] = [str(ROOT / "tests" / "unit"), str(ROOT / "tests" / "integration")]
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory(prefix="bad-inputs-") as scratch:
        # Read when the libraries are imported: an empty cache, and no network.
        os.environ |= {
            "HF_HOME": cache,
            "HF_DATASETS_CACHE": f"{cache}/datasets",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        (ROOT / "docs" / "bad-inputs.md").write_text(table(Path(scratch)), encoding="utf-8")


def table(scratch: Path) -> str:
    """Run every case and give the page.

    Args:
        scratch: A folder to run them in.
    """
    from bad_input_case import Room
    from bad_inputs import AREAS

    room = Room(scratch)
    lines = [HEADER]
    for area, cases in AREAS.items():
        lines += [f"## {area}", "", "| Given | Command | Message | Exit code |", "|---|---|---|---|"]
        for case in cases:
            outcome = room.outcome(case)
            command = f"`hf-finetune {case.command}`".replace("|", "\\|")
            if case.partial:
                command += f" (leaves `{case.partial}`)"
            lines.append(f"| {case.given} | {command} | {_cell(outcome.message)} | {outcome.code} |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _cell(message: str) -> str:
    """Put the lines of a message below each other in a cell, and let nothing of it be read as markup."""
    escaped = message.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return "<br>".join(line.strip() for line in escaped.splitlines() if line.strip())


if __name__ == "__main__":
    main()

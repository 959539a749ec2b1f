"""Run a benchmark: its contenders in turn, never two at a time, round after round."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.child import ContenderError, run_child
from benchmarks.inputs import Inputs
from benchmarks.suite import BENCHMARKS, Contender

__all__ = ["Options", "run_benchmark"]


@dataclass(frozen=True)
class Options:
    """Options of the benchmarks.

    Attributes:
        device: ``cpu`` or ``cuda``.
        repeats: Minimum number of rounds.
        seeds: Minimum number of different seeds, used in turn.
        threads: Threads of torch; None leaves the number to torch.
        quick: Whether to train very little, as a test.
        command: Command as typed.
    """

    device: str
    repeats: int
    seeds: int
    threads: int | None
    quick: bool
    command: str

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return max(self.repeats, self.seeds)


def run_benchmark(name: str, options: Options, folder: Path) -> int:
    """Run one benchmark, and write its raw data after each round.

    Args:
        name: Name in ``benchmarks.suite.BENCHMARKS``.
        options: Options.
        folder: Folder of ``NAME.json``.
    Returns:
        Number of contenders that failed.
    """
    benchmark = BENCHMARKS[name]
    machine = run_child("machine", {}, device=options.device, threads=options.threads)
    if benchmark.needs_gpu and not options.quick and not machine.get("gpu"):
        reason = (
            "needs --device cuda and a CUDA device, and"
            if options.device == "cpu"
            else "needs a CUDA device:"
        )
        print(f"{name}: left out. It {reason} this machine shows none.")
        return 0
    with tempfile.TemporaryDirectory(prefix="benchmarks-inputs-") as inputs:
        contenders = benchmark.contenders(Inputs(Path(inputs)), options.quick, options.device)
        content: dict[str, Any] = {
            "name": name,
            "title": benchmark.title,
            "about": benchmark.about,
            "compares_accuracy": benchmark.compares_accuracy,
            "date": date.today().isoformat(),
            **asdict(options),
            "machine": machine,
            "groups": _groups(contenders),
        }
        records = {(each.group, each.name): record for each, record in _with_records(contenders, content)}
        for number in range(options.rounds):
            for contender in contenders:
                record = records[contender.group, contender.name]
                if "left_out" not in record and number < (contender.rounds or options.rounds):
                    _run_round(contender, number, options, record)
            _write(folder / f"{name}.json", content)
    return sum("failed" in record for record in records.values())


def _groups(contenders: list[Contender]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for each in contenders:
        record: dict[str, Any] = {"name": each.name, "about": each.about, "rounds": []}
        missing = [module for module in each.needs if find_spec(module) is None]
        if missing:
            record["left_out"] = f"{', '.join(missing)} is not installed"
            print(f"{each.name}: left out, {record['left_out']} (benchmarks/requirements.txt).")
        groups.setdefault(each.group, []).append(record)
    return [{"title": title, "contenders": records} for title, records in groups.items()]


def _with_records(
    contenders: list[Contender], content: Mapping[str, Any]
) -> list[tuple[Contender, dict[str, Any]]]:
    found = {
        (group["title"], record["name"]): record
        for group in content["groups"]
        for record in group["contenders"]
    }
    return [(each, found[each.group, each.name]) for each in contenders]


def _run_round(contender: Contender, number: int, options: Options, record: dict[str, Any]) -> None:
    seed = number % options.seeds
    try:
        answer = run_child(
            contender.module,
            {**contender.work, "seed": seed},
            device=options.device,
            processes=contender.processes,
            threads=options.threads,
        )
    except ContenderError as error:
        record["failed"] = str(error)
        print(f"{contender.group}, {contender.name}, round {number + 1}: failed. {error}")
        return
    record["rounds"].append({"round": number, "seed": seed, **answer})
    seconds = f"{answer['seconds']:.1f} s" if "seconds" in answer else "done"
    accuracy = f", accuracy {answer['evaluations'][-1]['accuracy']:.3f}" if answer.get("evaluations") else ""
    print(f"{contender.group}, {contender.name}, round {number + 1}: {seconds}{accuracy}", flush=True)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".json.part")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)

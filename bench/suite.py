"""All benchmarks, each in a process of its own, and the page that keeps what they found.

    python bench/suite.py cases/1-MV-urban--0-sw-2016-07-05                 # all of them
    python bench/suite.py cases/1-MV-urban--0-sw-2016-07-05 city powerflow  # these anew, the others stay as they were

What a benchmark found is kept in docs/benchmarks.json as soon as it ends, with the day and the machine; the page
docs/benchmarks.md is drawn from that. One that fails does not stop the others; the page says so, and the suite ends
with an error.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from time import perf_counter

from table import Line, machine, read_lines

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs/benchmarks.md"
MOST_WORDS = 40  # of what a benchmark printed, the last rows of it


@dataclass(frozen=True)
class Part:
    """A benchmark, what it is about, and what its goals are, in the words of who set them."""

    name: str
    title: str
    goals: tuple[str, ...] = ()


PARTS = (
    Part(
        "powerflow",
        "A day's grid check",
        (
            "at most 1.1 times the bare batch call of power-grid-model",
            "at least 100 times as fast as pandapower's time series at 144 buses, 12 times at 10,458",
        ),
    ),
    Part(
        "clearing",
        "Clearing with the grid",
        (
            "at most 1.3 times its floor: power flow, sensitivities, solver",
            "at least twice as fast as Clarabel on the same congested quarter-hours",
            "at least 10 times as fast as PyPSA from end to end",
        ),
    ),
    Part("stochastic", "Reserve and day ahead in two stages"),
    Part(
        "city",
        "A city of 25 substations and 600 feeders",
        ("time per substation flat as their number grows", "both processors used", "memory under 4 GiB"),
    ),
    Part(
        "coordination",
        "Market designs compared",
        ("at most a fifth of the runs outside power flows and solvers",),
    ),
    Part(
        "orders",
        "Orders of many companies at once",
        (
            "at least 5,000 acknowledged durable orders a second in single posts, 50,000 in batches of 200",
            "p99 under 50 ms at half that load",
            "a client at ten times its rate does not double another's p99",
            "a restart with 100,000 entries in under 5 s",
        ),
    ),
    Part(
        "baselines",
        "Baselines of a city's connection points",
        ("all 580,000 points over 45 days of history in a stated time", "under 8 GiB of memory"),
    ),
    Part(
        "ingest",
        "Measurements of a city",
        (
            "145,000 certified, durably acknowledged measurements a second from 580,000 points over 2,000 connections",
            "nothing lost",
            "p99 from receipt to checkpoint under 2 s",
            "memory flat",
        ),
    ),
    Part(
        "settlement",
        "A city settled",
        (
            "from all rows in at most 1.3 times DuckDB's bare join and sums of the same files",
            "from the activations outward in under 3 s",
        ),
    ),
    Part("run", "A market day and its parts"),
)


@dataclass(frozen=True)
class Outcome:
    """What a benchmark said: its lines where it gives them, and its last words; when, how long and on what machine."""

    name: str
    began: str
    machine: str
    seconds: float
    failed: bool
    lines: tuple[Line, ...]
    words: tuple[str, ...]


def main() -> None:
    """Run what is asked for, and draw the page anew after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path, help="folder of the case")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(part.name for part in PARTS))
    parser.add_argument("--page", type=Path, default=PAGE, help="the page; what it is drawn from lies beside it")
    given = parser.parse_args()
    if unknown := set(given.parts) - {part.name for part in PARTS}:
        parser.error(
            f"there is no part {', '.join(sorted(unknown))}; the parts are {', '.join(part.name for part in PARTS)}"
        )
    chosen = [part for part in PARTS if not given.parts or part.name in given.parts]
    kept, failed = given.page.with_suffix(".json"), []
    for part in chosen:
        one = run(part, given.case)
        found = {**read(kept), part.name: one}
        kept.write_text(json.dumps([asdict(found[name]) for name in sorted(found)], indent=1) + "\n", encoding="utf-8")
        given.page.write_text(page(found), encoding="utf-8")
        failed += [part.name] * one.failed
    print(f"\nwritten to {given.page}")
    for name in failed:
        print(f"{name} failed", file=sys.stderr)
    sys.exit(bool(failed))


def read(kept: Path) -> dict[str, Outcome]:
    """What was found before, by the name of the benchmark."""
    rows = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else []
    found = [
        Outcome(**{**row, "lines": tuple(Line(**line) for line in row["lines"]), "words": tuple(row["words"])})
        for row in rows
    ]
    return {one.name: one for one in found}


def run(part: Part, case: Path) -> Outcome:
    """One benchmark, its words told as they come."""
    script = HERE / f"{part.name}.py"
    print(f"\n==== {part.title} ({script.name})", flush=True)
    began, since = datetime.now().astimezone(), perf_counter()
    with tempfile.TemporaryDirectory() as room:
        file = Path(room) / "lines.json"
        told = []
        command = [sys.executable, "-u", str(script), *_words(part, case)]
        if "asks_for_lines" in script.read_text(encoding="utf-8"):
            command += ["--lines", str(file)]
        complaints = Path(room) / "complaints.txt"
        with (
            complaints.open("w") as beside,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=beside, text=True) as process,
        ):
            assert process.stdout is not None
            for row in process.stdout:
                told.append(row)
                print(row, end="", flush=True)
        if process.returncode:
            told.append(complaints.read_text())
            print(told[-1], end="", file=sys.stderr, flush=True)
        lines = tuple(read_lines(file)) if file.is_file() else ()
    failed, words = process.returncode != 0, "".join(told).strip().splitlines()
    if lines and not failed:
        # The lines are the page's own table: what was printed last, with a head and an empty row before.
        words = words[: -len(lines) - 2]
    took = round(perf_counter() - since, 1)
    return Outcome(part.name, f"{began:%d %B %Y, %H:%M %Z}", machine(), took, failed, lines, tuple(words[-MOST_WORDS:]))


def _words(part: Part, case: Path) -> list[str]:
    """What a benchmark is called with: the case, or where the grids that cases are drawn from are kept, or nothing
    where it builds its own."""
    if part.name == "ingest":
        return ["--seconds", "600"]
    if part.name in ("coordination", "orders", "baselines", "settlement"):
        return []
    if part.name in ("powerflow", "city"):
        return ["--cache", str(case.parent / ".grids")]
    # Time grows with the scenarios: larger numbers of them are for a run of their own.
    few = ["--counts", "10", "--repeats", "1"] if part.name == "stochastic" else []
    return [str(case), *few]


# ---------------------------------------------------------------- the page


def page(found: Mapping[str, Outcome]) -> str:
    """The page: the goals beside what was measured, and each benchmark in full."""
    there = [(part, found[part.name]) for part in PARTS if part.name in found]
    rows = [
        "# Benchmarks",
        "",
        "Written by `make bench`; not to be edited. Times of one machine say little about another. So each is a ratio "
        "to something taken in the same minutes, and the ratios are what is compared.",
        "",
        "## Goals",
        "",
        *_table_of_goals(there),
    ]
    for part, one in there:
        rows += ["", f"## {part.title}", "", *_section(part, one)]
    return "\n".join(rows) + "\n"


def _table_of_goals(there: Sequence[tuple[Part, Outcome]]) -> list[str]:
    rows = ["| what | measured | ratio | to | goal | |", "| --- | ---: | ---: | --- | --- | --- |"]
    for part, one in there:
        rows += [_row(line, with_goal=True) for line in one.lines if line.goal]
        if one.failed:
            rows.append(f"| {part.title} | | | | {'; '.join(part.goals)} | **failed** |")
        elif part.goals and not any(line.goal for line in one.lines):
            rows.append(f"| {part.title} | see below | | | {'; '.join(part.goals)} | |")
    return rows


def _section(part: Part, one: Outcome) -> list[str]:
    rows = [f"`bench/{part.name}.py`, {one.began}, {one.seconds:.0f} s; {one.machine}.", ""]
    if part.goals:
        rows = [*rows, f"To be reached: {'; '.join(part.goals)}.", ""]
    if one.failed:
        rows += ["**It failed.** Its last words:", ""]
    if one.lines and not one.failed:
        rows += ["| what | median | ratio | to |", "| --- | ---: | ---: | --- |"]
        rows += [_row(line, with_goal=False) for line in one.lines]
        rows.append("")
    return [*rows, "```text", *one.words, "```"]


def _row(line: Line, with_goal: bool) -> str:
    cells = [line.what.strip(), line.median, f"{line.ratio:.2f}", line.beside]
    if with_goal:
        cells += [line.goal, "met" if line.met else "**missed**"]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


if __name__ == "__main__":
    main()

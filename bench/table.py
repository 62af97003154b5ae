"""What all benchmarks have in common: a line of their table, the machine, and how lines are shown and handed on."""

from __future__ import annotations

import json
import os
import platform
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "numpy",
    "scipy",
    "highspy",
    "clarabel",
    "power-grid-model",
    "pandapower",
    "simbench",
    "pypsa",
    "duckdb",
    "ibis-framework",
)


@dataclass(frozen=True)
class Line:
    """One row of a table: a median, and the ratio to what stands beside it. `at_most`, `at_least`: the goal of the
    ratio, where there is one."""

    what: str
    median: str
    ratio: float
    beside: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def goal(self) -> str:
        bounds = [("at most", self.at_most), ("at least", self.at_least)]
        return ", ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met, None where there is none."""
        if not self.goal:
            return None
        return (self.at_most is None or self.ratio <= self.at_most) and (
            self.at_least is None or self.ratio >= self.at_least
        )

    @property
    def verdict(self) -> str:
        return {None: "", True: "met", False: "missed"}[self.met]


def asks_for_lines(parser: ArgumentParser) -> None:
    """The option by which `bench/suite.py` gets the lines of a benchmark."""
    parser.add_argument("--lines", type=Path, help="JSON file that the lines are written to as well")


def give(lines: Sequence[Line], file: Path | None) -> None:
    """Print the table, and write it where it was asked for."""
    wide = max(len(line.what) for line in lines)
    beside = max(len(line.beside) for line in lines)
    print(f"\n{'':{wide}}  {'median':>9}  {'ratio':>7}  {'to':{beside}}  goal")
    for line in lines:
        goal = f"{line.goal}: {line.verdict}" if line.goal else ""
        print(f"{line.what:{wide}}  {line.median:>9}  {line.ratio:7.2f}  {line.beside:{beside}}  {goal}".rstrip())
    if file is not None:
        file.write_text(json.dumps([asdict(line) for line in lines], indent=1), encoding="utf-8")


def read_lines(file: Path) -> list[Line]:
    return [Line(**line) for line in json.loads(file.read_text(encoding="utf-8"))]


def machine() -> str:
    """Processors, memory, Python and the libraries that do the work, in one sentence."""
    try:
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"
    except (AttributeError, ValueError, OSError):
        memory = ""
    told = []
    for name in LIBRARIES:
        try:
            told.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            told.append(f"no {name}")
    python = f"Python {platform.python_version()} on {platform.system()}"
    return f"{os.cpu_count()} x {_processor()}{memory}; {python}; {', '.join(told)}"


def load(when: str) -> None:
    """Say how busy the machine is."""
    busy = ", ".join(f"{one:.2f}" for one in os.getloadavg())
    print(f"{when}: {os.cpu_count()} processors, load {busy}, Python {platform.python_version()}", flush=True)


def _processor() -> str:
    try:
        for row in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if row.startswith("model name"):
                return row.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

"""How the day ahead of a city goes: 25 HV/MV substations with 600 feeders, each assessed, cleared and lit.

    python bench/city.py --cache cases/.grids

The substations are those of `coflex.simulation.city`. The same city is taken with 5, 10 and 25 substations in as many
processes as there are processors (two at most), and the first five once more in one process. "Per substation" is the
clock's time from the call to the last answer, starting processes, reading grids, drawing units and their static lights
included, over the number of substations; processor time is counted alike. The parts are what the substations
themselves took; they differ, so the first five of the largest city are compared with the same five by themselves. The
peak of memory is bounded from above: this process at its highest and every worker at the height of the highest.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from time import perf_counter

from table import Line, asks_for_lines, give, load

from coflex.app import run_city
from coflex.simulation.city import PartSeconds, SubstationDay

COUNTS, SEED, WORKERS = (5, 10, 25), 1, min(2, os.cpu_count() or 1)
GIB = 2**30
# What still counts as flat.
FLAT = 1.1
PARTS: dict[str, Callable[[PartSeconds], float]] = {
    "assessment": lambda s: s.assessing,
    "clearing": lambda s: s.clearing,
    "lights": lambda s: s.lighting,
    "all three": lambda s: s.day_ahead,
}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="where converted grids are kept; a temporary folder without it")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="substations of the cities, rising")
    asks_for_lines(parser)
    given = parser.parse_args()
    load("before")
    with tempfile.TemporaryDirectory() as room:
        lines = measured(given.cache or Path(room), sorted(given.counts))
    load("after")
    give(lines, given.lines)


def measured(cache: Path, counts: Sequence[int]) -> list[Line]:
    """The lines of the table."""
    run_city(1, SEED, 1, _quiet, cache)  # converts the grids, if that was not done yet
    wall: dict[int, float] = {}
    used: dict[int, float] = {}
    found: dict[int, tuple[SubstationDay, ...]] = {}
    for count in counts:
        before = _processor_seconds()
        wall[count], found[count] = _timed(count, WORKERS, cache)
        used[count] = (_processor_seconds() - before) / count
        _tell(count, wall[count], found[count])
    peak = _peak_bytes()
    few, most = counts[0], counts[-1]
    alone, once_more = _timed(few, 1, cache)
    if once_more != found[few] or any(found[most][: len(one)] != one for one in found.values()):
        sys.exit("The answers depend on the number of processes or of substations.")
    lines = [_whole(count, wall, found, few) for count in counts]
    what = f"  processor time of a substation, of {most}"
    lines.append(Line(what, f"{used[most]:.2f} s", used[most] / used[few], f"of {few}", at_most=FLAT))
    for name, part in PARTS.items():
        first, now = (mean(part(one.seconds) for one in found[count][:few]) for count in (few, most))
        every = mean(part(one.seconds) for one in found[most])
        what = f"  {name} of a substation, mean of {most}"
        lines.append(Line(what, f"{every:.2f} s", now / first, f"of the first {few} there, by themselves"))
    return [
        *lines,
        Line(
            f"{few} substations in one process",
            f"{alone:.1f} s",
            alone / wall[few],
            f"in {WORKERS} processes, {wall[few]:.1f} s",
            at_least=0.8 * WORKERS,
        ),
        Line("peak memory, all processes", f"{peak / GIB:.2f} GiB", peak / (4 * GIB), "4 GiB", at_most=1.0),
    ]


def _whole(count: int, wall: dict[int, float], found: dict[int, tuple[SubstationDay, ...]], few: int) -> Line:
    feeders = sum(one.feeders for one in found[count])
    lights = sum(sum(one.lights.values()) for one in found[count])
    each = wall[count] / count
    return Line(
        f"city of {count} substations, {feeders} feeders, {lights} lights, per substation",
        f"{each:.2f} s",
        each / (wall[few] / few),
        f"of {few}",
        at_most=FLAT if count > few else None,
    )


def _timed(count: int, workers: int, cache: Path) -> tuple[float, tuple[SubstationDay, ...]]:
    began = perf_counter()
    found = run_city(count, SEED, workers, _quiet, cache)
    return perf_counter() - began, found


def _tell(count: int, seconds: float, found: Sequence[SubstationDay]) -> None:
    congested = sum(one.violations > 0 for one in found)
    units, offers = (sum(getattr(one, name) for one in found) for name in ("units", "offers"))
    needs, uncovered = (sum(getattr(one, name) for one in found) for name in ("needs", "uncovered"))
    static = mean(one.seconds.qualifying for one in found)
    print(
        f"{count} substations in {seconds:.0f} s: {congested} congested, {units} units, {offers} offers, {needs} needs,"
        f" {uncovered} not covered, {sum(one.cost_eur for one in found)} EUR; static lights {static:.1f} s each",
        flush=True,
    )


def _processor_seconds() -> float:
    """Of all workers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak_bytes() -> float:
    """What all processes together can have held at most."""
    unit = 1024 if sys.platform == "linux" else 1
    own, worker = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return unit * (own + WORKERS * worker)


def _quiet(_: str) -> None:
    """A city's progress is not told here."""


if __name__ == "__main__":
    main()

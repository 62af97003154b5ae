"""What the engine of market designs adds to its power flows and solvers, in a comparison of designs on one case.

    python bench/coordination.py
    python bench/coordination.py --case small --designs smartnet_a smartnet_c

The comparison is the one of `coflex compare`, in one process, all of it made anew. Each run is timed where it is made:
its solvers (linear, mixed-integer, conic), its power flows, the sensitivities of these (factorising and solving the
Jacobian), and what traffic lights compute beside both (worst splits, filling). Two shares follow: of all that is
neither power flow nor solver, and of what is none of the four: views, books, rows, holdings, messages. Sums over all
runs are compared, so that long runs weigh as they do. Power flows use every core, so run it on a machine at rest.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from table import Line, asks_for_lines, give, load

from coflex.app import ComparisonOrder, compare

# One of each kind: central, local first, shared responsibility, common with and without rounds, fragmented, sequential.
DESIGNS = ("smartnet_a", "smartnet_b", "smartnet_c", "smartnet_d_two", "coordinet_fragmented", "beflexible_six")
# The most of a run that may be spent outside power flows and solvers.
MOST_OUTSIDE = 0.2


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="reference", help="case that the designs are compared on")
    parser.add_argument("--designs", nargs="+", default=DESIGNS, help="designs beside the fully coupled one")
    asks_for_lines(parser)
    given = parser.parse_args()
    load("before")
    with tempfile.TemporaryDirectory() as room:
        order = ComparisonOrder(tuple(given.designs), given.case, 1, None, (), (), 1, None, Path(room), True)
        begun = perf_counter()
        answer = compare(order, lambda step: print(step, flush=True))
        wall = perf_counter() - begun
        rows = json.loads(answer.results.read_text(encoding="utf-8"))["rows"]
    if answer.troubles:
        sys.exit("\n".join(f"{one.design} on {one.case}: {one.message}" for one in answer.troubles))
    load("after")
    give(lines(rows, given.case, wall), given.lines)


def lines(rows: Sequence[dict[str, Any]], case: str, wall: float) -> list[Line]:
    """The lines of the table: all runs together, then each by itself."""
    whole = {part: sum(row["seconds"][part] for row in rows) for part in rows[0]["seconds"]}
    total = whole["total"]
    beside = f"all {len(rows)} runs, {total:.1f} s"
    bare = whole["outside"] - whole["sensitivity"] - whole["light"]
    found = [
        Line(
            f"engine on the case {case}, outside power flows and solvers",
            f"{whole['outside']:.2f} s",
            whole["outside"] / total,
            beside,
            at_most=MOST_OUTSIDE,
        ),
        Line(
            "  of it sensitivities of power flows",
            f"{whole['sensitivity']:.2f} s",
            whole["sensitivity"] / total,
            beside,
        ),
        Line("  of it lights, worst splits and filling", f"{whole['light']:.2f} s", whole["light"] / total, beside),
        Line("  of it all else: the engine", f"{bare:.2f} s", bare / total, beside, at_most=MOST_OUTSIDE),
        Line("power flows", f"{whole['power_flow']:.2f} s", whole["power_flow"] / total, beside),
        Line("solvers", f"{whole['solver']:.2f} s", whole["solver"] / total, beside),
        Line("comparison, order to page", f"{wall:.1f} s", wall / total, beside),
    ]
    for row in rows:
        own = row["seconds"]
        found.append(
            Line(
                f"  {row['design']}, outside",
                f"{own['outside']:.2f} s",
                own["outside"] / own["total"],
                f"its run, {own['total']:.2f} s",
            )
        )
    return found


if __name__ == "__main__":
    main()

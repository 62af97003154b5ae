"""How fast the parts of a market day are, each beside what it is to be compared with, in one run.

    python bench/run.py cases/1-MV-urban--0-sw-2016-07-05

Times of one machine say little about another; ratios taken in the same minutes say more. Every number is a median of
as many repeats as fit into its share of two minutes.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy.optimize import linprog
from table import Line, asks_for_lines, give, load

from coflex.app import Platform, begin_day
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.time import QUARTER
from coflex.grid.light import Agents, capability
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState, solve
from coflex.grid.sensitivity import FROM_END, TO_END, VOLTAGE, Linearisation, Quantities
from coflex.market.intake import IntakeContext, intake
from coflex.process import offer as offer_verb
from coflex.process import plan as plan_verb
from coflex.process.clear import Cleared, clear
from coflex.process.day import Day
from coflex.process.offer import collect
from coflex.process.ports import Store, Transaction
from coflex.simulation.providers import SimulatedProviders

OFFERS = 900
# Seconds after which a part, and the whole day, are not begun once more.
PART_S, DAY_S = 5.0, 25.0
# The lucky split is looked for in every so many-th quarter-hour.
STRIDE = 8


class _Undo(Exception):
    """Leaves a transaction without keeping it."""


@dataclass(frozen=True)
class Rehearsal:
    """A store whose transactions are never kept, so that a verb can be repeated."""

    store: Store

    def transaction(self) -> AbstractContextManager[Transaction]:
        return self._transaction()

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        try:
            with self.store.transaction() as t:
                yield t
                raise _Undo
        except _Undo:
            return


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path, help="folder of the case")
    parser.add_argument("--repeats", type=int, default=5, help="most repeats of each part (3 of the whole day)")
    asks_for_lines(parser)
    given = parser.parse_args()
    load("before")
    lines = whole_day(given.case, min(3, given.repeats))
    with tempfile.TemporaryDirectory() as out, begin_day(given.case, Path(out), False) as open_day:
        lines = [*parts(open_day, given.repeats), *lines]
    load("after")
    give(lines, given.lines)


# ---------------------------------------------------------------- the whole day


def whole_day(case: Path, repeats: int) -> list[Line]:
    """`coflex run` in a process of its own, from the command to the report."""
    timings: list[dict[str, Any]] = []

    def run() -> None:
        with tempfile.TemporaryDirectory() as out:
            _python("-m", "coflex", "run", str(case), "--out", out, "--json")
            timings.append(json.loads((Path(out) / case.resolve().name / "timings.json").read_text()))

    middle = _median(run, repeats, DAY_S)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    cleared = statistics.median(sum(one["total_seconds"] for one in told["sessions"]) for told in timings)
    started = _median(lambda: _python("-c", "import coflex.app"), repeats, PART_S)
    return [
        Line("whole day, command to report", f"{middle:.1f} s", middle / cleared, f"its clearings, {cleared:.2f} s"),
        Line("peak memory of the whole day", f"{peak:.0f} MB", peak / _bare_mb(), "its libraries, imported"),
        Line("start of the program", f"{started:.2f} s", started / middle, "the whole day"),
    ]


def _python(*words: str) -> str:
    """What a Python of its own says; when it fails, its words are ours."""
    told = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if told.returncode:
        sys.exit(told.stderr.strip() or told.stdout.strip())
    return told.stdout


def _bare_mb() -> float:
    """Peak memory of a process that imports what the day needs and ends."""
    code = "import coflex.app, resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    return int(_python("-c", code)) / (1024 if sys.platform == "linux" else 1024**2)


# ---------------------------------------------------------------- its parts


def parts(here: Platform, repeats: int) -> list[Line]:
    """The first local and the first global session, part by part."""
    day = here.day
    here.register()
    here.qualify()
    local = here.plan().session
    heard = _Heard()
    with heard.listening(offer_verb, "intake", intake):
        collect(day, here.store, day.plan(local), SimulatedProviders(day.case.settings.seed, day.case.zone))
    lines = [*clearing(day, here.store, local, repeats), power_flow(day, repeats)]
    # What the simulated providers sent was taken already; the gate is closed without asking them again.
    clear(day, here.store, day.plan(local), day.plan(local).closes)
    heard_light = _Heard()
    with heard_light.listening(plan_verb, "capability", capability):
        here.plan()
    lines += light(*heard_light.words, repeats)
    return [*lines, taking(*heard.words, repeats)]


class _Heard:
    """What a function was called with when a verb called it."""

    def __init__(self) -> None:
        self.words: tuple[Any, ...] = ()

    @contextmanager
    def listening(self, module: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
        def heard(*words: Any) -> Any:
            self.words = words
            return function(*words)

        setattr(module, name, heard)
        try:
            yield
        finally:
            setattr(module, name, function)


def clearing(day: Day, store: Store, session: str, repeats: int) -> list[Line]:
    """The clearing of a local session on the AC grid: book to awards, of which the solver takes a part."""
    plan = day.plan(session)
    rehearsal = Rehearsal(store)
    told: list[Cleared] = []
    _median(lambda: told.append(clear(day, rehearsal, plan, plan.closes)), repeats, PART_S)
    total = statistics.median(one.total_seconds for one in told)
    solver = statistics.median(one.solver_seconds for one in told)
    ratio = statistics.median(one.total_seconds / one.solver_seconds for one in told)
    what = f"clearing of {session}, {len(plan.horizon)} periods, {told[0].offers} offers, {told[0].passes} passes"
    return [
        Line(what, f"{1000 * total:.0f} ms", ratio, "its time in the solver"),
        Line("  of it in the solver", f"{1000 * solver:.0f} ms", 1 / ratio, "the clearing"),
    ]


def power_flow(day: Day, repeats: int) -> Line:
    """The states of a day in one batch and one by one."""
    p, q = day.injections(day.truth(day.case.axis))
    batch = _median(lambda: solve(day.network, p, q), repeats, PART_S)
    single = _median(lambda: [solve(day.network, p[t : t + 1], q[t : t + 1]) for t in range(len(p))], repeats, PART_S)
    what = f"power flow of {len(p)} periods, {day.network.n} nodes, one by one"
    return Line(what, f"{1000 * single:.0f} ms", single / batch, f"the same in one batch, {1000 * batch:.1f} ms")


def light(network: Network, state: GridState, agents: Agents, potential: Any, repeats: int) -> list[Line]:
    """All lights of a session, and beside them what one lucky split of each perimeter would claim."""
    seconds = _median(lambda: capability(network, state, agents, potential), repeats, PART_S)
    periods = range(0, potential.shape[1], STRIDE)
    safe = capability(network, state, agents, potential).kw[:, list(periods)]
    began = perf_counter()
    lucky = np.array([_lucky(network, state, agents, potential[:, t], t) for t in periods]).T
    naive = (perf_counter() - began) * potential.shape[1] / len(periods)
    whole = np.zeros_like(safe)
    np.add.at(whole, agents.part, potential[:, list(periods)])
    limited = safe < whole - 1
    count = agents.parts * potential.shape[1]
    what = f"dynamic light of a session, {count} lights"
    return [
        Line(what, f"{1000 * seconds:.0f} ms", seconds / naive, "a linear program for each lucky split"),
        Line(
            f"power that lucky splits claim in {limited.sum()} lights that are not green",
            f"{lucky[limited].sum() / 1000:.1f} MW",
            lucky[limited].sum() / max(safe[limited].sum(), 1e-9),
            "what every split may use",
        ),
    ]


def _lucky(network: Network, state: GridState, agents: Agents, potential: Any, t: int) -> list[float]:
    """Of each part the most power (kW) that some split of it, alone, brings through the linearised limits."""
    pq, branches = network.pq, np.arange(network.m)
    index = np.concatenate([pq, branches, branches])
    kind = np.repeat([VOLTAGE, FROM_END, TO_END], [len(pq), network.m, network.m])
    dp, dq = Linearisation(network, state.u).sensitivities(Quantities(np.full(len(index), t), kind, index))
    effect = agents.sign / 1000 * (dp[:, agents.node] + dq[:, agents.node] * agents.tan_phi)
    vm = state.vm[t, pq]
    loading = [network.loading_max - state.loading_from[t], network.loading_max - state.loading_to[t]]
    room = np.concatenate([network.v_max[pq] - vm, *loading, vm - network.v_min[pq]])
    rows = np.concatenate([effect, -effect[: len(pq)]])
    claims = [0.0] * agents.parts
    for part in range(agents.parts):
        mine = np.flatnonzero((agents.part == part) & (potential > 0))
        if len(mine):
            # What is broken already is not asked of the lucky split: it only may not make it worse.
            reach = [(0.0, most) for most in potential[mine]]
            found = linprog(-np.ones(len(mine)), rows[:, mine], np.maximum(room, 0.0), bounds=reach)
            claims[part] = -found.fun if found.status == 0 else 0.0
    return claims


def taking(plan: Any, offers: Sequence[Offer], context: IntakeContext, repeats: int) -> Line:
    """The check of a session's offers, beside that of a third of them: it should not grow faster than their number."""
    many = _halves(offers)[:OFFERS]
    accepted, _ = intake(plan, many, context)
    seconds = _median(lambda: intake(plan, many, context), repeats, PART_S)
    few = many[: len(many) // 3]
    third = _median(lambda: intake(plan, few, context), repeats, PART_S)
    what = f"intake of {len(many)} offers, {len(accepted)} of them taken"
    return Line(what, f"{1000 * seconds:.0f} ms", seconds / third, f"of a third of them, {1000 * third:.0f} ms")


def _halves(offers: Sequence[Offer]) -> list[Offer]:
    """Each offer as two, of its first and of its second quarter-hours: more offers for the same units, none twice."""
    found = []
    for offer in offers:
        for half in range(2):
            steps = tuple(part for step in offer.steps if (part := _half(step, half)).quantity_kw)
            if any(any(step.quantity_kw) for step in steps):
                found.append(replace(offer, id=f"{offer.id}/{half}", receipt=len(found) + 1, steps=steps))
    return found


def _half(step: OfferStep, half: int) -> OfferStep:
    middle = len(step.quantity_kw) // 2
    if half:
        later = step.start + middle * QUARTER
        return replace(step, start=later, quantity_kw=step.quantity_kw[middle:])
    return replace(step, quantity_kw=step.quantity_kw[:middle])


# ---------------------------------------------------------------- the clock


def _median(act: Callable[[], Any], most: int, budget_s: float) -> float:
    """Median seconds of at least one and at most so many repeats; none is begun after the budget."""
    taken: list[float] = []
    while not taken or (len(taken) < most and sum(taken) < budget_s):
        began = perf_counter()
        act()
        taken.append(perf_counter() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main()

"""The only file that knows everyone: settings in, a platform out, and the command that runs it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from coflex.adapters.cli.main import build
from coflex.adapters.exchange.tables.case_folder import read_case, write_case
from coflex.adapters.exchange.tables.outcomes import OutcomeFolder, read_offers
from coflex.adapters.grids.simbench import load_grid
from coflex.adapters.store.sql import SqlStore
from coflex.adapters.web.pages.day import render
from coflex.domain.errors import NotReady
from coflex.domain.quantity import Floats
from coflex.domain.series import Series
from coflex.domain.unit import Unit
from coflex.market.design import SessionPlan, load_design, read_design
from coflex.market.engine import SessionState, upcoming
from coflex.process.activate import Activated, activate
from coflex.process.clear import Cleared, clear
from coflex.process.day import Day, states
from coflex.process.measure import Measured, measure
from coflex.process.offer import collect, submit
from coflex.process.plan import Planned, plan
from coflex.process.ports import Case, CaseSettings, DeviceSettings, Progress, Store, TsoSettings
from coflex.process.qualify import Qualified, qualify
from coflex.process.register import Registered, register
from coflex.process.report import Reported, report
from coflex.process.settle import Settled, settle
from coflex.simulation.cases import draw_case
from coflex.simulation.devices import SimulatedDevices
from coflex.simulation.providers import SimulatedProviders, nominate
from coflex.simulation.tso import SimulatedTso

CACHE = Path("cases") / ".grids"


@dataclass(frozen=True, eq=False)
class Platform:
    """A case, its store, and the counterparts that play it; the verbs as its methods."""

    day: Day
    store: Store
    out: Path
    timings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def case(self) -> Case:
        return self.day.case

    def next_session(self, to: SessionState) -> SessionPlan:
        """The session whose next step is `to`. Raises NotReady when another step comes first."""
        with self.store.transaction() as t:
            known = {name: SessionState(state) for name, state in states(t).items()}
        action = upcoming(self.day.plans, known)
        if action is None:
            raise NotReady("Every session of the day is cleared.", "Go on with coflex activate.")
        session = self.day.plan(action.session)
        is_open = known.get(session.id) is SessionState.OPEN
        if (to is SessionState.OPEN) == is_open:
            verb = "clear" if is_open else "plan"
            raise NotReady(f"Session {session.id} comes next and is not ready.", f"Run coflex {verb} first.")
        return session

    def register(self) -> Registered:
        return register(self.day, self.store, self.day.plans[0].opens)

    def qualify(self) -> Qualified:
        return qualify(self.day, self.store, self.day.plans[0].opens)

    def plan(self) -> Planned:
        session = self.next_session(SessionState.OPEN)
        tso = SimulatedTso(self.case.settings.tso, self.case.settings.seed, self.case.zone)
        return plan(self.day, self.store, session, session.opens, self._nominate, tso)

    def _nominate(self, unit_kw: Series) -> tuple[Series, Floats, Floats]:
        nomination = nominate(unit_kw, self.day.units)
        return nomination.schedule, nomination.up_kw, nomination.down_kw

    def offer(self, table: Path) -> int:
        """Take a table of offers from outside into the open session."""
        session = self.next_session(SessionState.CLOSED)
        return len(submit(self.day, self.store, session, read_offers(table, session.id)))

    def clear(self) -> Cleared:
        """Let the simulated providers offer, then close the gate and clear."""
        session = self.next_session(SessionState.CLOSED)
        collect(self.day, self.store, session, SimulatedProviders(self.case.settings.seed, self.case.zone))
        cleared = clear(self.day, self.store, session, session.closes)
        self.timings.append(
            {
                "session": session.id,
                "passes": cleared.passes,
                "solver_seconds": cleared.solver_seconds,
                "total_seconds": cleared.total_seconds,
            }
        )
        return cleared

    def activate(self) -> Activated:
        return activate(self.day, self.store)

    def measure(self) -> Measured:
        settings = self.case.settings
        devices = SimulatedDevices(self.day.units, settings.devices, settings.seed, self.case.axis)
        return measure(self.day, self.store, devices)

    def settle(self) -> Settled:
        return settle(self.day, self.store)

    def report(self) -> Reported:
        return report(self.day, self.store, OutcomeFolder(self.out, render))

    def sessions_left(self) -> int:
        with self.store.transaction() as t:
            known = states(t)
        return sum(known.get(session.id) != SessionState.PUBLISHED for session in self.day.plans)


@contextmanager
def open_platform(case_folder: Path, out: Path | None = None, fresh: bool = False) -> Iterator[Platform]:
    """The platform of a case folder, with its state in `out/<case>/coflex.db`; `fresh` starts it anew."""
    case = read_case(case_folder)
    where = (out or Path("out")) / case.settings.id
    if fresh and where.exists():
        shutil.rmtree(where)
    where.mkdir(parents=True, exist_ok=True)
    store = SqlStore(where / "coflex.db", case.zone)
    try:
        yield Platform(Day(case, _design(case, case_folder)), store, where)
    finally:
        store.close()


def _design(case: Case, folder: Path) -> Any:
    """The design the case names: a document in the case folder, or one that is shipped."""
    own = folder / f"{case.settings.design}.yaml"
    return read_design(own.read_text(), own.name) if own.exists() else load_design(case.settings.design)


@dataclass(frozen=True, slots=True)
class CaseOrder:
    """What to build a case from."""

    grid: str
    day: date
    seed: int
    units: int
    providers: int
    load_scale: float
    pv_scale: float
    design: str


def make_case(order: CaseOrder, folder: Path, replace_it: bool) -> Case:
    """Read the grid, draw the case, write the folder. Raises Refused or CoflexError; nothing half-written stays."""
    grid = load_grid(order.grid, CACHE)
    settings = CaseSettings(
        id=folder.name,
        title=f"{order.grid}, {order.day.isoformat()}",
        grid=order.grid,
        day=order.day,
        zone="Europe/Berlin",
        seed=order.seed,
        design=order.design,
        load_scale=order.load_scale,
        pv_scale=order.pv_scale,
        fee_share=Decimal("0.02"),
        tso=TsoSettings(up_mw=6.0, down_mw=6.0, price_limit_eur_mwh=Decimal(300)),
        devices=DeviceSettings(failure_share=0.04, noise_share=0.0),
    )
    case = draw_case(grid.grid, grid.profiles, settings, order.units, order.providers)
    write_case(folder, case, replace=replace_it)
    return case


def run(platform: Platform, progress: Progress) -> None:
    """The whole day: every verb in its order."""
    progress("register")
    platform.register()
    progress("qualify")
    platform.qualify()
    while platform.sessions_left():
        planned = platform.plan()
        progress(f"session {planned.session}")
        platform.clear()
    for name in ("activate", "measure", "settle", "report"):
        progress(name)
        getattr(platform, name)()


def main() -> None:
    """The command `coflex`."""
    build(open_platform, make_case, CaseOrder, run)()


__all__ = ["CaseOrder", "Platform", "Sequence", "Unit", "main", "make_case", "open_platform", "replace", "run"]

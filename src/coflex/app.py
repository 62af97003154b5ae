"""The only file that knows everyone: settings in, a platform out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

from coflex.adapters.exchange.tables.case_folder import check_case, read_case, write_case
from coflex.adapters.exchange.tables.day_files import write_baselines
from coflex.adapters.exchange.tables.grid_folder import read_grid_folder
from coflex.adapters.exchange.tables.outcomes import OutcomeFolder, read_offers
from coflex.adapters.exchange.tables.readings import read_readings
from coflex.adapters.exchange.tables.records import read_records
from coflex.adapters.grids.door import read_grid
from coflex.adapters.grids.profiles import HOLIDAYS, profile_readings
from coflex.adapters.grids.simbench import ZONE, load_grid
from coflex.adapters.store.memory import MemoryStore
from coflex.adapters.store.sql import SqlStore
from coflex.adapters.web.pages.day import render
from coflex.adapters.workers.dask import DaskWorkers
from coflex.adapters.workers.local import LocalWorkers, one_thread_each, processors
from coflex.adapters.workers.results import ResultFolder, put_whole
from coflex.domain.errors import CoflexError, Finding, NotReady, Refused, refuse
from coflex.domain.quantity import Floats
from coflex.domain.series import Series
from coflex.domain.time import delivery_day
from coflex.grid.estimate import Measurement
from coflex.grid.network import build
from coflex.market.design import Design, SessionPlan, design_text, designs, load_design, read_design
from coflex.market.engine import SessionState, upcoming
from coflex.metering.baselines.compute import Asked
from coflex.metering.baselines.compute import compute as compute_baseline
from coflex.metering.baselines.document import MethodDocument
from coflex.metering.baselines.record import BaselineRecord
from coflex.metering.eligibility import UnitCalendar
from coflex.metering.history import History, history_of
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
from coflex.reporting.study.areas import AreaAnswer, pq_area
from coflex.reporting.study.case import GridCase, grid_case
from coflex.reporting.study.lights import LightAnswer, lights
from coflex.reporting.study.phases import PhaseAnswer, three_phase_flow
from coflex.reporting.study.prices import FlowAnswer, PriceAnswer, nodal_prices, optimal_power_flow
from coflex.reporting.study.sensors import EstimateAnswer, estimation
from coflex.reporting.study.state import AssessAnswer, PowerFlowAnswer, assessment, power_flow
from coflex.settlement.shelf import Rulebook, rulebook
from coflex.simulation import comparison
from coflex.simulation.cases import draw_case
from coflex.simulation.city import KINDS, MediumVoltage, SubstationDay, day_ahead, substation
from coflex.simulation.devices import SimulatedDevices
from coflex.simulation.providers import SimulatedProviders, nominate
from coflex.simulation.study import COUPLED, NOTHING, DesignStudy, Document, places
from coflex.simulation.tso import SimulatedTso

if TYPE_CHECKING:
    from coflex.delivery import Field

STORE = "coflex.db"
TIMINGS = "timings.json"
GRIDS = ".grids"


@dataclass(frozen=True, slots=True)
class Offered:
    """How many offers from outside a session took."""

    session: str
    offers: int


@dataclass(frozen=True, slots=True)
class DayRun:
    """What each verb answered, in the order of the day, and how long all of it took."""

    registered: Registered
    qualified: Qualified
    planned: tuple[Planned, ...]
    cleared: tuple[Cleared, ...]
    activated: Activated
    measured: Measured
    settled: Settled
    reported: Reported
    seconds: float


@dataclass(frozen=True, eq=False)
class Platform:
    """A case, its store, and the counterparts that play it; the verbs as its methods."""

    day: Day
    store: Store
    out: Path

    @property
    def case(self) -> Case:
        return self.day.case

    def register(self) -> Registered:
        return register(self.day, self.store, self.day.plans[0].opens)

    def qualify(self) -> Qualified:
        return qualify(self.day, self.store, self.day.plans[0].opens)

    def plan(self) -> Planned:
        session = self._next(SessionState.OPEN)
        tso = SimulatedTso(self.case.settings.tso, self.case.settings.seed, self.case.zone)
        return plan(self.day, self.store, session, session.opens, self._nominate, tso)

    def offer(self, table: Path) -> Offered:
        """Take a table of offers from outside into the open session."""
        session = self._next(SessionState.CLOSED)
        return Offered(session.id, len(submit(self.day, self.store, session, read_offers(table, session.id))))

    def clear(self) -> Cleared:
        """Let the simulated providers offer, then close the gate and clear."""
        session = self._next(SessionState.CLOSED)
        collect(self.day, self.store, session, SimulatedProviders(self.case.settings.seed, self.case.zone))
        return clear(self.day, self.store, session, session.closes)

    def activate(self) -> Activated:
        return activate(self.day, self.store, self._field)

    def measure(self) -> Measured:
        settings = self.case.settings
        devices = SimulatedDevices(self.day.units, settings.devices, settings.seed, self.case.axis)
        return measure(self.day, self.store, devices, self._field)

    def settle(self) -> Settled:
        return settle(self.day, self.store)

    def report(self) -> Reported:
        return report(self.day, self.store, OutcomeFolder(self.out, render), self._field)

    @property
    def _field(self) -> Field:
        """The simulated fleet and its log, beside the day's store."""
        from coflex.delivery import LOG, Field

        return Field(self.case, self.out / LOG)

    def sessions(self, progress: Progress, clear_last: bool = True) -> tuple[Planned | Cleared, ...]:
        """Plan and clear, session after session, to the end of the day; or until the last one is open."""
        answers: list[Planned | Cleared] = []
        while (coming := self._coming()) is not None:
            session, to = coming
            if to is SessionState.OPEN:
                progress(f"plan {session.id}")
                answers.append(self.plan())
            elif clear_last or len(self._states()) < len(self.day.plans):
                progress(f"clear {session.id}")
                answers.append(self.clear())
            else:
                break
        return tuple(answers)

    def run(self, progress: Progress) -> DayRun:
        """The whole day: every verb in its order. How long the clearings took goes to `timings.json`."""
        begun = perf_counter()
        progress("register")
        registered = self.register()
        progress("qualify")
        qualified = self.qualify()
        answers = self.sessions(progress)
        progress("activate")
        activated = self.activate()
        progress("measure")
        measured = self.measure()
        progress("settle")
        settled = self.settle()
        progress("report")
        reported = self.report()
        planned = tuple(answer for answer in answers if isinstance(answer, Planned))
        cleared = tuple(answer for answer in answers if isinstance(answer, Cleared))
        seconds = perf_counter() - begun
        _write_timings(self.out / TIMINGS, cleared, seconds)
        return DayRun(registered, qualified, planned, cleared, activated, measured, settled, reported, seconds)

    def _states(self) -> dict[str, SessionState]:
        """State of every session that was planned."""
        with self.store.transaction() as t:
            return {name: SessionState(state) for name, state in states(t).items()}

    def _coming(self) -> tuple[SessionPlan, SessionState] | None:
        """The session whose step comes next and what it becomes, open or closed; None when all are cleared."""
        action = upcoming(self.day.plans, self._states())
        return None if action is None else (self.day.plan(action.session), action.to)

    def _next(self, to: SessionState) -> SessionPlan:
        """The session that becomes `to` next. Raises NotReady when another step comes first."""
        coming = self._coming()
        if coming is None:
            raise NotReady("Every session of the day is cleared.", "Go on with coflex activate.")
        session, due = coming
        if due is not to:
            state, verb = ("not open", "plan") if due is SessionState.OPEN else ("open", "clear")
            raise NotReady(f"The next session, {session.id}, is {state}.", f"Run coflex {verb} first.")
        return session

    def _nominate(self, unit_kw: Series) -> tuple[Series, Floats, Floats]:
        nomination = nominate(unit_kw, self.day.units)
        return nomination.schedule, nomination.up_kw, nomination.down_kw


@dataclass(frozen=True, eq=False)
class Study:
    """A grid by itself, and what can be asked of it."""

    case: GridCase

    # What fails is told with the doubts about the data: `GridCase.doubted`.

    def power_flow(self) -> PowerFlowAnswer:
        return power_flow(self.case)

    def three_phase_flow(self) -> PhaseAnswer:
        with self.case.doubted():
            return three_phase_flow(self.case)

    def assessment(self) -> AssessAnswer:
        return assessment(self.case)

    def estimation(self, sensors: Path) -> EstimateAnswer:
        """Raises Refused with every fault of the table of sensors."""
        measurements, faults = read_records(sensors, Measurement)
        refuse(f"The table {sensors.name}", faults)
        return estimation(self.case, measurements)

    def lights(self, count: int | None) -> LightAnswer:
        return lights(self.case, count)

    def area(self, directions: int, price_eur_mwh: float | None) -> AreaAnswer:
        with self.case.doubted():
            return pq_area(self.case, directions, price_eur_mwh)

    def prices(self, price_eur_mwh: float | None) -> PriceAnswer:
        with self.case.doubted():
            return nodal_prices(self.case, price_eur_mwh)

    def optimal_power_flow(self, model: Literal["dc", "ac"]) -> FlowAnswer:
        with self.case.doubted():
            return optimal_power_flow(self.case, model)


def baseline(
    readings: Path, weather: Path | None, asked: Asked, document: MethodDocument, zone: ZoneInfo
) -> BaselineRecord:
    """The baseline of a unit in a table of readings. Raises Refused with the faults of the tables."""
    read = read_readings(readings, weather)
    return compute_baseline(read.series, zone, asked, document, read.temperature)


def baselines_of_all(
    folder: Path, asked: Asked, document: MethodDocument, zone: ZoneInfo, out: Path
) -> tuple[int, int, int, Path]:
    """The baselines of all points of a folder of days, written as a day of `out`: how many, how many of them could
    not be made (NaN there), how many days were read for them, and the file."""
    return write_baselines(folder, asked, document, zone, out)


def history_of_readings(readings: Path, weather: Path | None, zone: ZoneInfo, calendar: UnitCalendar) -> History:
    """The whole local days of a table of readings. Raises Refused with the faults of the tables."""
    read = read_readings(readings, weather)
    return history_of(read.series, read.kinds, zone, calendar, read.temperature)


def history_of_grids(codes: Sequence[str]) -> History:
    """A year of the profiles of SimBench grids, with German holidays. Raises CoflexError on an unknown grid."""
    series, kinds = profile_readings(codes, Path("cases") / GRIDS)
    return history_of(series, kinds, ZONE, UnitCalendar(holidays=HOLIDAYS))


def study(grid: str, day: date | None, within_reach: bool = False) -> Study:
    """A grid of any format that coflex reads, with its powers as given or over a day of its profiles.

    Raises Refused with every fault of the file, CoflexError when it is none that coflex reads, or has no profiles.
    """
    read = read_grid(grid, Path("cases") / GRIDS, read_grid_folder)
    axis = None
    if day is not None:
        if read.profiles is None:
            raise CoflexError(f"The grid {grid} has no profiles to take a day from.", "Leave --day away.")
        axis = delivery_day(day, ZONE)
        if axis.start < read.profiles.axis.start or axis.end > read.profiles.axis.end:
            raise CoflexError(f"The profiles of {grid} do not hold the day {day}.", "Choose one of theirs.")
    return Study(grid_case(Path(grid).name, read.tables, read.profiles, axis, read.findings, within_reach))


def begin_day(case_folder: Path, out: Path, replace: bool) -> AbstractContextManager[Platform]:
    """The platform of a case folder with an empty store in `out/<name of the folder>/`.

    What an earlier day left there goes, if `replace`, once the case, its design and its grid were read without a
    fault. Raises Refused with the faults of the case, NotReady when there is a day and it is not to be replaced.
    """
    day, where = _read_day(case_folder), _place(case_folder, out)
    if (where / STORE).exists():
        if not replace:
            raise NotReady(f"The day in {where} has begun already.", "Go on with its next step, or add --replace.")
        shutil.rmtree(where)
    where.mkdir(parents=True, exist_ok=True)
    return _platform(day, where)


def open_day(case_folder: Path, out: Path) -> AbstractContextManager[Platform]:
    """The platform of a day that has begun. Raises Refused with the faults of the case, NotReady when it has not."""
    day, where = _read_day(case_folder), _place(case_folder, out)
    if not (where / STORE).exists():
        raise NotReady(f"There is no day in {where} yet.", "Run coflex register first.")
    return _platform(day, where)


@contextmanager
def _platform(day: Day, where: Path) -> Iterator[Platform]:
    store = SqlStore(where / STORE, day.case.zone)
    try:
        yield Platform(day, store, where)
    finally:
        store.close()


def _place(case_folder: Path, out: Path) -> Path:
    """Where the day's state is kept. Raises CoflexError when that would be, or hold, the case's own folder."""
    case = case_folder.resolve()
    where = out / case.name
    place = where.resolve()
    if place == case or place in case.parents or case in place.parents:
        raise CoflexError(f"The day's state would lie in the case's own folder {case_folder}.", "Choose another --out.")
    return where


def _read_day(folder: Path) -> Day:
    """The case of a folder, its design and rules; the faults of these and of the grid's shape are told together, then
    those between rules and products."""
    case = read_case(folder)
    findings: list[Finding] = []
    for read in (lambda: _design(case, folder), lambda: _rules(folder), lambda: build(case.grid)):
        try:
            read()
        except Refused as refused:
            findings += refused.findings
    refuse(f"The case {folder.name}", findings)
    day = Day(case, _design(case, folder), _rules(folder))
    day.check_terms()
    return day


def _design(case: Case, folder: Path) -> Design:
    """The design the case names: a document in the case folder, or one that comes with the platform."""
    own = folder / f"{case.settings.design}.yaml"
    return read_design(own.read_text(encoding="utf-8"), own.name) if own.exists() else load_design(case.settings.design)


def _rules(folder: Path) -> Rulebook:
    """The settlement rules of a case: documents in its folder `rules`, else those that come with the platform."""
    return rulebook({file.stem: file.read_text(encoding="utf-8") for file in sorted((folder / "rules").glob("*.yaml"))})


@dataclass(frozen=True, slots=True)
class CaseOrder:
    """What to draw a case from; see `coflex.simulation.cases`."""

    grid: str
    day: date
    seed: int
    units: int
    providers: int
    load_scale: float
    pv_scale: float
    design: str


@dataclass(frozen=True, slots=True)
class CaseMade:
    """Where the case is, and how much is in it."""

    case: Path
    buses: int
    units: int
    providers: int


def make_case(order: CaseOrder, folder: Path, replace: bool) -> CaseMade:
    """Read the grid, draw the case, write its folder, whole or not at all.

    Raises CoflexError on an unknown grid or design, and when the folder is there and not to be replaced.
    """
    if folder.exists() and not replace:
        raise CoflexError(f"The folder {folder} is there already.", "Name another with --out, or add --replace.")
    if folder.exists() and not (folder / "case.yaml").is_file():
        raise CoflexError(f"The folder {folder} holds something else than a case.", "Name another with --out.")
    load_design(order.design)
    source = load_grid(order.grid, folder.parent / GRIDS)
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
        tso=TsoSettings(up_mw=10.0, down_mw=10.0, price_limit_eur_mwh=Decimal(300)),
        devices=DeviceSettings(failure_share=0.04, noise_share=0.0),
    )
    case = draw_case(source.grid, source.profiles, settings, order.units, order.providers)
    refuse(f"The case {folder.name}", check_case(case))
    write_case(folder, case, replace=replace)
    return CaseMade(folder, len(case.grid.buses), len(case.units), len({unit.provider for unit in case.units}))


def run_city(
    count: int, seed: int, workers: int, progress: Progress, grids: Path = Path("cases") / GRIDS
) -> tuple[SubstationDay, ...]:
    """A day ahead at each of `count` substations (see `coflex.simulation.city`), in their order, whoever comes first.

    Each is composed, played and forgotten in one of `workers` processes, of which each keeps to one thread; only
    numbers come back. They are the same for any number of workers. `grids`: where converted grids are kept.
    Raises what a substation raises, CoflexError when a count is not positive.
    """
    if count < 1 or workers < 1:
        raise CoflexError("A city has a substation, and a process to run it, at least.", "Ask for one or more.")
    # Read here once, so that two processes do not convert the same grid.
    for kind in KINDS:
        load_grid(_city_code(kind), grids)
    answers: list[SubstationDay] = []
    with one_thread_each(), ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for answer in pool.map(partial(_substation_day, seed=seed, grids=grids), range(count)):
            progress(f"{answer.name} done, {len(answers) + 1} of {count}")
            answers.append(answer)
    return tuple(answers)


def _substation_day(number: int, seed: int, grids: Path) -> SubstationDay:
    begun = perf_counter()
    case = substation(number, seed, _city_grids(grids))
    composing = perf_counter() - begun
    return day_ahead(case, load_design(case.settings.design), MemoryStore(case.zone), composing)


@lru_cache(maxsize=1)
def _city_grids(grids: Path) -> Mapping[str, MediumVoltage]:
    """SimBench's grids of the city's kinds; a process reads them once."""
    read = {kind: load_grid(_city_code(kind), grids) for kind in KINDS}
    return {kind: MediumVoltage(one.grid, one.profiles) for kind, one in read.items()}


def _city_code(kind: str) -> str:
    return f"1-MV-{kind}--0-sw"


@dataclass(frozen=True, slots=True)
class ComparisonOrder:
    """What is compared; see `coflex.simulation.study`. `designs`: ids, files of own documents, or `all`; `cases`: how
    many seeds of the case; `held`: levers at one value each; `cluster`: address of a Dask scheduler, None for `workers`
    processes here (None: as many as there are processors); `fresh`: nothing that was done before is taken."""

    designs: tuple[str, ...]
    case: str
    cases: int
    vary: str | None
    values: tuple[float, ...]
    held: tuple[tuple[str, float], ...]
    workers: int | None
    cluster: str | None
    out: Path
    fresh: bool


def compare(order: ComparisonOrder, progress: Progress) -> comparison.Comparison:
    """Run designs on cases, each result into a file of its own under `out/runs`, and write `index.html` and
    `results.json` there. A run that fails is told in the answer and does not stop the others.

    Raises Refused with every fault of the order and of the designs, CoflexError when the cluster cannot be reached.
    """
    where = places(order.case, order.cases, order.vary, order.values, order.held)
    coupled = Document.of(load_design(COUPLED))
    wanted = _compared(order.designs, coupled)
    kept = ResultFolder(order.out / "runs")
    with DaskWorkers(order.cluster) if order.cluster else LocalWorkers(order.workers or processors()) as workers:
        found = DesignStudy(wanted, coupled, where, workers, kept, progress, order.vary, order.fresh).compare()
    page, results = order.out / "index.html", order.out / "results.json"
    put_whole(results, comparison.as_text(found))
    put_whole(page, comparison.page(found, wanted))
    return comparison.Comparison.of(found, page, results)


def _compared(names: Sequence[str], coupled: Document) -> tuple[Document, ...]:
    """The fully coupled design and those asked for, each once, in their order. Raises Refused with every fault."""
    found = {coupled.id: coupled}
    faults: list[Finding] = []
    for name in dict.fromkeys(one for given in names for one in (designs() if given == "all" else (given,))):
        try:
            text = design_text(name) if name in designs() else Path(name).read_text(encoding="utf-8")
            document = Document.of(read_design(text, name))
        except Refused as refused:
            faults += refused.findings
        except (OSError, UnicodeDecodeError):
            message = "This is no design that comes with the platform, and no file of one; see coflex compare --help."
            faults.append(Finding(name, "unknown_design", message))
        else:
            if document.id == NOTHING or found.setdefault(document.id, document) != document:
                message = f"Another run has the id {document.id}; give this design an id of its own."
                faults.append(Finding(name, "id_taken", message))
    refuse("The designs", faults)
    return tuple(found.values())


def _write_timings(path: Path, cleared: Sequence[Cleared], seconds: float) -> None:
    sessions = [
        {
            "session": one.session,
            "passes": one.passes,
            "solver_seconds": one.solver_seconds,
            "total_seconds": one.total_seconds,
        }
        for one in cleared
    ]
    path.write_text(json.dumps({"sessions": sessions, "day_seconds": seconds}, indent=1) + "\n", encoding="utf-8")

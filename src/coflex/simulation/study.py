"""A comparison of market designs: which runs it takes, one of them done, and all of them gathered.

A study is the product of designs and places, a place being a case with its seed and its levers. At every place two more
runs are made, by which the others are measured: the day without a market, and the fully coupled one. They come first,
and go to the runs of their place. Every piece of work is named by the key of what it depends on, so that what was done
before an interruption is found again.
"""

from __future__ import annotations

import json
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from importlib import resources
from itertools import product
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from coflex import __version__
from coflex.domain.errors import CoflexError, Finding, Refused, refuse
from coflex.domain.quantity import Floats
from coflex.domain.unit import Level
from coflex.market.coordination.outcome import Bought, Run
from coflex.market.coordination.run import nothing, run
from coflex.market.coordination.world import World
from coflex.market.design import Design
from coflex.reporting.coordination.kpis import as_json, kpis
from coflex.simulation.coordination import CASES, case
from coflex.simulation.plain import kept, plain
from coflex.simulation.stopwatch import Seconds, stopwatch

COUPLED, NOTHING = "smartnet_d_one", "nothing"
# The levers of a case and what they are when nobody moves them.
LEVERS: dict[str, float] = {name: value for name, value in (case.__kwdefaults__ or {}).items() if name != "seed"}
# Rooms of the package that no result depends on.
_OUTSIDE = ("adapters", "app.py", "__main__.py")

Result = dict[str, Any]


# ---------------------------------------------------------------- the plan


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A case by name, its seed, and all its levers by name, sorted: a world, wherever it is built."""

    case: str
    seed: int
    levers: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        moved = [f"{name.replace('_', ' ')} {value:g}" for name, value in self.levers if value != LEVERS.get(name)]
        return ", ".join([f"{self.case} {self.seed}", *moved])


@dataclass(frozen=True, slots=True)
class Document:
    """A design that was read without a fault: its id, its title, and all its content in one canonical text."""

    id: str
    title: str
    text: str

    @classmethod
    def of(cls, design: Design) -> Document:
        text = json.dumps(design.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return cls(design.id, design.title, text)


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work at a place. Without `measures` it is the two runs that measure the others, `document` being the
    fully coupled market; with them, the run of a design: what they left behind, each None where it failed."""

    document: Document
    place: Place
    edition: str
    measured: bool = False
    measures: tuple[Any, Any] = (None, None)

    @property
    def name(self) -> str:
        """A word for people, and for the name of a file."""
        return f"{self.document.id if self.measured else 'measures'}-{self.place.case}-{self.place.seed}"

    @property
    def key(self) -> str:
        """Of everything that the result depends on. What it is measured by follows from the place, but for runs of
        the fully coupled market that failed."""
        given = [self.measured, self.document.text, self.place.case, self.place.seed, self.place.levers, self.edition]
        given += [one is not None for one in self.measures]
        return sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()

    def told(self) -> str:
        return f"{self.document.id if self.measured else 'no market, fully coupled'} on {self.place}"


def places(
    name: str, seeds: int, vary: str | None, values: Sequence[float], held: Sequence[tuple[str, float]] = ()
) -> tuple[Place, ...]:
    """Case `name` with the seeds 1 to `seeds` and, where a lever is varied, each of its values; those of `held` stay at
    one. Raises Refused with every fault."""
    faults = list(_held_faults(vary, held))
    if name not in CASES:
        faults.append(Finding("case", "unknown_case", f"There is no case '{name}'; choose {' or '.join(CASES)}."))
    if seeds < 1:
        faults.append(Finding("cases", "too_few", "A comparison needs one case at least."))
    if vary is not None and vary not in LEVERS:
        faults.append(Finding("vary", "unknown_lever", f"There is no lever '{vary}'; choose {', '.join(LEVERS)}."))
    if (vary is None) != (not values):
        message = "A lever and its values go together; give --vary and --values, or neither."
        faults.append(Finding("values", "half_given", message))
    twice = [f"{value:g}" for value, count in Counter(values).items() if count > 1]
    if twice:
        faults.append(Finding("values", "given_twice", f"Give each value once; twice are {', '.join(twice)}."))
    refuse("The comparison", faults)
    found = []
    for seed, value in product(range(1, seeds + 1), values or (None,)):
        levers = LEVERS | dict(held) | ({} if vary is None or value is None else {vary: float(value)})
        found.append(Place(name, seed, tuple(sorted(levers.items()))))
    return tuple(found)


def _held_faults(vary: str | None, held: Sequence[tuple[str, float]]) -> Iterator[Finding]:
    """Levers that are not there, that are held at two values, or held and varied."""
    names = Counter(name for name, _ in held)
    for name, count in names.items():
        if name not in LEVERS:
            yield Finding("set", "unknown_lever", f"There is no lever '{name}'; choose {', '.join(LEVERS)}.")
        if count > 1 or name == vary:
            yield Finding("set", "set_twice", f"The lever '{name}' has two values; set it once, or vary it.")


@lru_cache(maxsize=1)
def edition() -> str:
    """Which coflex this is: its version, and a digest of every module that a result can depend on. Designs are no part
    of it: they are part of every key."""
    digest = sha256()
    with resources.as_file(resources.files("coflex")) as root:
        for file in sorted(root.rglob("*.py")):
            place = file.relative_to(root)
            if place.parts[0] not in _OUTSIDE:
                digest.update(place.as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:12]}"


# ---------------------------------------------------------------- one piece of work


class Engine(Protocol):
    """What runs a design on a case: the platform's own, or what stands for it."""

    def world(self, place: Place) -> World: ...
    def run(self, design: Design, world: World) -> Run: ...
    def nothing(self, world: World) -> Run: ...


class Platform:
    """The engine that coflex comes with."""

    def world(self, place: Place) -> World:
        return _world(place)

    def run(self, design: Design, world: World) -> Run:
        return run(design, world)

    def nothing(self, world: World) -> Run:
        return nothing(world)


@lru_cache(maxsize=1)
def _world(place: Place) -> World:
    """Jobs of one place come one after another; a process builds its world once."""
    return case(place.case, seed=place.seed, **dict(place.levers))


def work(job: Job, engine: Engine | None = None) -> Result:
    """Do a job: {"rows": one for each run}, and of the runs that measure others {"runs": what they left behind}.

    A row has the design, the place, `status`: `done` (with indicators, sessions, messages, what was bought, seconds),
    `refused` (the design asks for what the case has not) or `failed` (with the error). Nothing is raised.
    """
    engine = engine or Platform()
    if job.edition != edition():
        message = f"This worker has coflex {edition()}, the comparison is made with {job.edition}."
        return failed(job, CoflexError(message, "Install the same coflex on every worker."))
    begun = perf_counter()
    try:
        world = engine.world(job.place)
        design = Design.model_validate_json(job.document.text)
    except Exception as error:
        return failed(job, error)
    building = perf_counter() - begun
    if job.measured:
        measures = tuple(None if one is None else kept(Run, one) for one in job.measures)
        made = _made(lambda: engine.run(design, world))
        return {"rows": [_row(job.document, job.place, made, world, measures, building)]}
    without, coupled = _made(lambda: engine.nothing(world)), _made(lambda: engine.run(design, world))
    runs = tuple(one.run for one in (without, coupled))
    return {
        "rows": [
            _row(_NOTHING, job.place, without, world, runs, building),
            _row(job.document, job.place, coupled, world, runs, building),
        ],
        # Costs and the state at the end are all that others are measured by.
        "runs": [None if one is None else plain(replace(one, held=(), messages=())) for one in runs],
    }


_NOTHING = Document(NOTHING, "No market: operators order changes at the emergency price", "")


@dataclass(frozen=True, eq=False)
class _Made:
    """A run or the error in its place, and what it took."""

    run: Run | None
    error: Exception | None
    seconds: Seconds


def _made(act: Callable[[], Run]) -> _Made:
    with stopwatch() as seconds:
        try:
            found, fault = act(), None
        except Exception as error:
            found, fault = None, error
    return _Made(found, fault, seconds)


def _row(
    document: Document, place: Place, made: _Made, world: World, measures: tuple[Run | None, ...], building: float
) -> Result:
    error = made.error
    if made.run is not None:
        try:
            return (
                _told(document, place) | {"status": "done"} | _found(made.run, made.seconds, world, measures, building)
            )
        except Exception as fault:
            error = fault
    return _told(document, place) | _fault(error)


def _found(run: Run, seconds: Seconds, world: World, measures: tuple[Run | None, ...], building: float) -> Result:
    without, coupled = measures
    indicators = as_json(kpis(run, world, coupled, without, seconds.total))
    return {
        "kpis": {name: plain(value) for name, value in indicators.items()},
        "sessions": plain(run.held),
        "messages": plain(run.messages),
        "final": plain(run.final),
        "zone": world.zone.key,
        "bought": _bought(run.bought, world.axis.hours),
        "seconds": {"total": seconds.total, **seconds.parts, "outside": seconds.outside, "building": building},
    }


def _told(document: Document, place: Place) -> Result:
    at = {"name": place.case, "seed": place.seed, "levers": dict(place.levers)}
    return {"design": document.id, "title": document.title, "case": at}


def _bought(bought: Sequence[Bought], hours: float) -> list[Result]:
    """Energy and money by session, level and direction, and who pays it; money at paid prices."""
    volume: defaultdict[tuple[str, str, str, bool], Floats] = defaultdict(lambda: np.zeros(4))
    for one in bought:
        award = one.award
        level = Level.DISTRIBUTION if one.grid else Level.TRANSMISSION
        energy = award.quantity_kw * hours
        paid = energy / 1000.0 * float(award.price_eur_mwh)
        key = (award.session, level.value, award.direction.value, one.reactive)
        volume[key] += energy, paid * one.share_dso, paid * one.share_tso, paid * one.share_brp
    names = ("session", "level", "direction", "reactive")
    kinds = ("energy_kwh", "dso_eur", "tso_eur", "brp_eur")
    return [
        dict(zip(names, key, strict=True)) | {kind: round(v, 6) for kind, v in zip(kinds, sums.tolist(), strict=True)}
        for key, sums in sorted(volume.items())
    ]


def failed(job: Job, error: Exception) -> Result:
    """The result of a job that came to nothing: each of its rows with the error."""
    documents = (job.document,) if job.measured else (_NOTHING, job.document)
    rows = [_told(document, job.place) | _fault(error) for document in documents]
    return {"rows": rows} if job.measured else {"rows": rows, "runs": [None, None]}


def _fault(error: Exception | None) -> Result:
    if not isinstance(error, CoflexError):
        where = traceback.format_exception(error)
        told = {"code": "UNEXPECTED", "message": f"{type(error).__name__}: {error}", "remedy": "Report it."}
        return {"status": "failed", "error": {**told, "findings": [], "trace": "".join(where)}}
    findings = [plain(finding) for finding in error.findings] if isinstance(error, Refused) else []
    told = {"code": error.code, "message": error.message, "remedy": error.remedy}
    return {"status": "refused" if isinstance(error, Refused) else "failed", "error": {**told, "findings": findings}}


# ---------------------------------------------------------------- all of them


class Workers(Protocol):
    """Who does many jobs at once: yields (position, result) as they end; an error for a job that ended without one."""

    def run(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[tuple[int, Result | CoflexError]]: ...


class Results(Protocol):
    """Where results are kept. `read` gives None for one that is not there, with a reason if it is there and broken."""

    def read(self, name: str, key: str) -> tuple[Result | None, str]: ...
    def write(self, name: str, key: str, result: Mapping[str, Any]) -> object: ...


@dataclass(frozen=True, eq=False)
class Compared:
    """A study that was gone through. `rows`: at every place the day without a market, the fully coupled one, and the
    designs in their order; see `work`. `reused`: pieces of work that were done before, of `jobs`. `broken`: files of
    results that could not be read, and were made anew. `vary`: the lever that was varied, if any."""

    edition: str
    vary: str | None
    rows: tuple[Result, ...]
    jobs: int
    reused: int
    broken: tuple[str, ...]

    def of(self, status: str) -> tuple[Result, ...]:
        return tuple(row for row in self.rows if row["status"] == status)

    def label(self, place: Place) -> str:
        """What a place is called: no two of the study alike."""
        own = f"{place.case} {place.seed}"
        return own if self.vary is None else f"{own}, {self.vary.replace('_', ' ')} {dict(place.levers)[self.vary]:g}"


@dataclass(eq=False)
class DesignStudy:
    """Designs at places, worked through by `workers`; each result goes to `results` as it comes, so what is finished
    stays when the rest is not waited for. `fresh`: nothing that is kept there is taken."""

    documents: Sequence[Document]
    coupled: Document
    places: Sequence[Place]
    workers: Workers
    results: Results
    progress: Callable[[str], None]
    vary: str | None = None
    fresh: bool = False
    work: Callable[[Job], Result] = work
    broken: list[str] = field(default_factory=list)
    done: int = 0
    reused: int = 0

    def compare(self) -> Compared:
        """Go through it. Raises what the workers raise when none of them can be had."""
        self.begun, now = perf_counter(), edition()
        others = [one for one in self.documents if one.text != self.coupled.text]
        self.total = len(self.places) * (1 + len(others))
        first = [Job(self.coupled, place, now) for place in self.places]
        measures = self._through(first)
        then = [
            Job(document, job.place, now, True, tuple(measures[job.key]["runs"]))
            for job in first
            for document in others
        ]
        found = self._through(then)
        rows = []
        for job in first:
            rows += measures[job.key]["rows"]
            rows += [row for other in then if other.place == job.place for row in found[other.key]["rows"]]
        return Compared(now, self.vary, tuple(rows), self.total, self.reused, tuple(self.broken))

    def _through(self, jobs: Sequence[Job]) -> dict[str, Result]:
        """Results of jobs by key: those that are kept, then the others as they come."""
        found = dict(self._kept(jobs))
        self.done += len(found)
        self.reused += len(found)
        if found:
            self.progress(f"{self.done}/{self.total}: {len(found)} were done before")
        left = [job for job in jobs if job.key not in found]
        for at, given in self.workers.run(self.work, left):
            job = left[at]
            result = failed(job, given) if isinstance(given, CoflexError) else given
            found[job.key] = result = self._stored(job, result)
            self.done += 1
            self._tell(job, result)
        return found

    def _stored(self, job: Job, result: Result) -> Result:
        """The result as it was kept; where no file can hold it, that is what is kept."""
        try:
            self.results.write(job.name, job.key, result)
        except (TypeError, ValueError) as error:
            result = failed(job, error)
            self.results.write(job.name, job.key, result)
        return result

    def _kept(self, jobs: Iterable[Job]) -> Iterator[tuple[str, Result]]:
        for job in () if self.fresh else jobs:
            result, fault = self.results.read(job.name, job.key)
            if fault:
                self.broken.append(fault)
                self.progress(f"{fault}; it is made anew")
            if result is not None and all(row["status"] != "failed" for row in result["rows"]):
                yield job.key, result

    def _tell(self, job: Job, result: Result) -> None:
        words = {"done": "", "refused": ", cannot be run", "failed": ", failed"}
        worst = max((row["status"] for row in result["rows"]), key=list(words).index)
        elapsed = perf_counter() - self.begun
        self.progress(f"{self.done}/{self.total}, {elapsed:.0f} s: {job.told()}{words[worst]}")

"""A city: HV/MV substations of one to three medium-voltage grids each, no two alike, and a day ahead at each of them.

A substation is a case of its own. Its grids hang from one bus of the grid above (`grid.attach`); the loads of each are
scaled until its highest withdrawal of the year is a share of its transformers' rated power, its photovoltaics until
their highest feed-in is. The shares run through their ranges as the R2 sequence does (M. Roberts, "The Unreasonable
Effectiveness of Quasirandom Sequences", 2018), so that every beginning of the city is mixed as the whole is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from time import perf_counter

import numpy as np

from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.domain.light import DynamicLight
from coflex.domain.quantity import Floats
from coflex.domain.series import Series
from coflex.domain.unit import Technology
from coflex.grid.attach import Attachment, attach
from coflex.grid.tables import Bus, GridTables, Source
from coflex.market.design import Design, DistributionGrid, Needs, SessionPlan
from coflex.process.clear import clear
from coflex.process.day import Day
from coflex.process.offer import collect
from coflex.process.plan import plan
from coflex.process.ports import Case, CaseSettings, DeviceSettings, Store, TsoSettings
from coflex.process.qualify import qualify
from coflex.process.register import register
from coflex.simulation.cases import draw_case, scaled
from coflex.simulation.providers import SimulatedProviders, nominate, seeded
from coflex.simulation.tso import SimulatedTso

KINDS = ("urban", "rural", "comm", "semiurb")
# Substation after substation: of SimBench's grids 25 of them have 600 feeders.
SUBSTATIONS = (*(("urban", "urban"), ("rural", "comm", "semiurb")) * 12, ("rural", "rural", "rural"))
DAY = date(2016, 7, 5)
# As many units at each load, and as many providers, as in the case of one grid that `make run` plays.
UNITS_OF_LOAD, PROVIDERS = 2.3, 14

# Highest withdrawal and highest feed-in of photovoltaics, as shares of the transformers' rated power.
_LOAD_SHARE, _PV_SHARE = (0.35, 0.85), (0.2, 1.2)
# By how much one grid of a substation may differ from the substation's share.
_OWN = (0.9, 1.1)
_TOP, _TOP_KV, _TOP_PU = "HV", 110.0, 1.025
# 1/g and 1/g^2 of the plastic number g, the real root of g^3 = g + 1.
_PLASTIC = 1.324717957244746


@dataclass(frozen=True, eq=False)
class MediumVoltage:
    """A medium-voltage grid with its HV/MV transformers and one source, and the profiles of its year."""

    tables: GridTables
    profiles: Series


@dataclass(frozen=True, slots=True)
class PartSeconds:
    """What each part of a substation's day ahead took, by the clock: read and draw, static lights (once, when units
    register), assessment, offers, clearing, dynamic lights."""

    composing: float
    qualifying: float
    assessing: float
    offering: float
    clearing: float
    lighting: float

    @property
    def day_ahead(self) -> float:
        """What comes again every day and is the operator's and the market's own: all but drawing and qualifying, and
        the providers' offers."""
        return self.assessing + self.clearing + self.lighting


@dataclass(frozen=True, slots=True)
class SubstationDay:
    """A day ahead at one substation in numbers; equal when everything but the time it took is.

    `lights`: how many dynamic lights (perimeter, direction, quarter-hour) of each colour; `capability_mwh`: the energy
    that they allow, up and down together.
    """

    name: str
    feeders: int
    nodes: int
    units: int
    qualified_kw: int
    violations: int
    needs: int
    offers: int
    awards: int
    awarded_mwh: float
    cost_eur: Decimal
    uncovered: int
    lights: dict[str, int]
    capability_mwh: float
    seconds: PartSeconds = field(compare=False)


def compose(count: int, seed: int, grids: Mapping[str, MediumVoltage], day: date = DAY) -> Iterator[Case]:
    """The first `count` substations of a city, each drawn when it is asked for. See `substation`."""
    return (substation(number, seed, grids, day) for number in range(count))


def substation(number: int, seed: int, grids: Mapping[str, MediumVoltage], day: date = DAY) -> Case:
    """One substation (from 0) of the city of a seed, a function of these values alone: neither the other substations
    nor the order in which they are drawn matter. `grids`: one for each of KINDS, sources at 110 kV.

    After the last of SUBSTATIONS the kinds begin again, with other shares and units. Raises Refused when grids lack
    or give one profile two meanings, CoflexError when a grid is too small for its units.
    """
    kinds = SUBSTATIONS[number % len(SUBSTATIONS)]
    missing = [kind for kind in kinds if kind not in grids]
    refuse("The grids of the city", [Finding(f"grid {k}", "missing", "Give a grid of this kind.") for k in missing])
    name = f"city-{number + 1:02d}"
    chance = seeded(seed, name)
    load, pv = _shares(number, seed)
    parts = []
    for place, kind in enumerate(kinds, start=1):
        own = chance.uniform(*_OWN, 2)
        stressed = _stressed(grids[kind], load * float(own[0]), pv * float(own[1]))
        parts.append(Attachment(f"{kind}-{place}", stressed, _TOP))
    tables = attach(_above([part.tables for part in parts]), parts)
    settings = CaseSettings(
        id=name,
        title=f"{' and '.join(kinds)}, loads to {load:.2f} and photovoltaics to {pv:.2f} of the rated power",
        grid="+".join(kinds),
        day=day,
        zone="Europe/Berlin",
        seed=int(chance.integers(2**31)),
        design="beflexible_six",
        load_scale=1.0,
        pv_scale=1.0,
        tso=TsoSettings(up_mw=10.0, down_mw=10.0, price_limit_eur_mwh=Decimal(300)),
        devices=DeviceSettings(failure_share=0.04, noise_share=0.0),
    )
    return draw_case(tables, _profiles(kinds, grids), settings, round(UNITS_OF_LOAD * len(tables.loads)), PROVIDERS)


def _shares(number: int, seed: int) -> tuple[float, float]:
    """Shares of load and photovoltaics of a substation: point `number` of the R2 sequence from a seeded start."""
    start = seeded(seed, "shares").random(2)
    at = (start + (number + 1) / np.array([_PLASTIC, _PLASTIC**2])) % 1.0
    low, high = np.array([_LOAD_SHARE, _PV_SHARE]).T
    load, pv = (low + at * (high - low)).tolist()
    return load, pv


def _stressed(grid: MediumVoltage, load_share: float, pv_share: float) -> GridTables:
    """The grid with the peaks of its loads and of its photovoltaics at shares of its transformers' rated power."""
    rated = sum(row.sn_mva for row in grid.tables.transformers)
    suns = [(g.profile, g.p_mw) for g in grid.tables.generators if g.technology == Technology.PV]
    loads = [(row.profile_p, row.p_mw) for row in grid.tables.loads]
    return scaled(
        grid.tables,
        load_share * rated / _peak(grid.profiles, loads),
        pv_share * rated / _peak(grid.profiles, suns),
    )


def _peak(profiles: Series, powers: Sequence[tuple[str, float]]) -> float:
    """The highest sum in MW over the year of powers (profile, MW). Raises CoflexError when there is none."""
    weight: Floats = np.zeros(len(profiles.names))
    at = {name: row for row, name in enumerate(profiles.names)}
    always = 0.0
    for name, mw in powers:
        if name:
            weight[at[name]] += mw
        else:
            always += mw
    highest = float((weight @ profiles.values).max(initial=0.0)) + always
    if highest <= 0:
        raise CoflexError("A grid of the city has no loads or no photovoltaics.", "Take another grid of its kind.")
    return highest


def _above(grids: Sequence[GridTables]) -> GridTables:
    """The grid above: one bus that holds its voltage, in the middle of what it feeds."""
    buses = [bus for grid in grids for bus in grid.buses]
    longitude, latitude = (
        round(float(np.mean([getattr(bus, name) for bus in buses])), 6) for name in ("longitude", "latitude")
    )
    top = Bus(_TOP, _TOP_KV, 0.9, 1.1, longitude, latitude, "")
    return GridTables((top,), (), (), (), (Source("above", _TOP, _TOP_PU),), (), (), ())


def _profiles(kinds: Sequence[str], grids: Mapping[str, MediumVoltage]) -> Series:
    """All profiles of the kinds, each once. Raises Refused where one name has two meanings."""
    found: dict[str, Floats] = {}
    faults = []
    axis = grids[kinds[0]].profiles.axis
    for kind in dict.fromkeys(kinds):
        profiles = grids[kind].profiles
        if profiles.axis != axis:
            faults.append(Finding(f"grid {kind}", "other_axis", "Its profiles begin or end at another time."))
            continue
        for name, values in zip(profiles.names, profiles.values, strict=True):
            if not np.array_equal(found.setdefault(name, values), values):
                message = "Another grid has this profile with other values; give it a name of its own."
                faults.append(Finding(f"grid {kind}, profile {name}", "named_twice", message))
    refuse("The profiles of the city's grids", faults)
    names = tuple(sorted(found))
    return Series(names, axis, np.array([found[name] for name in names]))


# ---------------------------------------------------------------- a day ahead


def day_ahead(case: Case, design: Design, store: Store, composing: float = 0.0) -> SubstationDay:
    """Play a substation's day ahead in an empty store, with simulated counterparts: units qualify, the first local
    session assesses the day and is cleared, and the session it forwards to gets the lights of all perimeters.

    `composing`: seconds that the case took. Raises CoflexError when the design has no such pair of sessions.
    """
    day = Day(case, design)
    local, following = _pair(day)
    seed = case.settings.seed
    tso = SimulatedTso(case.settings.tso, seed, case.zone)

    def nominated(unit_kw: Series) -> tuple[Series, Floats, Floats]:
        found = nominate(unit_kw, day.units)
        return found.schedule, found.up_kw, found.down_kw

    marks = [perf_counter()]
    register(day, store, local.opens)
    qualified = qualify(day, store, local.opens)
    marks.append(perf_counter())
    assessed = plan(day, store, local, local.opens, nominated, tso)
    marks.append(perf_counter())
    collect(day, store, local, SimulatedProviders(seed, case.zone))
    marks.append(perf_counter())
    cleared = clear(day, store, local, local.closes)
    marks.append(perf_counter())
    lit = plan(day, store, following, following.opens, nominated, tso)
    marks.append(perf_counter())
    with store.transaction() as t:
        safe_kw = sum(light.capability_kw for light in t.all(DynamicLight, session=following.id))
    return SubstationDay(
        name=case.settings.id,
        feeders=len(day.perimeters),
        nodes=day.network.n,
        units=len(day.units),
        qualified_kw=qualified.qualified_kw,
        violations=assessed.violations,
        needs=assessed.needs,
        offers=cleared.offers,
        awards=cleared.awards,
        awarded_mwh=cleared.definitive_mwh + cleared.preliminary_mwh,
        cost_eur=cleared.cost_eur,
        uncovered=cleared.uncovered,
        lights=lit.lights,
        capability_mwh=safe_kw * following.horizon.hours / 1000,
        seconds=PartSeconds(composing, *np.diff(marks).tolist()),
    )


def _pair(day: Day) -> tuple[SessionPlan, SessionPlan]:
    """The first session, which must assess the grid, and the one after it, which must work under its lights."""
    for local, following in zip(day.plans, day.plans[1:], strict=False):
        assesses = local.session.needs is Needs.ASSESSMENT
        if assesses and following.session.grid.distribution is DistributionGrid.CAPABILITY:
            return local, following
        break
    raise CoflexError(
        f"The design {day.design.id} does not begin with a session on an assessment and one under lights.",
        "Choose beflexible_six.",
    )

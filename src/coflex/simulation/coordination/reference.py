"""The reference case: a region of 107 nodes with 72 sellers on a summer day. 5 July 2016, Europe/Rome.

    transmission  12 buses: a 380 kV ring A, B, C (source at A), a 110 kV mesh b1 to b9, three 250 MVA transformers
                  between them; six towns, a wind park of 230 MW, a solar park of 90 MW; 8 sellers
    coast         at b5: 29 nodes, 4 overhead feeders, ten solar parks that raise voltages at noon; 22 sellers
    town          at b2: 33 nodes, 4 cable feeders, charging and heat pumps that load them in the evening, an open tie
                  between f1 and f3, capacitors at f1-4; a feeder of low voltage below it; 23 sellers
    valley        at b6: 33 nodes, 4 cable feeders, hydro, industry and some of all; 19 sellers

Each distribution grid has one 110/20 kV transformer; limits are 0.95 to 1.05 pu there and 0.9 to 1.1 pu above. What
flows follows from the closed forms in `profiles` and the rated powers in this file. `congestion` moves coast's
photovoltaics and town's charging, heat pumps and households between half of those and (at 1) all of them, and beyond.

Limits broken by AC power flow before any market, as elements times quarter-hours:

    congestion                                   0     0.5    0.8    1
    coast, voltage too high (11:45 to 16:30)     0     0      17     60    six nodes, at most 1.0543 pu
    town, lines overloaded (19:15 to 20:45)      0     0      0      20    five of three feeders, at most 111.3 %
    transmission, line b7-b8 above its 75 %      9     7      5      4     when wind and sun are high

At liquidity 1 the offers mend each of them, in every quarter-hour and all together.

Sellers offer what they can: photovoltaics and parks less than they give, batteries both ways, plants between nothing
and their rated power, loads 80 % of what they draw less and half of what is left more. Prices lie up to 15 % around
those of the technology. All sell for congestion, voltage, balancing and commercial trade; capacity by technology, at an
availability that is a share of the price of energy; reactive power from photovoltaics, batteries and hydro. Four
batteries are let as well (`storage`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from coflex.domain.quantity import Direction, Floats, Ints
from coflex.domain.series import Series
from coflex.domain.time import Axis, delivery_day
from coflex.domain.unit import Technology
from coflex.grid.attach import Attachment
from coflex.grid.tables import Generator, Load
from coflex.grid.voltage_reduction import Exponential, VoltageLoads, reduce_voltage
from coflex.market.coordination.world import Order, Seller, VoltageReduction, World
from coflex.market.design import Service
from coflex.simulation.coordination.assembly import (
    DAY,
    REACTIVE,
    ZONE,
    Book,
    CapacityRow,
    EnergyRow,
    Levers,
    Needs,
    Place,
    place,
    seller,
    world,
)
from coflex.simulation.coordination.feeder import feeder
from coflex.simulation.coordination.grids import (
    CABLE_95,
    CABLE_150,
    OVERHEAD_20,
    Plan,
    medium_voltage,
    transmission,
)
from coflex.simulation.coordination.profiles import bell, hours, profiles
from coflex.simulation.coordination.storage import reference_bids, reference_lots

UP, DOWN = Direction.UP, Direction.DOWN
T = Technology


@dataclass(frozen=True, slots=True)
class _Kind:
    """What units of a technology are like. `profile` of the element, empty where it rests; `generates`; prices of
    energy up and down in EUR/MWh before their spread; `tan_phi` of what follows; kvar for each kW rated."""

    profile: str
    generates: bool
    up_eur: float
    down_eur: float
    tan_phi: float
    kvar: float
    services: tuple[Service, ...]


_KINDS: Mapping[Technology, _Kind] = {
    T.PV: _Kind("sun", True, 0, 48, 0.0, 0.4, ()),
    T.BATTERY: _Kind("", True, 56, 44, 0.0, 0.4, (Service.FCR, Service.AFRR)),
    T.CHP: _Kind("steady", True, 68, 26, 0.0, 0.0, (Service.AFRR, Service.MFRR, Service.RR)),
    T.HYDRO: _Kind("hydro", True, 60, 22, 0.0, 0.3, (Service.FCR, Service.AFRR, Service.MFRR)),
    T.EV_CHARGING: _Kind("ev", False, 88, 34, 0.0, 0.0, (Service.AFRR,)),
    T.HEAT_PUMP: _Kind("heat_pump", False, 78, 32, 0.2, 0.0, (Service.MFRR, Service.RR)),
    T.WATER_PUMP: _Kind("water_pump", False, 64, 28, 0.3, 0.0, (Service.MFRR, Service.RR)),
    T.INDUSTRIAL_LOAD: _Kind("industrial", False, 120, 72, 0.3, 0.0, (Service.MFRR, Service.RR)),
}
_COMMON = (Service.CONGESTION, Service.VOLTAGE, Service.BALANCING, Service.COMMERCIAL)
# Of a load, what may be taken off; of what it could take more, what it offers; of a plant, what it keeps running.
_LESS, _MORE = 0.8, 0.5


@dataclass(frozen=True, slots=True)
class _Grid:
    """A distribution grid: where it hangs, its plan, the households of each bus in MW, its units as (technology, MW,
    buses). `stressed` technologies, and households with `load` among them, grow with congestion."""

    border: str
    plan: Plan
    household_mw: float
    units: tuple[tuple[Technology, float, tuple[str, ...]], ...]
    stressed: tuple[str, ...]

    def share(self, kind: str, congestion: float) -> float:
        """Share of its rated power that an element has at a congestion."""
        return _QUIET + (1 - _QUIET) * congestion if kind in self.stressed else 1.0


# Share of what is stressed that stands at congestion 0.
_QUIET = 0.5
_GRIDS: Mapping[str, _Grid] = {
    "coast": _Grid(
        "b5",
        Plan(4, 7, OVERHEAD_20, OVERHEAD_20, 1.6, -1, 40.0),
        0.25,
        (
            (T.PV, 2.7, ("f1-3", "f1-5", "f1-7", "f2-2", "f2-4", "f2-6", "f3-4", "f3-6", "f4-3", "f4-5")),
            (T.BATTERY, 0.8, ("f1-6", "f2-5", "f3-5", "f4-4")),
            (T.CHP, 0.8, ("f2-3", "f4-2")),
            (T.WATER_PUMP, 0.7, ("f1-4", "f2-7", "f3-3", "f4-6")),
            (T.HEAT_PUMP, 0.4, ("f1-2", "f3-2")),
        ),
        ("pv",),
    ),
    "town": _Grid(
        "b2",
        Plan(4, 8, CABLE_150, CABLE_95, 0.75, -1, 50.0, (1, 3), "f1-4"),
        0.88,
        (
            (T.EV_CHARGING, 1.8, ("f1-5", "f1-7", "f2-4", "f2-8", "f3-6", "f4-5")),
            (T.HEAT_PUMP, 1.1, ("f1-6", "f1-8", "f2-6", "f3-5", "f4-7")),
            (T.BATTERY, 1.0, ("f1-4", "f2-7", "f3-8", "f4-6")),
            (T.CHP, 1.2, ("f1-3", "f3-7")),
            (T.INDUSTRIAL_LOAD, 1.4, ("f3-2", "f4-3")),
            (T.PV, 0.5, ("f1-2", "f2-3", "f3-4", "f4-8")),
        ),
        ("ev_charging", "heat_pump", "household"),
    ),
    "valley": _Grid(
        "b6",
        Plan(4, 8, CABLE_150, CABLE_150, 1.1, 0, 25.0),
        0.35,
        (
            (T.PV, 0.8, ("f1-4", "f1-8", "f2-5", "f3-3", "f3-7", "f4-6")),
            (T.HYDRO, 1.5, ("f1-2", "f2-3", "f4-4")),
            (T.INDUSTRIAL_LOAD, 1.1, ("f2-6", "f3-5", "f4-2")),
            (T.EV_CHARGING, 0.6, ("f1-6", "f4-8")),
            (T.BATTERY, 0.7, ("f1-5", "f2-8", "f3-8")),
            (T.HEAT_PUMP, 0.5, ("f2-4", "f3-6")),
        ),
        (),
    ),
}


def _attachments(congestion: float) -> list[Attachment]:
    return [_attachment(name, grid, congestion) for name, grid in _GRIDS.items()]


def _attachment(name: str, grid: _Grid, congestion: float) -> Attachment:
    mw = grid.household_mw * grid.share("household", congestion)
    loads = [Load(f"households {bus}", bus, mw, 0.2 * mw, "household", "household") for bus in grid.plan.buses()]
    generators = []
    for technology, rated, buses in grid.units:
        kind, mw = _KINDS[technology], rated * grid.share(technology, congestion)
        for bus in buses:
            element = f"{technology} {bus}"
            if kind.generates and kind.profile:
                generators.append(Generator(element, bus, mw, 0.0, technology, kind.profile))
            elif kind.profile:
                loads.append(Load(element, bus, mw, kind.tan_phi * mw, kind.profile, kind.profile))
    return Attachment(name, medium_voltage(grid.plan, tuple(loads), tuple(generators)), grid.border)


@dataclass(frozen=True, slots=True)
class _Big:
    """A seller at the transmission grid: bus, kW up and down all day, EUR/MWh up and down, services. `element`: the
    park whose output is what it can give less of, empty for a plant that moves both ways."""

    id: str
    bus: str
    kw: tuple[int, int]
    eur: tuple[float, float]
    services: tuple[Service, ...]
    element: str = ""


_RESERVES = (Service.FCR, Service.AFRR, Service.MFRR, Service.RR, Service.INERTIA)
_BIG = (
    _Big("t-gas-b1", "b1", (20_000, 15_000), (92, 30), _RESERVES),
    _Big("t-gas-b4", "b4", (18_000, 18_000), (86, 33), _RESERVES),
    _Big("t-hydro-b7", "b7", (15_000, 12_000), (74, 24), _RESERVES),
    _Big("t-hydro-b9", "b9", (12_000, 12_000), (71, 27), _RESERVES),
    _Big("t-plant-B", "B", (25_000, 25_000), (97, 36), _RESERVES),
    _Big("t-steel-b3", "b3", (8_000, 0), (140, 0), (Service.MFRR, Service.RR)),
    _Big("t-wind-b8", "b8", (0, 230_000), (0, 52), (Service.AFRR,), "wind b8"),
    _Big("t-sun-b9", "b9", (0, 90_000), (0, 57), (Service.AFRR,), "pv b9"),
)
_PROVIDERS = 7


@dataclass(frozen=True, eq=False)
class _Unit:
    """A unit that sells: what it can do in each quarter-hour, kW up and down, and at what price before its spread."""

    id: str
    bus: str
    up_kw: Ints
    down_kw: Ints
    up_eur: float
    down_eur: float
    tan_phi: float
    kvar: int
    services: tuple[Service, ...]


def reference(*, liquidity: float = 1.0, congestion: float = 1.0, forecast_error: float = 0.0, seed: int = 1) -> World:
    """The reference case. Levers as of `case`: the grid and what flows follow from `congestion` alone; prices, errors
    of forecasts, the order in which sellers come with liquidity and the ripple of the system's need from `seed`, too.
    Raises CoflexError on a lever out of its range, GridFailure far above a congestion of 1."""
    levers = Levers(liquidity, congestion, forecast_error, seed)
    axis = delivery_day(DAY, ZONE)
    where = place(transmission(), _attachments(congestion))
    shapes = profiles(axis, ZONE)
    flows = where.injections(shapes)
    units = sorted([*_small_units(congestion, shapes), *_big_units(shapes)], key=lambda one: one.id)
    prices = _prices(units, seed)
    ranked = [units[i].id for i in _chance(seed, 1).permutation(len(units)).tolist()]
    sellers, rows = _sellers(where, units), (_energy(units, prices), _capacity(units, prices))
    lots = reference_lots(axis, sellers, levers.offering(ranked))
    book = Book(sellers, *rows, levers.offering(ranked), lots)
    price, bids = _energy_price(axis), reference_bids(axis, lots, _chance(seed, 20))
    needs = Needs(_orders(axis), _system(axis, seed), _RESERVE_KW, _LOCAL_KW, price, _profile(axis), bids)
    reductions = (_reduction(where, shapes, *flows),)
    phases = feeder(axis, "town", congestion=congestion)
    return world("reference", where, flows, _errors(where, shapes, seed), book, needs, reductions, phases, levers)


def _chance(seed: int, use: int) -> np.random.Generator:
    """One stream for each use, so that none moves another."""
    return np.random.default_rng([seed, use])


# ---------------------------------------------------------------- who sells


def _small_units(congestion: float, shapes: Series) -> Iterator[_Unit]:
    for name, grid in _GRIDS.items():
        for technology, rated, buses in grid.units:
            kind, mw = _KINDS[technology], rated * grid.share(technology, congestion)
            up, down = _room(technology, mw, shapes)
            for bus in buses:
                yield _Unit(
                    id=f"{name}-{technology.replace('_', '-')}-{bus}",
                    bus=f"{name}/{bus}",
                    up_kw=up,
                    down_kw=down,
                    up_eur=kind.up_eur,
                    down_eur=kind.down_eur,
                    tan_phi=kind.tan_phi,
                    kvar=int(1000 * kind.kvar * rated),
                    services=kind.services,
                )


def _room(technology: Technology, mw: float, shapes: Series) -> tuple[Ints, Ints]:
    """kW (t,) that a unit can give more and less. What renews itself gives less alone, a battery that rests both, a
    plant what is left of its rated power and what it gives; a load most of what it draws, and part of what is left."""
    kind = _KINDS[technology]
    running = 1000 * mw * (shapes.row(kind.profile) if kind.profile else np.zeros(len(shapes.axis)))
    left = np.maximum(1000 * mw - running, 0.0)
    if technology is T.PV:
        return _whole(np.zeros(len(running))), _whole(running)
    if technology is T.BATTERY:
        return _whole(left), _whole(left)
    if kind.generates:
        return _whole(left), _whole(running)
    return _whole(_LESS * running), _whole(_MORE * left)


def _whole(kw: Floats) -> Ints:
    whole: Ints = np.floor(kw + 1e-6).astype(np.int64)
    return whole


def _big_units(shapes: Series) -> Iterator[_Unit]:
    suns = {"wind b8": "wind", "pv b9": "sun"}
    always = np.ones(len(shapes.axis))
    for one in _BIG:
        shape = shapes.row(suns[one.element]) if one.element else always
        up, down = _whole(one.kw[0] * always), _whole(one.kw[1] * shape)
        yield _Unit(one.id, one.bus, up, down, one.eur[0], one.eur[1], 0.0, 0, one.services)


def _sellers(where: Place, units: list[_Unit]) -> tuple[Seller, ...]:
    """Units in the order of their ids; providers take them in turn."""
    return tuple(
        seller(
            where,
            one.id,
            f"sp-{number % _PROVIDERS + 1}",
            one.bus,
            (int(one.up_kw.max()), int(one.down_kw.max())),
            [*_COMMON, *one.services],
            one.tan_phi,
        )
        for number, one in enumerate(units)
    )


def _prices(units: list[_Unit], seed: int) -> dict[tuple[str, Direction], Decimal]:
    """Prices by seller and direction, up to 15 % around those of the technology; no two alike in a direction."""
    spread = _chance(seed, 2).uniform(0.85, 1.15, (len(units), 2))
    found: dict[tuple[str, Direction], Decimal] = {}
    for side, direction in enumerate((UP, DOWN)):
        taken: set[int] = set()
        for one, share in zip(units, spread[:, side].tolist(), strict=True):
            cents = round(100 * share * (one.up_eur, one.down_eur)[side])
            while cents in taken:
                cents += 1
            taken.add(cents)
            found[one.id, direction] = Decimal(cents) / 100
    return found


def _energy(units: list[_Unit], prices: Mapping[tuple[str, Direction], Decimal]) -> Iterator[EnergyRow]:
    for one in units:
        for direction, kw in ((UP, one.up_kw), (DOWN, one.down_kw)):
            if kw.any():
                yield EnergyRow(one.id, direction, kw, prices[one.id, direction])
            if one.kvar:
                # A kvar costs little beside a kW: a tenth of what active power down does.
                price = (prices[one.id, DOWN] / 10).quantize(Decimal("0.01"))
                yield EnergyRow(one.id, direction, np.full(len(kw), one.kvar, dtype=np.int64), price, REACTIVE)


# Availability in EUR/MW and hour as a share of the price of energy, directions, and the share of what a unit can
# always give; of inertia kW s for each kW.
_CAPACITY: Mapping[Service, tuple[str, tuple[Direction, ...], float]] = {
    Service.FCR: ("0.20", (UP, DOWN), 0.3),
    Service.AFRR: ("0.15", (UP, DOWN), 0.5),
    Service.MFRR: ("0.08", (UP, DOWN), 0.8),
    Service.RR: ("0.05", (UP, DOWN), 1.0),
    Service.INERTIA: ("0.01", (UP,), 5.0),
    Service.BALANCING: ("0.10", (UP, DOWN), 0.6),
    Service.CONGESTION: ("0.06", (UP, DOWN), 0.6),
}
_RESERVE_KW = {
    (Service.FCR, UP): 3000,
    (Service.FCR, DOWN): 3000,
    (Service.AFRR, UP): 8000,
    (Service.AFRR, DOWN): 8000,
    (Service.MFRR, UP): 12_000,
    (Service.MFRR, DOWN): 8000,
    (Service.RR, UP): 8000,
    (Service.RR, DOWN): 5000,
    (Service.INERTIA, UP): 150_000,
    (Service.BALANCING, UP): 6000,
    (Service.BALANCING, DOWN): 5000,
    (Service.CONGESTION, UP): 5000,
    (Service.CONGESTION, DOWN): 5000,
}
_LOCAL_KW = {(Service.CONGESTION, UP): 2000, (Service.CONGESTION, DOWN): 2000}


def _capacity(units: list[_Unit], prices: Mapping[tuple[str, Direction], Decimal]) -> Iterator[CapacityRow]:
    for one in units:
        least = {UP: int(one.up_kw.min()), DOWN: int(one.down_kw.min())}
        for service in sorted({*one.services, *_COMMON} & set(_CAPACITY)):
            share, directions, part = _CAPACITY[service]
            for direction in directions:
                kw, use = int(part * least[direction]), prices[one.id, direction]
                if kw:
                    availability = (Decimal(share) * use).quantize(Decimal("0.01"))
                    yield CapacityRow(one.id, service, direction, kw, availability, use)


# ---------------------------------------------------------------- what is needed


def _system(axis: Axis, seed: int) -> Ints:
    """Up in the morning and the evening ramp, down at noon, with a ripple of two waves; whole 100 kW."""
    h = hours(axis, ZONE)
    first, second = _chance(seed, 3).uniform(0, 2 * np.pi, 2).tolist()
    swell = 9.0 * bell(h, 7.5, 1.2) - 14.0 * bell(h, 13.0, 2.2) + 15.0 * bell(h, 19.75, 1.8)
    ripple = 1.2 * np.sin(2 * np.pi * h / 3.1 + first) + 0.8 * np.sin(2 * np.pi * h / 1.3 + second)
    need: Ints = 100 * np.round(10 * (swell + ripple)).astype(np.int64)
    return need


def _energy_price(axis: Axis) -> Floats:
    """EUR/MWh between the grids: 62, less at noon, more in the evening; whole cents."""
    h = hours(axis, ZONE)
    price: Floats = np.round(62 - 24 * bell(h, 13.5, 3.0) + 30 * bell(h, 20.0, 2.0), 2)
    return price


def _profile(axis: Axis) -> Ints:
    """kvar of coast, town and valley: coast is to take up at noon, town and valley to give in the evening."""
    h = hours(axis, ZONE)
    noon, evening = (h >= 12) & (h < 15), (h >= 19) & (h < 21)
    return np.array([-600 * noon, 300 * evening, 200 * evening], dtype=np.int64)


def _orders(axis: Axis) -> tuple[Order, ...]:
    """Four parties whose portfolios miss, or have too much of, some MW around an hour; whole 10 kW."""
    h = hours(axis, ZONE)
    asked = (
        ("brp-1", 2200, 8.0, 90.0),
        ("brp-2", -3000, 12.5, 60.0),
        ("brp-3", 2600, 18.5, 110.0),
        ("brp-4", -900, 3.0, 20.0),
    )
    return tuple(
        Order(f"order-{party}", party, 10 * np.round(kw / 10 * bell(h, middle, 1.5)).astype(np.int64), limit)
        for party, kw, middle, limit in asked
    )


# By how much forecasts of a day ahead err, as a share of the element's power, by what its profile is.
_ERRORS = {"sun": 0.15, "wind": 0.06, "household": 0.06, "commercial": 0.05, "ev": 0.20, "heat_pump": 0.12}


def _errors(where: Place, shapes: Series, seed: int) -> Floats:
    """MW (t, n) by which a forecast of a day ahead lies above what will flow: a part common to all elements of a
    profile and one of the element's own, each a smooth wave over the day."""
    errors = np.zeros((len(shapes.axis), where.network.n))
    h = hours(shapes.axis, ZONE)
    phases = {name: _chance(seed, 10 + k).uniform(0, 2 * np.pi, 3) for k, name in enumerate(sorted(_ERRORS))}
    rows = [(g.generator, g.bus, g.p_mw, g.profile) for g in where.tables.generators]
    rows += [(row.load, row.bus, -row.p_mw, row.profile_p) for row in where.tables.loads]
    own = _chance(seed, 4).uniform(0, 2 * np.pi, (len(rows), 2))
    for (_, bus, mw, profile), phase in zip(sorted(rows), own, strict=True):
        if profile in _ERRORS:
            common = _wave(h, phases[profile])
            alone = np.sin(2 * np.pi * h / 7.3 + phase[0]) * np.sin(2 * np.pi * h / 17 + phase[1])
            drift = _ERRORS[profile] * (0.7 * common + 0.5 * alone)
            errors[:, where.network.node_of(bus)] += mw * shapes.row(profile) * drift
    errors[:, where.network.slack] = 0.0
    return np.round(errors, 6)


def _wave(h: Floats, phase: Floats) -> Floats:
    """Three sines of one day, half and a fifth of it; at most 1."""
    wave: Floats = sum(
        share * np.sin(2 * np.pi * times * h / 24 + p)
        for share, times, p in zip((0.5, 0.3, 0.2), (1, 2, 5), phase.tolist(), strict=True)
    )
    return wave


# Of loads that cannot be told apart: between constant power and constant current, and reactive power as of machines.
_KP, _KQ = 0.9, 2.4
_STEP_EUR = (18.0, 26.0, 40.0)


def _reduction(where: Place, shapes: Series, p: Floats, q: Floats) -> VoltageReduction:
    """Three steps of town's tap on its households."""
    rows = sorted((row for row in where.tables.loads if row.load.startswith("town/households")), key=lambda r: r.load)
    shape = shapes.row("household")[:, None]
    powers = [np.array([getattr(row, name) for row in rows]) * shape for name in ("p_mw", "q_mvar")]
    node = np.array([where.network.node_of(row.bus) for row in rows])
    model = Exponential(np.full(len(rows), _KP), np.full(len(rows), _KQ))
    loads = VoltageLoads(node, powers[0], powers[1], model)
    found = reduce_voltage(where.tables, ["town/t1"], p, q, loads, len(_STEP_EUR), where.own("town"))
    return VoltageReduction("town", found.kw, found.change_p_mw, found.change_q_mvar, _STEP_EUR)

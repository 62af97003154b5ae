"""A low-voltage feeder of four wires below a distribution grid: one phase too high at noon, one too low at night.

    M -(20/0.4 kV, Dyn5)- B0 - B1 - B2 - B3 - B4        150 mm2 aluminium, 0.48 km to B4
                                    |
                                    B5 - B6             0.34 km to B6

    a   photovoltaics at B3, B4 and B6 all stand on it
    b   charging and heat pumps of the same houses
    c   households alone

Limits: 0.93 to 1.07 pu, ratings of cable and transformer, a neutral like the phases, negative sequence at 2 % of the
positive one. Broken by three-phase power flow before any market, as elements times quarter-hours:

    congestion                                      0     0.5    1     1.2
    voltage of phase a too high (10:45 to 15:45)    0     0      30    44     at most 1.0803 pu at 1
    voltage of phase b too low (19:15 to 20:30)     0     0      8     11     at least 0.9054 pu at 1
    negative over positive sequence, evening        0     0      0     4      at most 1.98 % at 1, 2.25 % at 1.2

Single-phase units sell on their phase, a battery on all three: a dozen offers, which mend all of this. Closed forms
of the local hour; nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import numpy as np

from coflex.domain.offer import Offer, OfferStep
from coflex.domain.quantity import Direction, Floats, Ints
from coflex.domain.series import Series
from coflex.domain.time import Axis
from coflex.grid import unbalanced
from coflex.grid.injection import element_powers
from coflex.grid.network import build
from coflex.grid.tables import Bus, Generator, GridTables, Line, Load, Source, Transformer
from coflex.market.coordination.world import PhaseFeeder
from coflex.simulation.coordination.assembly import EARLY, ENERGY, ZONE, not_negative
from coflex.simulation.coordination.profiles import bell, hours

UP, DOWN = Direction.UP, Direction.DOWN
# Ohm, ohm and nF per km of positive and of zero sequence, a four-core cable of 150 mm2 aluminium.
_POSITIVE, _ZERO = (0.206, 0.0805, 260.0), (0.83, 0.31, 150.0)
_RATED_A, _V_MIN, _V_MAX = 275.0, 0.93, 1.07
_KM = {
    ("B0", "B1"): 0.12,
    ("B1", "B2"): 0.10,
    ("B2", "B3"): 0.14,
    ("B3", "B4"): 0.12,
    ("B2", "B5"): 0.06,
    ("B5", "B6"): 0.06,
}
# kW of households at their peak, on each phase of each bus.
_HOUSES = {
    "B1": (3.0, 2.5, 3.0),
    "B2": (2.0, 2.0, 2.5),
    "B3": (1.5, 2.0, 2.0),
    "B4": (1.5, 2.0, 1.5),
    "B6": (1.5, 1.0, 2.0),
}
# kW of photovoltaics on phase a; of charging and of heat pumps on phase b.
_SUN = {"B3": 9.0, "B4": 9.0, "B6": 6.0}
_CARS = {"B3": 7.4, "B4": 7.4}
_HEAT = {"B4": 6.0, "B6": 4.0}
_HEAT_TAN = 0.2
# Share of photovoltaics, charging and heat pumps that stands at congestion 0.
_QUIET = 0.4


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A unit: where, on which phase (nothing: all three), kvar that follow a kW, and what it offers up and down. kW
    all day, or the element whose power is what it can give up: less production, or less withdrawal."""

    id: str
    provider: str
    bus: str
    phase: str
    tan_phi: float
    up: tuple[int | str, str] | None
    down: tuple[int | str, str] | None


_SHEETS = (
    _Sheet("roof-1", "sp-1", "B3", "a", 0.0, None, ("pv B3", "62")),
    _Sheet("roof-2", "sp-2", "B4", "a", 0.0, None, ("pv B4", "70")),
    _Sheet("roof-3", "sp-1", "B6", "a", 0.0, None, ("pv B6", "55")),
    _Sheet("home-a", "sp-3", "B4", "a", 0.0, (3, "95"), (3, "40")),
    _Sheet("home-b", "sp-3", "B3", "b", 0.0, (3, "85"), (3, "45")),
    _Sheet("car-1", "sp-2", "B3", "b", 0.0, ("car B3", "110"), None),
    _Sheet("car-2", "sp-1", "B4", "b", 0.0, ("car B4", "120"), None),
    _Sheet("heat-1", "sp-2", "B4", "b", _HEAT_TAN, ("heat B4", "90"), None),
    _Sheet("store", "sp-3", "B6", "", 0.0, (12, "75"), (12, "50")),
)


def feeder(axis: Axis, grid: str, *, congestion: float = 1.0) -> PhaseFeeder:
    """The feeder below the distribution grid of that name on a day's axis.

    `congestion`: photovoltaics, charging and heat pumps, from 40 % of what they are (0, where no limit is broken) to
    all of it (1) and beyond. Raises CoflexError on a congestion below 0 or without end.
    """
    tables = feeder_tables(congestion)
    phases = unbalanced.build(tables, build(tables))
    p_of, q_of = element_powers(tables, _shapes(axis))
    kw = dict(zip(phases.network.element_names, np.floor(np.abs(p_of) * 1000).astype(np.int64), strict=True))
    return PhaseFeeder(
        grid=grid,
        phases=phases,
        p_mw=unbalanced.injections(phases, p_of),
        q_mvar=unbalanced.injections(phases, q_of),
        units=tuple(sheet.id for sheet in _SHEETS),
        providers=tuple(sheet.provider for sheet in _SHEETS),
        node=np.array([phases.network.node_of(sheet.bus) for sheet in _SHEETS], dtype=np.int64),
        share=np.array([_share(sheet.phase) for sheet in _SHEETS]),
        tan_phi=np.array([sheet.tan_phi for sheet in _SHEETS]),
        offers=tuple(_offers(axis, kw)),
    )


def feeder_tables(congestion: float = 1.0) -> GridTables:
    """The feeder as tables, its elements at their peak. Raises CoflexError as `feeder`."""
    not_negative("congestion", congestion)
    stress = _QUIET + (1 - _QUIET) * congestion
    names = ("M", "B0", "B1", "B2", "B3", "B4", "B5", "B6")
    low = [Bus(name, 0.4, _V_MIN, _V_MAX, 12.0, round(42 + 0.001 * i, 4), "feeder") for i, name in enumerate(names[1:])]
    buses = (Bus("M", 20.0, 0.95, 1.05, 12.0, 42.0, ""), *low)
    lines = tuple(_cable(a, b, km) for (a, b), km in _KM.items())
    plate = (0.25, 20.0, 0.4, 4.0, 1.325, 0.6, 0.24, 150.0, "hv", 0, -2, 2, 2.5, 0, 100.0, "Dyn5", 4.0, 1.325)
    houses = [
        Load(f"house {bus}{f}", bus, kw / 1000, 0.2 * kw / 1000, "household", "household", f)
        for bus, three in _HOUSES.items()
        for f, kw in zip("abc", three, strict=True)
    ]
    cars = [Load(f"car {bus}", bus, stress * kw / 1000, 0.0, "evening", "", "b") for bus, kw in _CARS.items()]
    heat = [
        Load(f"heat {bus}", bus, stress * kw / 1000, _HEAT_TAN * stress * kw / 1000, "evening", "evening", "b")
        for bus, kw in _HEAT.items()
    ]
    suns = tuple(
        Generator(f"pv {bus}", bus, stress * kw / 1000, 0.0, "pv", "sun", 0.0, "a") for bus, kw in _SUN.items()
    )
    source = (Source("above", "M", 1.015),)
    return GridTables(
        buses, lines, (Transformer("T", "M", "B0", *plate),), (), source, (*houses, *cars, *heat), suns, ()
    )


def _cable(a: str, b: str, km: float) -> Line:
    (r, x, c), (r0, x0, c0) = ([km * value for value in terms] for terms in (_POSITIVE, _ZERO))
    return Line(f"{a}-{b}", a, b, km, r, x, c, _RATED_A, 100.0, r0, x0, c0)


def _shapes(axis: Axis) -> Series:
    """Households, sun (a clear day) and what comes home in the evening, by the local hour; six digits."""
    h = hours(axis, ZONE)
    rows = {
        "household": 0.30 + 0.15 * bell(h, 8, 1.8) + 0.55 * bell(h, 20, 2.2),
        "sun": np.maximum(np.sin(np.pi * np.clip((h - 5.6) / 15.4, 0.0, 1.0)), 0.0) ** 1.3,
        "evening": 0.10 + 0.90 * bell(h, 20.0, 1.2),
    }
    return Series(tuple(rows), axis, np.round(np.array(list(rows.values())), 6))


def _share(phase: str) -> Floats:
    return np.array([float(phase == f) for f in "abc"]) if phase else np.full(3, 1 / 3)


def _offers(axis: Axis, kw: dict[str, Ints]) -> Iterator[Offer]:
    """The offers, received a minute apart in the order of unit and direction."""
    rows = [
        (sheet, direction, *asked)
        for sheet in sorted(_SHEETS, key=lambda one: one.id)
        for direction, asked in ((UP, sheet.up), (DOWN, sheet.down))
        if asked is not None
    ]
    for number, (sheet, direction, what, price) in enumerate(rows, start=1):
        able = kw[what] if isinstance(what, str) else np.full(len(axis), what, dtype=np.int64)
        yield Offer(
            id=f"phase-{sheet.id}-{direction}",
            receipt=number,
            received_at=axis.start - EARLY + number * timedelta(minutes=1),
            session="case",
            provider=sheet.provider,
            product=ENERGY,
            direction=direction,
            unit=sheet.id,
            group=None,
            steps=(OfferStep(1, axis.start, Decimal(price), tuple(able.tolist())),),
        )

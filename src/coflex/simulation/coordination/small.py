"""The small case: nine nodes, every number of it checkable by hand. 5 July 2016, Europe/Rome; hours are local.

    west: hv = mv ------ end
          |                     (hv of each grid is a bus of the 110 kV triangle, mv and end are at 20 kV)
         ONE (slack, 1.000001 pu)
         /  \\           one-two 36 MW, one-three and two-three 60 MW, three equal lines
      TWO -- THREE
       |       |
    north    south     each: hv = mv ------ end, transformer `=` 40 MVA, lines of north 4, south 5, west 10 MW

All impedances but that of west's line are 1e-5 pu of 1 MVA (resistance a thousandth of it), so losses stay below 20 W,
voltages at 1.0 pu and power flows by hand hold to 1 kW: a line of the triangle carries, with d2 and d3 withdrawn at
TWO and THREE, one-two (2 d2 + d3)/3, one-three (d2 + 2 d3)/3. Limits of voltage: 0.95 to 1.05 pu in distribution, 0.9
to 1.1 in transmission.

Withdrawals in MW (Mvar), all day unless an hour says otherwise; c is `congestion`:

    TWO 29, at 08 29 + 12c             THREE 24
    north/end load 1, its photovoltaics 4.5 at 10, 4.5 + 1.5c at 12, else 0
    south/mv 3 · south/end 3, at 19 4.5 + 1.5c
    west/end 0, at 21 2 + 3c (1 + 2c)

    hour  at c = 1                                              broken in its four quarter-hours
    08    d2 42, d3 30: one-two (84 + 30)/3 = 38 MW            one-two by 2 MW: 3 MW up at TWO or 6 MW up at THREE
    10    north exports 3.5 of 4 MW                            none; more than 0.5 MW up at north/end would
    12    north exports 5 MW                                   north/line by 1 MW: 1 MW down at north/end
    19    south/end draws 6 MW                                 south/line by 1 MW: 1 MW up at south/end
    21    west/end at 0.94085 pu                               voltage of west/end

West's line and transformer have R = 2 and X = 4 ohm at 20 kV together, r = 0.005 and x = 0.01 pu. Behind a source at
1.0 pu a load P + jQ sees

    V^4 + V^2 (2 (r P + x Q) - 1) + (r^2 + x^2)(P^2 + Q^2) = 0

so V^2 = 0.445 + sqrt(0.445^2 - 0.00425) = 0.88520 for 5 + j3. With V = 0.95 it is solved by Q = 2.1693 (at P = 5) and
by P = 3.4596 (at Q = 3): it takes 831 kvar, or 1541 kW without reactive power.

System need in kW, up positive: 10 +4000 · 12:00, 12:15 -1500 (with north's need) · 12:30, 12:45 +1500 (against it) ·
15 -4000 · 19:00, 19:15 +2000 (with south's) · 19:30, 19:45 -800 (against it). In the order of price the need at 10
takes s3 2000, w1 1000 and n1 1000, of which north's line carries 500; s1 comes next.

Sellers (all: congestion, voltage, balancing, commercial; reserve as below), kW and EUR/MWh all day:

    id  at           up          down         id  at           up          down
    n1  north/end    1500 @ 30   1500 @ 20    w1  west/mv      1000 @ 25   1000 @ 25
    n2  north/end    1000 @ 60   2000 @ 45    w2  west/end     2000 @ 55   1000 @ 65
    n3  north/mv     2000 @ 50   2000 @ 15    w3  west/end     reactive alone
    s1  south/end     800 @ 35    800 @ 30    t1  ONE         10000 @ 40  10000 @ 60
    s2  south/end    1500 @ 45    500 @ 35    t2  TWO         10000 @ 70  10000 @ 50
    s3  south/mv     2000 @ 20   2000 @ 40    t3  THREE       10000 @ 65  10000 @ 55

    reactive, kvar and EUR/Mvarh: w3 up 1500 @ 4, down 1500 @ 4 · w2 up 1000 @ 8, down 1000 @ 8

    the TSO wants of west +1000 kvar at 15 and -2000 kvar at 16, of the others nothing

    capacity, kW (inertia kW s), EUR/MW and hour; used at the price of the unit's energy
    fcr, up and down     n1 500 @ 8 · w1 500 @ 10 · t1 1000 @ 12       needed 1000 up, 1000 down
    afrr, up and down    s3 1000 @ 6 · t2 2000 @ 9 · t3 2000 @ 11      needed 1500 up, 1500 down
    mfrr, up             n3 1000 @ 3 · t3 3000 @ 4                     needed 2000
    rr, up               s2 1000 @ 1 · t1 3000 @ 2                     needed 1000
    inertia, up          t2 10000 @ 0.2 · t1 15000 @ 0.5               needed 20000
    balancing            s1 800 @ 5 · t3 3000 @ 7, up and down         needed 2000 up, 1000 down
    congestion           t2 2000 @ 1 · n2 1000 @ 2 · s2 500 @ 3 · w2 1000 @ 4, up and down
                         needed by the TSO 2000 up, by the DSOs 1000 up, 1000 down

South's tap lowers its 20 kV side by 1 % a step; the load at south/mv is of constant current, so each of four steps, at
10, 20, 30 and 40 EUR/MWh, saves 1 % of 3 MW: 30 kW. None at 19 while the line is overloaded, as the load at south/end
draws constant power and its current would grow.

Balance responsible parties, 17: brp-1 +600 kW to 50 EUR/MWh (s3 sells), brp-2 -400 to 50 (n3). 06: brp-3 +500 to 15,
below every price. Energy between the grids 40, emergency 400, value 1000 EUR/MWh. At `forecast_error` 1 a forecast of
a day ahead puts north/end at 10 to 13 and south/end at 19 each 0.5 MW too high.

The taps of the three grids, four steps of 1 % either way, are what a DSO may set itself; one up mends west/end. The
feeder of low voltage of `feeder` hangs below south, for phases alone; the storage to let of `storage` rests at south,
whatever the liquidity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import sqrt

import numpy as np

from coflex.domain.quantity import Direction, Floats, Ints
from coflex.domain.series import Series
from coflex.domain.time import Axis, delivery_day
from coflex.grid.attach import Attachment
from coflex.grid.tables import Bus, Generator, GridTables, Line, Load, Source, Transformer
from coflex.grid.voltage_reduction import Exponential, VoltageLoads, reduce_voltage
from coflex.market.coordination.world import Order, VoltageReduction, World
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
from coflex.simulation.coordination.storage import small_bids, small_lots

UP, DOWN = Direction.UP, Direction.DOWN
BOTH = (UP, DOWN)
_HV, _MV = 110.0, 20.0
# Series impedance in pu of 1 MVA of every branch that is to be all but ideal.
_SMALL = 1e-8 + 1e-5j
# Of west's line and transformer together.
_WEST = 0.005 + 0.01j
# The source stands this little above 1 pu so that whole kW as found by hand keep a limit in AC as well.
_ABOVE = 1.000001
_EVERY = (Service.CONGESTION, Service.VOLTAGE, Service.BALANCING, Service.COMMERCIAL)


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A seller: kW and EUR/MWh up and down."""

    id: str
    provider: str
    bus: str
    up: tuple[int, int]
    down: tuple[int, int]


# In the order in which they come with liquidity: one of each grid at a time.
_SHEETS = (
    _Sheet("n1", "sp-1", "north/end", (1500, 30), (1500, 20)),
    _Sheet("s1", "sp-2", "south/end", (800, 35), (800, 30)),
    _Sheet("w1", "sp-3", "west/mv", (1000, 25), (1000, 25)),
    _Sheet("t1", "sp-4", "ONE", (10_000, 40), (10_000, 60)),
    _Sheet("s2", "sp-1", "south/end", (1500, 45), (500, 35)),
    _Sheet("w3", "sp-2", "west/end", (0, 0), (0, 0)),
    _Sheet("t2", "sp-5", "TWO", (10_000, 70), (10_000, 50)),
    _Sheet("n3", "sp-3", "north/mv", (2000, 50), (2000, 15)),
    _Sheet("s3", "sp-3", "south/mv", (2000, 20), (2000, 40)),
    _Sheet("w2", "sp-1", "west/end", (2000, 55), (1000, 65)),
    _Sheet("t3", "sp-4", "THREE", (10_000, 65), (10_000, 55)),
    _Sheet("n2", "sp-2", "north/end", (1000, 60), (2000, 45)),
)
_KVAR = {"w3": (1500, 4), "w2": (1000, 8)}
_CAPACITY: Mapping[Service, tuple[tuple[Direction, ...], tuple[tuple[str, int, str], ...]]] = {
    Service.FCR: (BOTH, (("n1", 500, "8"), ("w1", 500, "10"), ("t1", 1000, "12"))),
    Service.AFRR: (BOTH, (("s3", 1000, "6"), ("t2", 2000, "9"), ("t3", 2000, "11"))),
    Service.MFRR: ((UP,), (("n3", 1000, "3"), ("t3", 3000, "4"))),
    Service.RR: ((UP,), (("s2", 1000, "1"), ("t1", 3000, "2"))),
    Service.INERTIA: ((UP,), (("t2", 10_000, "0.2"), ("t1", 15_000, "0.5"))),
    Service.BALANCING: (BOTH, (("s1", 800, "5"), ("t3", 3000, "7"))),
    Service.CONGESTION: (BOTH, (("n2", 1000, "2"), ("s2", 500, "3"), ("w2", 1000, "4"), ("t2", 2000, "1"))),
}
_STEP_EUR = (10.0, 20.0, 30.0, 40.0)
_RESERVE = {
    (Service.FCR, UP): 1000,
    (Service.FCR, DOWN): 1000,
    (Service.AFRR, UP): 1500,
    (Service.AFRR, DOWN): 1500,
    (Service.MFRR, UP): 2000,
    (Service.RR, UP): 1000,
    (Service.INERTIA, UP): 20_000,
    (Service.BALANCING, UP): 2000,
    (Service.BALANCING, DOWN): 1000,
    (Service.CONGESTION, UP): 2000,
}
_LOCAL = {(Service.CONGESTION, UP): 1000, (Service.CONGESTION, DOWN): 1000}


def small(*, liquidity: float = 1.0, congestion: float = 1.0, forecast_error: float = 0.0, seed: int = 1) -> World:
    """The small case. `liquidity`, `congestion`, `forecast_error` as of `case`; nothing is drawn, so every `seed` gives
    the same. Raises CoflexError on a lever out of its range."""
    levers = Levers(liquidity, congestion, forecast_error, seed)
    axis = delivery_day(DAY, ZONE)
    where = place(_transmission(), [_grid("north", 4.0), _grid("south", 5.0), _grid("west", 10.0, _WEST - _SMALL)])
    flows = where.injections(_profiles(axis, congestion))
    sellers = tuple(
        seller(where, s.id, s.provider, s.bus, (s.up[0], s.down[0]), _services(s.id), 0.0)
        for s in sorted(_SHEETS, key=lambda s: s.id)
    )
    book = Book(sellers, _energy(axis), _capacity(), levers.offering([s.id for s in _SHEETS]), small_lots(axis))
    price, bids = np.full(len(axis), 40.0), small_bids(axis)
    needs = Needs(_orders(axis), _system(axis), _RESERVE, _LOCAL, price, _profile(axis), bids)
    reductions, phases = (_reduction(where, *flows),), feeder(axis, "south", congestion=congestion)
    return world("small", where, flows, _errors(where, axis), book, needs, reductions, phases, levers)


# ---------------------------------------------------------------- the grids


def _transmission() -> GridTables:
    buses = tuple(Bus(name, _HV, 0.9, 1.1, 11.0 + i, 45.0, "") for i, name in enumerate(("ONE", "TWO", "THREE")))
    lines = (
        _line("one-two", "ONE", "TWO", _HV, 36.0, _SMALL),
        _line("one-three", "ONE", "THREE", _HV, 60.0, _SMALL),
        _line("two-three", "TWO", "THREE", _HV, 60.0, _SMALL),
    )
    loads = (_load("load two", "TWO", "two"), _load("load three", "THREE", "three"))
    return GridTables(buses, lines, (), (), (Source("above", "ONE", _ABOVE),), loads, (), ())


def _grid(name: str, line_mw: float, z_pu: complex = _SMALL) -> Attachment:
    """A distribution grid: transformer, one line, a load at its end that follows the profile of the grid's name."""
    above = {"north": "TWO", "south": "THREE", "west": "ONE"}[name]
    buses = (
        Bus("hv", _HV, 0.9, 1.1, 11.0, 45.0, ""),
        Bus("mv", _MV, 0.95, 1.05, 11.0, 45.0, "feeder"),
        Bus("end", _MV, 0.95, 1.05, 11.1, 45.0, "feeder"),
    )
    sn = 40.0
    vk, vkr = 100 * sn * abs(_SMALL), 100 * sn * _SMALL.real
    transformer = Transformer(
        "transformer", "hv", "mv", sn, _HV, _MV, vk, vkr, 0.0, 0.0, 0.0, "lv", 0, -4, 4, 1.0, 0, 100.0
    )
    suns = (Generator("photovoltaics", "end", 1.0, 0.0, "pv", "sun"),) if name == "north" else ()
    lines = (_line("line", "mv", "end", _MV, line_mw, z_pu),)
    source = (Source("source", "hv", 1.0),)
    loads = [_load("load", "end", name)] + ([_load("load mv", "mv", "south mv")] if name == "south" else [])
    return Attachment(name, GridTables(buses, lines, (transformer,), (), source, tuple(loads), suns, ()), above)


def _line(name: str, a: str, b: str, kv: float, mw: float, z_pu: complex) -> Line:
    """A line that may carry `mw` at rated voltage."""
    z = z_pu * kv**2
    return Line(name, a, b, 1.0, z.real, z.imag, 0.0, 1000 * mw / (sqrt(3) * kv), 100.0)


def _load(name: str, bus: str, profile: str) -> Load:
    """A load whose profiles are MW and Mvar."""
    return Load(name, bus, 1.0, 1.0, profile, f"{profile} q")


# ---------------------------------------------------------------- what flows, and what is needed


def _hours(axis: Axis, normal: float, *other: tuple[float, float]) -> Floats:
    """A value all day, and others in single hours (hour, value); half hours count too."""
    values = np.full(len(axis), normal)
    for hour, value in other:
        values[round(4 * hour) : round(4 * hour) + 4] = value
    return values


def _profiles(axis: Axis, c: float) -> Series:
    rows = {
        "two": _hours(axis, 29.0, (8, 29.0 + 12 * c)),
        "three": _hours(axis, 24.0),
        "north": _hours(axis, 1.0),
        "sun": _hours(axis, 0.0, (10, 4.5), (12, 4.5 + 1.5 * c)),
        "south mv": _hours(axis, 3.0),
        "south": _hours(axis, 3.0, (19, 4.5 + 1.5 * c)),
        "west": _hours(axis, 0.0, (21, 2.0 + 3 * c)),
        "west q": _hours(axis, 0.0, (21, 1.0 + 2 * c)),
    }
    rows |= {f"{name} q": np.zeros(len(axis)) for name in ("two", "three", "north", "south", "south mv")}
    return Series(tuple(rows), axis, np.array(list(rows.values())))


def _errors(where: Place, axis: Axis) -> Floats:
    errors = np.zeros((len(axis), where.network.n))
    errors[:, where.network.node_of("north/end")] = _hours(axis, 0.0, *((hour, 0.5) for hour in (10, 11, 12, 13)))
    errors[:, where.network.node_of("south/end")] = _hours(axis, 0.0, (19, 0.5))
    return errors


def _system(axis: Axis) -> Ints:
    need = _hours(axis, 0.0, (10, 4000), (12, -1500), (15, -4000), (19, 2000))
    need[4 * 12 + 2 : 4 * 13], need[4 * 19 + 2 : 4 * 20] = 1500, -800
    return need.astype(np.int64)


def _profile(axis: Axis) -> Ints:
    still = _hours(axis, 0.0)
    return np.array([still, still, _hours(axis, 0.0, (15, 1000), (16, -2000))], dtype=np.int64)


def _orders(axis: Axis) -> tuple[Order, ...]:
    asked = (("brp-1", 17, 600, 50.0), ("brp-2", 17, -400, 50.0), ("brp-3", 6, 500, 15.0))
    return tuple(
        Order(f"order-{party}", party, _hours(axis, 0.0, (hour, kw)).astype(np.int64), limit)
        for party, hour, kw, limit in asked
    )


def _reduction(where: Place, p: Floats, q: Floats) -> VoltageReduction:
    node = where.network.node_of("south/mv")
    one = np.ones(1)
    loads = VoltageLoads(np.array([node]), -p[:, [node]], -q[:, [node]], Exponential(one, one))
    found = reduce_voltage(where.tables, ["south/transformer"], p, q, loads, len(_STEP_EUR), where.own("south"))
    return VoltageReduction("south", found.kw, found.change_p_mw, found.change_q_mvar, _STEP_EUR)


# ---------------------------------------------------------------- who sells


def _energy(axis: Axis) -> Iterator[EnergyRow]:
    for sheet in _SHEETS:
        for direction, (kw, price) in ((UP, sheet.up), (DOWN, sheet.down)):
            if kw:
                yield EnergyRow(sheet.id, direction, np.full(len(axis), kw, dtype=np.int64), Decimal(price))
    for one, (kvar, price) in _KVAR.items():
        for direction in BOTH:
            yield EnergyRow(one, direction, np.full(len(axis), kvar, dtype=np.int64), Decimal(price), REACTIVE)


def _capacity() -> Iterator[CapacityRow]:
    use = {(s.id, d): Decimal(price) for s in _SHEETS for d, (_, price) in ((UP, s.up), (DOWN, s.down))}
    for service, (directions, rows) in _CAPACITY.items():
        for one, kw, availability in rows:
            for direction in directions:
                yield CapacityRow(one, service, direction, kw, Decimal(availability), use[one, direction])


def _services(one: str) -> list[Service]:
    """What a seller is qualified for: energy of every kind, and the reserve that it offers."""
    reserves = [service for service, (_, rows) in _CAPACITY.items() if one in {row[0] for row in rows}]
    return list(dict.fromkeys([*_EVERY, *reserves]))

"""Random small worlds: radial distribution grids on two or three transmission buses, all but without losses.

A world has a whole delivery day, and one to three busy quarter-hours in which something flows, some limits may bind and
something is needed; the others are empty. Impedances are 1e-5 pu of 1 MVA, so that flows by hand (sums below a line,
Kirchhoff in the triangle) are those of the full power flow within a watt.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from math import sqrt
from typing import Any

import numpy as np
from hypothesis import strategies as st

from coflex.domain.quantity import CENT, Direction, Floats, Ints
from coflex.domain.series import Series
from coflex.domain.time import delivery_day
from coflex.grid.attach import Attachment
from coflex.grid.tables import Bus, GridTables, Line, Load, Source, Transformer
from coflex.market.coordination.world import Order, Seller, World
from coflex.market.design import Service
from coflex.simulation.coordination.assembly import (
    DAY,
    REACTIVE,
    ZONE,
    CapacityRow,
    EnergyRow,
    Place,
    capacity,
    offers,
    place,
    seller,
)

UP, DOWN = Direction.UP, Direction.DOWN
HV, MV = 110.0, 20.0
Z = 1e-8 + 1e-5j
# A little above 1 pu, so that whole kW found by hand keep a limit under the full power flow as well.
ABOVE = 1.000001
AXIS = delivery_day(DAY, ZONE)
SERVICES = (Service.CONGESTION, Service.VOLTAGE, Service.BALANCING, Service.COMMERCIAL)
NAMES = ("east", "mid", "rim")
# Each kind of limit as a share of the largest flow: it binds, or it is far.
TIGHT, FAR = (0.55, 0.95), (1.5, 4.0)


@dataclass(frozen=True, slots=True)
class Shape:
    """`parents[g][i]`: what node i of grid g hangs on, -1 for its 20 kV busbar. `border[g]`: transmission bus."""

    buses: int
    border: tuple[int, ...]
    parents: tuple[tuple[int, ...], ...]


@st.composite
def shapes(draw: st.DrawFn, grids: int | None = None) -> Shape:
    buses = draw(st.integers(2, 3))
    count = grids if grids is not None else draw(st.integers(1, 3))
    border = tuple(draw(st.integers(0, buses - 1)) for _ in range(count))
    parents = tuple(tuple(draw(st.integers(-1, i - 1)) for i in range(draw(st.integers(1, 3)))) for _ in range(count))
    return Shape(buses, border, parents)


@st.composite
def worlds(
    draw: st.DrawFn,
    *,
    grids: int | None = None,
    binding: bool | None = None,
    busy: int | None = None,
    reactive: bool = False,
    reserve: bool = False,
    forecast_error: float = 0.0,
) -> World:
    """A random world. `grids`: how many distribution grids, 1 to 3; `binding`: whether ratings are below what flows
    (None: some may be); `busy`: how many quarter-hours are not empty, 1 to 3; `reactive`, `reserve`: with offers of
    reactive power, of capacity. `forecast_error`: the world's error level; errors are drawn with it alone.

    Prices are whole cents, no two alike; quantities whole kW.
    """
    shape = draw(shapes(grids))
    when = sorted(draw(st.sets(st.integers(0, 95), min_size=busy or 1, max_size=busy or 3)))
    mw = _flows(draw, shape, len(when))
    where = place(*_tables(draw, shape, mw, binding))
    p, q = where.injections(_series(shape, mw, when))
    units = draw(st.integers(1, 2))
    sellers = _sellers(draw, where, shape, units)
    count = 2 * len(sellers) * (1 + reactive + reserve)
    cents = draw(st.lists(st.integers(100, 30_000), min_size=count, max_size=count, unique=True))
    rows, held = _rows(draw, sellers, cents, reactive, reserve)
    errors = np.zeros_like(p)
    if forecast_error:
        errors[when] = np.array(draw(_many(len(when) * where.network.n, -500, 500))).reshape(len(when), -1) / 1000
        errors[:, where.network.slack] = 0.0
    return World(
        id="random",
        axis=AXIS,
        zone=ZONE,
        network=where.network,
        grids=where.grids,
        node_grid=where.node_grid,
        branch_grid=where.branch_grid,
        border=where.border,
        p_mw=p,
        q_mvar=q,
        error_p_mw=errors,
        error_level=forecast_error,
        sellers=sellers,
        offers=offers(AXIS, sellers, rows),
        reactive=frozenset({REACTIVE}),
        capacity=capacity(AXIS, sellers, held),
        groups={},
        orders=_orders(draw, when),
        system_kw=_at(when, draw(_many(len(when), -3000, 3000))),
        reserve_kw={(Service.AFRR, d): np.full(96, draw(st.integers(0, 2000))) for d in (UP, DOWN) if reserve},
        energy_eur_mwh=np.full(96, float(draw(st.integers(20, 90)))),
        emergency_eur_mwh=400.0,
        value_eur_mwh=1000.0,
    )


def _many(count: int, low: int, high: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(low, high), min_size=count, max_size=count)


def _at(when: list[int], kw: list[int]) -> Ints:
    """kW of the busy quarter-hours on the whole axis."""
    values = np.zeros(len(AXIS), dtype=np.int64)
    values[when] = kw
    return values


def _flows(draw: Any, shape: Shape, busy: int) -> dict[str, Floats]:
    """Injection in MW at each bus (but the slack's T0) in each busy quarter-hour, to the kW."""
    names = [f"T{i}" for i in range(1, shape.buses)]
    names += [f"{NAMES[g]}/n{i}" for g, nodes in enumerate(shape.parents) for i in range(len(nodes))]
    return {name: np.array(draw(_many(busy, -5000, 4000))) / 1000 for name in names}


def _tables(
    draw: Any, shape: Shape, mw: dict[str, Floats], binding: bool | None
) -> tuple[GridTables, list[Attachment]]:
    ends = [(0, 1)] if shape.buses == 2 else [(0, 1), (0, 2), (1, 2)]
    total = max(1.0, sum(float(np.abs(values).max()) for values in mw.values()))
    lines = tuple(_line(f"T{a}-T{b}", f"T{a}", f"T{b}", HV, _rating(draw, total / len(ends), binding)) for a, b in ends)
    buses = tuple(Bus(f"T{i}", HV, 0.9, 1.1, 8.0, 50.0, "") for i in range(shape.buses))
    loads = tuple(Load(f"load T{i}", f"T{i}", -1.0, 0.0, f"T{i}", "") for i in range(1, shape.buses))
    above = GridTables(buses, lines, (), (), (Source("above", "T0", ABOVE),), loads, (), ())
    return above, [_grid(draw, g, shape, mw, binding) for g in range(len(shape.parents))]


def _grid(draw: Any, g: int, shape: Shape, mw: dict[str, Floats], binding: bool | None) -> Attachment:
    name, parents = NAMES[g], shape.parents[g]
    buses = [Bus("hv", HV, 0.9, 1.1, 8.0, 50.0, ""), Bus("mv", MV, 0.95, 1.05, 8.0, 50.0, "feeder")]
    buses += [Bus(f"n{i}", MV, 0.95, 1.05, 8.0, 50.0, "feeder") for i in range(len(parents))]
    lines = []
    for i, parent in enumerate(parents):
        flow = float(np.abs(sum(mw[f"{name}/n{k}"] for k in _below(parents, i))).max())
        rating = _rating(draw, max(flow, 0.2), binding)
        lines.append(_line(f"l{i}", "mv" if parent < 0 else f"n{parent}", f"n{i}", MV, rating))
    trafo = Transformer("t", "hv", "mv", 100.0, HV, MV, 0.1, 0.0001, 0.0, 0.0, 0.0, "hv", 0, -4, 4, 1.0, 0, 100.0)
    loads = tuple(Load(f"load n{i}", f"n{i}", -1.0, 0.0, f"{name}/n{i}", "") for i in range(len(parents)))
    tables = GridTables(tuple(buses), tuple(lines), (trafo,), (), (Source("s", "hv", 1.0),), loads, (), ())
    return Attachment(name, tables, f"T{shape.border[g]}")


def _below(parents: tuple[int, ...], top: int) -> list[int]:
    """A node and all that hang on it."""
    found = [top]
    for i in range(top + 1, len(parents)):
        if parents[i] in found:
            found.append(i)
    return found


def _rating(draw: Any, flow: float, binding: bool | None) -> float:
    """MW to 10 kW: below the flow where it binds, above it where not."""
    tight = draw(st.booleans()) if binding is None else binding
    low, high = TIGHT if tight else FAR
    return max(0.05, round(flow * draw(st.integers(int(100 * low), int(100 * high))) / 100, 2))


def _line(name: str, a: str, b: str, kv: float, mw: float) -> Line:
    z = Z * kv**2
    return Line(name, a, b, 1.0, z.real, z.imag, 0.0, 1000 * mw / (sqrt(3) * kv), 100.0)


def _series(shape: Shape, mw: dict[str, Floats], when: list[int]) -> Series:
    values = np.zeros((len(mw), len(AXIS)))
    values[:, when] = list(mw.values())
    return Series(tuple(mw), AXIS, values)


def _sellers(draw: Any, where: Place, shape: Shape, units: int) -> tuple[Seller, ...]:
    """One or two at each transmission bus and at a node of each distribution grid."""
    services = (*SERVICES, Service.AFRR)
    found = []
    for i in range(shape.buses):
        up, down = draw(_many(2, 1000, 20_000))
        found.append(seller(where, f"t{i}", f"sp-{i}", f"T{i}", (up, down), services, 0.0))
    for g, parents in enumerate(shape.parents):
        for k in range(units):
            bus = f"{NAMES[g]}/n{draw(st.integers(0, len(parents) - 1))}"
            up, down = draw(_many(2, 1, 4000))
            found.append(seller(where, f"{NAMES[g]}-{k}", f"sp-{k}", bus, (up, down), services, 0.0))
    return tuple(sorted(found, key=lambda one: one.id))


def _rows(
    draw: Any, sellers: tuple[Seller, ...], cents: list[int], reactive: bool, reserve: bool
) -> tuple[list[EnergyRow], list[CapacityRow]]:
    prices = iter(Decimal(c) / 100 for c in cents)
    energy, held = [], []
    for one in sellers:
        for direction in (UP, DOWN):
            kw = one.limit_kw(direction)
            price = next(prices)
            energy.append(EnergyRow(one.id, direction, np.full(len(AXIS), kw, dtype=np.int64), price))
            if reactive:
                kvar = np.full(len(AXIS), draw(st.integers(1, 2000)), dtype=np.int64)
                energy.append(EnergyRow(one.id, direction, kvar, (next(prices) / 10).quantize(CENT), REACTIVE))
            if reserve:
                availability = (next(prices) / 10).quantize(CENT)
                held.append(CapacityRow(one.id, Service.AFRR, direction, kw, availability, price))
    return energy, held


def _orders(draw: Any, when: list[int]) -> tuple[Order, ...]:
    return tuple(
        Order(
            f"order-{k}", f"brp-{k}", _at(when, draw(_many(len(when), -1500, 1500))), float(draw(st.integers(10, 300)))
        )
        for k in range(draw(st.integers(0, 2)))
    )

"""Optimal power flow and nodal prices of a grid as tables (MKT-06, GRID-13)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from coflex.domain.errors import CoflexError, Finding, GridFailure
from coflex.grid.controllable import Controllables, interface
from coflex.grid.dispatch import dispatch
from coflex.grid.nodal import prices
from coflex.grid.opf import OptimalFlow, called, given, optimal_flow
from coflex.grid.powerflow import branch_losses_mw
from coflex.reporting.study.case import GridCase


@dataclass(frozen=True, slots=True)
class Called:
    """What is called for how much."""

    element: str
    p_mw: float
    q_mvar: float


@dataclass(frozen=True, slots=True)
class Binding:
    """A limit that has a price: EUR/h per MW of a branch or pu of a voltage, not positive."""

    limit: str
    price: float


@dataclass(frozen=True, slots=True)
class Uncovered:
    """MW that nothing covers at a bus; negative where injections find no way out."""

    bus: str
    p_mw: float


@dataclass(frozen=True, slots=True)
class Exhausted:
    """What stands at an end of its range."""

    element: str
    limit: str
    p_mw: float


@dataclass(frozen=True, slots=True)
class FlowAnswer:
    """`objective` in EUR/h; `prices` by bus in EUR/MWh of withdrawal. `feasible`: all demand is covered within the
    limits; where not, `uncovered` says where, `binding` which limits of the grid are in the way, `exhausted` what can
    give no more, and prices hold a penalty for what is uncovered."""

    grid: str
    model: str
    objective: float
    feasible: bool
    prices: dict[str, float]
    reactive_prices: dict[str, float]
    dispatch: tuple[Called, ...]
    binding: tuple[Binding, ...]
    uncovered: tuple[Uncovered, ...]
    exhausted: tuple[Exhausted, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class BusPrice:
    """Price of withdrawal at a bus in EUR/MWh and its parts, which add up to it; `q_price` in EUR/Mvarh. `exchange`:
    what reactive power is worth where a voltage is held."""

    bus: str
    price: float
    energy: float
    loss: float
    congestion: float
    voltage: float
    exchange: float
    q_price: float


@dataclass(frozen=True, slots=True)
class PriceAnswer:
    """`cost_eur_h` of what is called, with the exchange at the interface; prices by bus and the limits that bind."""

    grid: str
    cost_eur_h: float
    feasible: bool
    losses_kw: float
    energy_price: float
    buses: tuple[BusPrice, ...]
    dispatch: tuple[Called, ...]
    binding: tuple[Binding, ...]
    findings: tuple[Finding, ...]


def optimal_power_flow(case: GridCase, model: Literal["dc", "ac"]) -> FlowAnswer:
    """The cheapest dispatch of the powers as given. Raises Refused where nothing may be called or a cost is not
    convex, GridFailure and SolverFailure as the engines."""
    found = _flow(case, model)
    network = case.network
    buses = list(zip(network.bus_names, network.node_of_bus.tolist(), strict=True))
    price, reactive = found.price[0], found.reactive_price[0]
    short = found.uncovered_mw[0]
    return FlowAnswer(
        grid=case.name,
        model=model,
        objective=float(found.objective_eur_h[0]),
        feasible=bool(found.feasible[0]),
        prices={bus: float(price[i]) for bus, i in buses},
        reactive_prices={bus: float(reactive[i]) for bus, i in buses} if model == "ac" else {},
        dispatch=_called(found.names, found.p_mw[0], found.q_mvar[0]),
        binding=tuple(
            Binding(name, float(value)) for (_, name), value in zip(found.binding, found.binding_price, strict=True)
        ),
        uncovered=tuple(
            Uncovered(network.node_names[i], float(short[i])) for i in np.flatnonzero(np.abs(short) > 1e-6).tolist()
        ),
        exhausted=() if found.feasible[0] else _exhausted(case, found.names, found.p_mw[0]),
        findings=(*case.findings, *_unplaced(model, bool(np.abs(short).max() > 1e-6))),
    )


def nodal_prices(case: GridCase, price_eur_mwh: float | None) -> PriceAnswer:
    """Nodal prices of active and reactive power under the full power flow, by their parts.

    What the dispatch table prices is called; the exchange with the grid above costs `price_eur_mwh`, or what the table
    says of the source. Raises CoflexError where neither is given, else as `dispatch`.
    """
    network = case.network
    chosen, injection = _choices(case, price_eur_mwh)
    answer = dispatch(network, injection.real, injection.imag, chosen)
    split = prices(network, answer)
    real = split.real
    total, reactive = real.total[0], split.reactive.total[0]
    binding = np.flatnonzero(np.abs(answer.limit_price) > 1e-6).tolist()
    return PriceAnswer(
        grid=case.name,
        cost_eur_h=float(answer.cost_eur_h[0]),
        feasible=bool(answer.feasible[0]),
        losses_kw=float(branch_losses_mw(network, answer.state)[0] * 1000),
        energy_price=float(answer.energy_price[0]),
        buses=tuple(
            BusPrice(
                bus,
                price=float(total[i]),
                energy=float(real.energy[0, i]),
                loss=float(real.loss[0, i]),
                congestion=float(real.congestion[0, i]),
                voltage=float(real.voltage[0, i]),
                exchange=float(real.exchange[0, i]),
                q_price=float(reactive[i]),
            )
            for bus, i in zip(network.bus_names, network.node_of_bus.tolist(), strict=True)
        ),
        dispatch=_called(chosen.names, answer.p_mw[0], answer.q_mvar[0]),
        binding=tuple(Binding(answer.limit_names[r], float(answer.limit_price[r])) for r in binding),
        findings=case.findings,
    )


def _flow(case: GridCase, model: Literal["dc", "ac"]) -> OptimalFlow:
    """The flow; where the full power flow finds no state, the failure says what the dc model finds in the way."""
    try:
        return optimal_flow(case.tables, model)
    except GridFailure as failure:
        rough = optimal_flow(case.tables, "dc")
        short = rough.uncovered_mw[0]
        if model == "dc" or rough.feasible[0]:
            raise
        where = ", ".join(rough.node_names[i] for i in np.flatnonzero(np.abs(short) > 1e-6)[:5].tolist())
        limits = ", ".join(sorted({name for _, name in rough.binding})[:5]) or "the range of what may be called"
        message = f"By the dc model {np.abs(short).sum():.6g} MW find no cover, at bus {where}; in the way: {limits}."
        raise GridFailure(f"{failure.message} {message}", failure.remedy) from failure


def _exhausted(case: GridCase, names: tuple[str, ...], p_mw: np.ndarray) -> tuple[Exhausted, ...]:
    rows = {row.element: row for row in case.tables.dispatches}
    found = []
    for name, p in zip(names, p_mw.tolist(), strict=True):
        for limit, end in (("p_max", rows[name].p_max_mw), ("p_min", rows[name].p_min_mw)):
            if abs(p - end) <= 1e-6 * max(1.0, abs(end)):
                found.append(Exhausted(name, limit, end))
    return tuple(found)


def _unplaced(model: str, short: bool) -> tuple[Finding, ...]:
    if model == "dc" or not short:
        return ()
    message = "What the full power flow leaves uncovered stands at the source's bus; --model dc says where it lacks."
    return (Finding("uncovered", "place_unknown", message),)


def _choices(case: GridCase, price_eur_mwh: float | None) -> tuple[Controllables, np.ndarray]:
    """What may be called, the interface among it, and the injections of all else (1, n) in MVA."""
    tables, network = case.tables, case.network
    sources = {source.source for source in tables.sources}
    others = tuple(row for row in tables.dispatches if row.element not in sources)
    if price_eur_mwh is None:
        if len(others) == len(tables.dispatches):
            raise CoflexError(
                "The grid does not say what energy from the grid above costs.", "Say it with --price, in EUR/MWh."
            )
        return called(tables, network)[0], given(tables, network)
    exchange = interface(network, np.array([price_eur_mwh]))
    if not others:
        p, q = case.injections
        return exchange, p[:1] + 1j * q[:1]
    priced = replace(tables, dispatches=others)
    return called(priced, network)[0].then(exchange), given(priced, network)


def _called(names: tuple[str, ...], p_mw: np.ndarray, q_mvar: np.ndarray) -> tuple[Called, ...]:
    return tuple(Called(name, float(p), float(q)) for name, p, q in zip(names, p_mw, q_mvar, strict=True))

"""P-Q areas: what real and reactive power a grid can exchange with the grid above, by quarter-hour, and at what cost.

In each of several directions a the dispatch that takes the exchange farthest, max cos(a) P + sin(a) Q, is a vertex; it
stands under the full power flow. The image of a nonlinear map need not be convex: middles of edges and points inside
are asked for one by one, and where one cannot be reached the outline is drawn in to what can, and the area says so.
J. Silva et al., "Estimating the active and reactive power flexibility area at the TSO-DSO interface", IEEE Trans. Power
Syst. 33 (2018) 4741, doi:10.1109/TPWRS.2018.2805765.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.controllable import Controllables, interface
from coflex.grid.dispatch import VIOLATION, dispatch
from coflex.grid.network import Network

DIRECTIONS = 16
# An outline drawn in by less than this share of the area's width is still called convex.
CONVEX = 1e-3
BISECTIONS = 10
# How often directions may learn from each other, and by how much of a MW it pays.
ROUNDS, FARTHER = 4, 1e-6


@dataclass(frozen=True, eq=False)
class Area:
    """Polygons of t periods, v corners each, against the clock; star-shaped around `centre`. Exchange in MW and Mvar
    that the grid above delivers, positive into this grid, as in `GridState.interface_p_mw`.

    `vertices_p`, `vertices_q`, `cost` (t, v): corners (a vertex of each direction, then the middle of its edge, in
    turn) and EUR/h of the cheapest dispatch there, which is `units_p`, `units_q` (t, v, k) in MW and Mvar; `inside_p`,
    `inside_q`, `inside_cost` (t, s): points within.
    `support` (t, d): farthest exchange in each direction. `cheapest_p`, `cheapest_q`, `cheapest_cost` (t,): the
    exchange that would be chosen at the interface's price. Costs leave the exchange itself out.
    `feasible` (t,): some exchange keeps all limits; else the period's corners are nan and `broken` names the limits
    that cannot be kept. `convex` (t,): whether every edge's middle and every point inside could be reached.
    """

    vertices_p: Floats
    vertices_q: Floats
    cost: Floats
    units_p: Floats
    units_q: Floats
    inside_p: Floats
    inside_q: Floats
    inside_cost: Floats
    support: Floats
    cheapest_p: Floats
    cheapest_q: Floats
    cheapest_cost: Floats
    feasible: Bools
    convex: Bools
    broken: tuple[tuple[int, str], ...]

    def contains(self, period: int, p_mw: Floats, q_mvar: Floats) -> Bools:
        """Whether points (k,) lie within the polygon of a period."""
        corner = self.vertices_p[period] + 1j * self.vertices_q[period]
        point = (p_mw + 1j * q_mvar)[:, None]
        a, b = corner[None, :] - point, np.roll(corner, -1)[None, :] - point
        turned = np.angle(b * np.conj(a)).sum(axis=1)
        return np.asarray(np.abs(turned) > np.pi)


def area(
    network: Network,
    p_mw: Floats,
    q_mvar: Floats,
    chosen: Controllables,
    price: Floats | None = None,
    directions: int = DIRECTIONS,
) -> Area:
    """The areas of all periods of base injections (t, n) and controllables within the grid, the interface left out.

    `price` (t,): EUR/MWh of energy at the interface, for the cheapest exchange; none: energy is free. Raises as
    `dispatch`. Limits are those of `dispatch`: voltages, currents, transformers.
    """
    injection = p_mw + 1j * q_mvar
    t = len(p_mw)
    one = interface(network, np.zeros(t) if price is None else price)
    start = dispatch(network, p_mw, q_mvar, chosen.then(one))
    angle = 2 * np.pi * np.arange(directions) / directions
    shape = (t, 2 * directions)
    outline, within = np.full(shape, np.nan + 0j), np.full(shape, np.nan + 0j)
    cost, inside, convex = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(t, dtype=np.bool_)
    support = np.full((t, directions), np.nan)
    units_p, units_q = (np.full((*shape, len(chosen)), np.nan) for _ in range(2))
    for period in np.flatnonzero(start.feasible).tolist():
        asked = _Asked(network, injection[period], chosen.periods(np.array([period])))
        corners = asked.farthest(angle, start.p_mw[[period], :-1], start.q_mvar[[period], :-1])
        support[period] = (corners.exchange * np.exp(-1j * angle)).real
        edge, inner, convex[period] = asked.outlined(corners)
        outline[period], cost[period] = edge.exchange, edge.cost
        units_p[period], units_q[period] = edge.p_mw, edge.q_mvar
        within[period], inside[period] = inner.exchange, inner.cost
    infeasible = ~start.feasible[start.limits.period] & (start.broken > VIOLATION)
    return Area(
        vertices_p=outline.real,
        vertices_q=outline.imag,
        cost=cost,
        units_p=units_p,
        units_q=units_q,
        inside_p=within.real,
        inside_q=within.imag,
        inside_cost=inside,
        support=support,
        cheapest_p=start.state.interface_p_mw,
        cheapest_q=start.state.interface_q_mvar,
        cheapest_cost=chosen.cost(start.p_mw[:, :-1], start.q_mvar[:, :-1]).sum(axis=1),
        feasible=start.feasible,
        convex=convex,
        broken=tuple((int(start.limits.period[r]), start.limit_names[r]) for r in np.flatnonzero(infeasible)),
    )


@dataclass(frozen=True, eq=False)
class _Points:
    """k exchanges of one period, the controllables' injections (k, c) behind them, EUR/h, and whether they hold."""

    exchange: np.ndarray
    p_mw: Floats
    q_mvar: Floats
    cost: Floats
    reached: Bools

    def towards(self, other: _Points, share: Floats | float) -> _Points:
        """Points a share of the way to others, with injections as far on the way: where to begin, not what holds."""
        part = np.broadcast_to(share, len(self.exchange))
        near, far = (1 - part)[:, None], part[:, None]
        return _Points(
            (1 - part) * self.exchange + part * other.exchange,
            near * self.p_mw + far * other.p_mw,
            near * self.q_mvar + far * other.q_mvar,
            np.full(len(part), np.nan),
            np.zeros(len(part), dtype=np.bool_),
        )

    def at(self, k: Ints | slice) -> _Points:
        return _Points(self.exchange[k], self.p_mw[k], self.q_mvar[k], self.cost[k], self.reached[k])

    def then(self, other: _Points) -> _Points:
        return _Points(
            np.concatenate([self.exchange, other.exchange]),
            np.concatenate([self.p_mw, other.p_mw]),
            np.concatenate([self.q_mvar, other.q_mvar]),
            np.concatenate([self.cost, other.cost]),
            np.concatenate([self.reached, other.reached]),
        )

    def mean(self) -> _Points:
        """One point: the mean of the exchanges and of the injections."""
        first = self.at(slice(0, 1))
        return replace(
            first,
            exchange=self.exchange.mean(keepdims=True),
            p_mw=self.p_mw.mean(axis=0, keepdims=True),
            q_mvar=self.q_mvar.mean(axis=0, keepdims=True),
        )


class _Asked:
    """Dispatches of one period of one grid."""

    def __init__(self, network: Network, injection: np.ndarray, one: Controllables) -> None:
        self.network, self.injection, self.one = network, injection, one
        nothing = np.zeros_like(one.c1)
        none = np.zeros(len(one))
        self.free_of_cost = replace(one, c1=nothing, c2=none, q1=nothing, use=none, corners=())

    def farthest(self, angle: Floats, p_mw: Floats, q_mvar: Floats) -> _Points:
        """The point that lies farthest in each direction, from injections (1, c). No point of another direction lies
        farther: where one does, it is the start of a further search."""
        count = len(angle)
        start = np.repeat(p_mw, count, axis=0), np.repeat(q_mvar, count, axis=0)
        found = self._toward(angle, start)
        for _ in range(ROUNDS):
            reach = (np.exp(-1j * angle)[:, None] * found.exchange).real
            best = np.where(found.reached, reach, -np.inf).argmax(axis=1)
            own = np.where(found.reached, np.diagonal(reach), -np.inf)
            again = np.flatnonzero(reach[np.arange(count), best] > own + FARTHER)
            if not len(again):
                break
            place = best.copy()
            place[again] = count + np.arange(len(again))
            kept = np.setdiff1d(np.arange(count), again)
            place[kept] = kept
            found = found.then(self._toward(angle[again], (found.p_mw[best[again]], found.q_mvar[best[again]]))).at(
                place
            )
        return found

    def _toward(self, angle: Floats, start: tuple[Floats, Floats]) -> _Points:
        return self._solved(self.free_of_cost, interface(self.network, -np.cos(angle), -np.sin(angle)), start)

    def cheapest(self, points: _Points) -> _Points:
        """The cheapest way to each point's exchange, from its injections; equal exchanges are asked for once."""
        _, first, back = np.unique(np.round(points.exchange, 7), return_index=True, return_inverse=True)
        once = points.at(first)
        p, q = once.exchange.real[:, None], once.exchange.imag[:, None]
        fixed = replace(interface(self.network, np.zeros(len(first))), p_min=p, p_max=p, q_min=q, q_max=q)
        found = self._solved(self.one, fixed, (once.p_mw, once.q_mvar))
        return replace(found.at(back), exchange=points.exchange)

    def _solved(self, one: Controllables, exchange: Controllables, start: tuple[Floats, Floats]) -> _Points:
        count = len(start[0])
        base = np.tile(self.injection, (count, 1))
        at = tuple(np.hstack([part, np.zeros((count, 1))]) for part in start)
        chosen = one.periods(np.zeros(count, dtype=np.int64)).then(exchange)
        found = dispatch(self.network, base.real, base.imag, chosen, start=(at[0], at[1]))
        cost = one.periods(np.zeros(count, dtype=np.int64)).cost(found.p_mw[:, :-1], found.q_mvar[:, :-1]).sum(axis=1)
        state = found.state
        return _Points(
            state.interface_p_mw + 1j * state.interface_q_mvar,
            found.p_mw[:, :-1],
            found.q_mvar[:, :-1],
            np.where(found.feasible, cost, np.nan),
            found.feasible,
        )

    def outlined(self, corners: _Points) -> tuple[_Points, _Points, bool]:
        """Corners with the middles of their edges, points half-way inside, and whether all of them hold as they are."""
        count = len(corners.exchange)
        whole = np.arange(count)
        centre = self._centre(corners)
        middles = corners.towards(corners.at((whole + 1) % count), 0.5)
        asked = corners.then(middles).at(np.stack([whole, whole + count], axis=1).ravel())
        edge = self.drawn_in(self.cheapest(asked), centre)
        width = float(np.abs(asked.exchange - centre.exchange).max())
        inner = self.cheapest(edge.towards(centre.at(np.zeros(2 * count, dtype=np.int64)), 0.5))
        straight = np.abs(edge.exchange - asked.exchange).max() <= CONVEX * width
        return edge, inner, bool(straight and inner.reached.all())

    def _centre(self, corners: _Points) -> _Points:
        """The mean of the corners where it can be reached, else the first corner."""
        found = self.cheapest(corners.mean())
        return found if found.reached[0] else self.cheapest(corners.at(slice(0, 1)))

    def drawn_in(self, asked: _Points, centre: _Points) -> _Points:
        """Points that cannot be reached drawn towards the centre until they can, by bisection."""
        lost = np.flatnonzero(~asked.reached)
        if not len(lost):
            return asked
        inner = centre.at(np.zeros(len(lost), dtype=np.int64))
        low, high, best = np.zeros(len(lost)), np.ones(len(lost)), inner
        for _ in range(BISECTIONS):
            half = (low + high) / 2
            tried = self.cheapest(inner.towards(asked.at(lost), half))
            best = best.then(tried).at(np.where(tried.reached, np.arange(len(lost)) + len(lost), np.arange(len(lost))))
            low, high = np.where(tried.reached, half, low), np.where(tried.reached, high, half)
        place = np.arange(len(asked.exchange))
        place[lost] = len(place) + np.arange(len(lost))
        return asked.then(best).at(place)

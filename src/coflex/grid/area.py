"""P-Q areas: what real and reactive power a grid can exchange with the grid above, by quarter-hour, and at what cost.

In each of several directions a the dispatch that takes the exchange farthest, max cos(a) P + sin(a) Q, is a vertex; it
stands under the full power flow. The image of a nonlinear map need not be convex: from a centre, the outline is also
followed along the ray through the middle of each edge, as far as it holds, and points inside are asked for one by one.
Where a ray ends before its edge, or a point inside cannot be reached, the area says that it is not convex.
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
# An edge's middle that is missed by less than this share of the area's width is still called convex.
CONVEX = 1e-3
# How often directions may learn from each other, and by how much of a MW it pays.
ROUNDS, FARTHER = 4, 1e-6


@dataclass(frozen=True, eq=False)
class Area:
    """Polygons of t periods, v = 2 d corners each, against the clock. Exchange in MW and Mvar that the grid above
    delivers, positive into this grid, as in `GridState.interface_p_mw`.

    `vertices_p`, `vertices_q`, `cost` (t, v): corners (of each direction, then of the ray to its edge's middle, in
    turn) and EUR/h of the cheapest dispatch there, which is `units_p`, `units_q` (t, v, k) in MW and Mvar; `inside_p`,
    `inside_q`, `inside_cost` (t, d): points half-way to the centre.
    `support` (t, d): farthest exchange in each direction. `cheapest_p`, `cheapest_q`, `cheapest_cost` (t,): the
    exchange that would be chosen at the interface's price. Costs leave the exchange itself out.
    `feasible` (t,): some exchange keeps all limits; else the period's corners are nan and `broken` names the limits
    that cannot be kept. `convex` (t,): whether every ray reached its edge and every point inside could be reached.
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
    costs: bool = True,
) -> Area:
    """The areas of all periods of base injections (t, n) and controllables within the grid, the interface left out.

    `price` (t,): EUR/MWh of energy at the interface, for the cheapest exchange; none: energy is free. Without `costs`,
    a third of the work, the outline alone is drawn: costs and the points inside are nan, and `convex` speaks of the
    rays only. Raises as `dispatch`. Limits are those of `dispatch`: voltages, currents, transformers.
    """
    injection = p_mw + 1j * q_mvar
    t = len(p_mw)
    one = interface(network, np.zeros(t) if price is None else price)
    start = dispatch(network, p_mw, q_mvar, chosen.then(one))
    angle = 2 * np.pi * np.arange(directions) / directions
    shape = (t, 2 * directions)
    outline, within = np.full(shape, np.nan + 0j), np.full((t, directions), np.nan + 0j)
    cost, convex = np.full(shape, np.nan), np.zeros(t, dtype=np.bool_)
    inside, support = np.full((t, directions), np.nan), np.full((t, directions), np.nan)
    units_p, units_q = (np.full((*shape, len(chosen)), np.nan) for _ in range(2))
    for period in np.flatnonzero(start.feasible).tolist():
        asked = _Asked(network, injection[period], chosen.periods(np.array([period])))
        corners = asked.farthest(angle, start.p_mw[[period], :-1], start.q_mvar[[period], :-1])
        support[period] = (corners.exchange * np.exp(-1j * angle)).real
        edge, inner, convex[period] = asked.outlined(corners, costs)
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

    def _solved(
        self, one: Controllables, exchange: Controllables, start: tuple[Floats, Floats], at_source: complex = 0j
    ) -> _Points:
        count = len(start[0])
        base = np.tile(self.injection, (count, 1))
        base[:, self.network.slack] += at_source
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

    def outlined(self, corners: _Points, costs: bool) -> tuple[_Points, _Points, bool]:
        """Corners with the ends of rays through the middles of their edges, points half-way inside, and whether all of
        that is reached as far as a convex area would reach."""
        count = len(corners.exchange)
        whole = np.arange(count)
        centre = self._centre(corners)
        middle = (corners.exchange + np.roll(corners.exchange, -1)) / 2
        ends = self.along(centre, middle - centre.exchange[0])
        width = float(np.abs(corners.exchange - centre.exchange).max())
        short = np.abs(middle - centre.exchange) - np.abs(ends.exchange - centre.exchange)
        straight = bool((short <= CONVEX * width).all())
        edge = corners.then(ends).at(np.stack([whole, whole + count], axis=1).ravel())
        if not costs:
            unknown = np.full(2 * count, np.nan)
            nowhere = replace(corners, exchange=unknown[:count] + 0j, cost=unknown[:count])
            return replace(edge, cost=unknown), nowhere, straight
        edge = self.cheapest(edge)
        inner = self.cheapest(edge.towards(centre.at(np.zeros(2 * count, dtype=np.int64)), 0.5).at(slice(0, None, 2)))
        return edge, inner, straight and bool(inner.reached.all())

    def along(self, centre: _Points, ray: np.ndarray) -> _Points:
        """The farthest point from the centre along each ray (k,). The centre counts as injected at the source, and what
        the interface adds keeps the ray's ratio of reactive to real power."""
        length = np.abs(ray)
        count = len(ray)
        # A ray straight up or down has no such ratio and is leant over by a thousandth.
        real = np.where(np.abs(ray.real) < 1e-3 * length, np.copysign(1e-3 * length, ray.real), ray.real)
        still = length <= 1e-9
        real = np.where(still, 1.0, real)
        found = [
            self._solved(
                self.free_of_cost,
                replace(
                    interface(self.network, np.array([-np.sign(real[k])])),
                    p_min=np.full((1, 1), -np.inf if real[k] < 0 else 0.0),
                    p_max=np.full((1, 1), np.inf if real[k] > 0 else 0.0),
                    tan_phi=np.array([ray.imag[k] / real[k]]),
                ),
                (centre.p_mw, centre.q_mvar),
                complex(centre.exchange[0]),
            )
            for k in np.flatnonzero(~still).tolist()
        ]
        ends = centre.at(np.zeros(count, dtype=np.int64))
        place = np.arange(count)
        place[~still] = count + np.arange(len(found))
        for one in found:
            ends = ends.then(one)
        return ends.at(place)

    def _centre(self, corners: _Points) -> _Points:
        """The mean of the corners where it can be reached, else the first corner."""
        found = self.cheapest(corners.mean())
        return found if found.reached[0] else self.cheapest(corners.at(slice(0, 1)))

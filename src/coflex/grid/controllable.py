"""What may be called in a grid: injections to choose within bounds, and what each choice costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from coflex.domain.errors import Finding
from coflex.domain.quantity import Floats, Ints
from coflex.grid.network import Network

INTERFACE = "interface"


@dataclass(frozen=True, eq=False)
class Controllables:
    """k injections that may be chosen in t periods. Injection positive.

    `node` (k,). `p_min`, `p_max` in MW, `q_min`, `q_max` in Mvar, all (t, k), may be infinite only at the slack's node.
    `tan_phi` (k,): Mvar that follow each MW, or nan where reactive power is a choice of its own.
    Cost in EUR/h: `c1` p + `c2` p^2 + `q1` q + `use` |q|, with `c1`, `q1` (t, k) and `c2`, `use` (k,) of 0 or more;
    and the curve through `corners[i]` = (MW, EUR/h) where there are any.
    """

    names: tuple[str, ...]
    node: Ints
    p_min: Floats
    p_max: Floats
    q_min: Floats
    q_max: Floats
    tan_phi: Floats
    c1: Floats
    c2: Floats
    q1: Floats
    use: Floats
    corners: tuple[tuple[tuple[float, float], ...], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def cost(self, p_mw: Floats, q_mvar: Floats) -> Floats:
        """EUR/h of injections (t, k), shape (t, k)."""
        total = self.c1 * p_mw + self.c2 * p_mw**2 + self.q1 * q_mvar + self.use * np.abs(q_mvar)
        for i, corners in enumerate(self.corners):
            if corners:
                slope, level = np.array(list(segments(corners))).T
                total[:, i] += (p_mw[:, [i]] * slope + level).max(axis=1)
        return np.asarray(total, dtype=np.float64)

    def periods(self, which: Ints) -> Controllables:
        """The same at some periods, in any order and number."""
        names = ("p_min", "p_max", "q_min", "q_max", "c1", "q1")
        return replace(self, **{name: getattr(self, name)[which] for name in names})

    def then(self, other: Controllables) -> Controllables:
        """These, then others."""
        both = {
            name: np.concatenate([getattr(self, name), getattr(other, name)], axis=-1)
            for name in ("node", "p_min", "p_max", "q_min", "q_max", "tan_phi", "c1", "c2", "q1", "use")
        }
        corners = self._corners() + other._corners()
        return Controllables(names=self.names + other.names, corners=corners, **both)

    def _corners(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        return self.corners or ((),) * len(self)


def controllables(
    names: tuple[str, ...],
    node: Ints,
    p: tuple[Floats, Floats],
    q: tuple[Floats, Floats] | None = None,
    price: Floats | float = 0.0,
    tan_phi: Floats | None = None,
    use: Floats | float = 0.0,
) -> Controllables:
    """Controllables of linear cost; `p`, `q`: lower and upper bounds (t, k). Without `q`, reactive power follows
    `tan_phi` (k,), or is none."""
    shape = p[0].shape
    tied = np.zeros(len(names)) if tan_phi is None else tan_phi
    bounds = (np.zeros(shape), np.zeros(shape)) if q is None else q
    return Controllables(
        names=names,
        node=node,
        p_min=p[0],
        p_max=p[1],
        q_min=bounds[0],
        q_max=bounds[1],
        tan_phi=tied if q is None else np.full(len(names), np.nan),
        c1=np.broadcast_to(np.asarray(price, dtype=np.float64), shape),
        c2=np.zeros(len(names)),
        q1=np.zeros(shape),
        use=np.broadcast_to(np.asarray(use, dtype=np.float64), len(names)),
    )


def interface(network: Network, price: Floats, reactive_price: Floats | None = None) -> Controllables:
    """What the grid above delivers, at a price (t,) in EUR/MWh, and one in EUR/Mvarh: a controllable without bounds."""
    t = len(price)
    free = np.full((t, 1), np.inf)
    one = controllables((INTERFACE,), np.array([network.slack]), (-free, free), (-free, free), price[:, None])
    return one if reactive_price is None else replace(one, q1=reactive_price[:, None])


def faults(network: Network, chosen: Controllables) -> Iterator[Finding]:
    """What a dispatch cannot work with."""
    for i, name in enumerate(chosen.names):
        place = f"controllable {name}"
        if (chosen.p_min[:, i] > chosen.p_max[:, i]).any() or (chosen.q_min[:, i] > chosen.q_max[:, i]).any():
            yield Finding(place, "impossible_value", "A lower bound lies above its upper bound; exchange them.")
        if chosen.c2[i] < 0 or chosen.use[i] < 0:
            yield Finding(place, "not_convex", "Its cost falls ever faster; give c2 and the cost of use of 0 or more.")
        reach = np.abs([chosen.p_min[:, i], chosen.p_max[:, i], chosen.q_min[:, i], chosen.q_max[:, i]])
        if chosen.node[i] != network.slack and not np.isfinite(reach).all():
            yield Finding(place, "without_bound", "It has no bound on its power; give its smallest and largest.")
        corners = chosen._corners()[i]
        slopes = [slope for slope, _ in segments(corners)] if corners else []
        if corners and (not slopes or any(b < a - 1e-9 for a, b in pairwise(slopes))):
            yield Finding(place, "not_convex", "Its curve of cost needs two corners or more, each steeper than before.")
    if network.slack not in chosen.node:
        message = "Nothing at the source's bus may be called; give the interface or the source a cost."
        yield Finding(f"bus {network.node_names[network.slack]}", "no_interface", message)


def segments(corners: tuple[tuple[float, float], ...]) -> Iterator[tuple[float, float]]:
    """Slope and level at zero of each piece of a curve, in order of power."""
    ordered = sorted(corners)
    for (a, low), (b, high) in pairwise(ordered):
        if b > a:
            slope = (high - low) / (b - a)
            yield slope, low - slope * a

"""Dispatch problems on the small grids: four units, every kind of cost, every kind of limit that binds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coflex.domain.quantity import Floats
from coflex.grid.controllable import Controllables, controllables, interface
from coflex.grid.network import Network, build
from coflex.grid.tables import GridTables
from support.small_grids import injections, meshed, radial

BUSES = ("A3", "A4", "B3", "B2")


@dataclass(frozen=True, eq=False)
class Problem:
    tables: GridTables
    network: Network
    p_mw: Floats
    q_mvar: Floats
    units: Controllables
    price: Floats

    @property
    def chosen(self) -> Controllables:
        return self.units.then(interface(self.network, self.price))

    @property
    def injection(self) -> np.ndarray:
        return self.p_mw + 1j * self.q_mvar


def units(network: Network, periods: int, reach: float = 1.5) -> Controllables:
    """Units of each kind: reactive power at a cost, quadratic, a curve with corners, reactive power that follows."""
    low, high = np.full((periods, 4), -0.5 * reach), np.full((periods, 4), reach)
    base = controllables(
        BUSES,
        np.array([network.node_of(bus) for bus in BUSES]),
        (low, high),
        (low / 2, high / 2),
        np.array([70.0, 52.0, 0.0, 66.0]),
        use=np.array([2.0, 0.0, 1.0, 0.0]),
    )
    return replace(
        base,
        c2=np.array([0.0, 3.0, 0.0, 0.0]),
        tan_phi=np.array([np.nan, np.nan, np.nan, 0.2]),
        corners=((), (), ((-2.0, -80.0), (0.0, 0.0), (0.4, 22.0), (2.0, 130.0)), ()),
    )


def problem(name: str) -> Problem:
    """`calm`: nothing binds. `import`: currents and the lower voltage bind. `export`: the upper voltage binds.
    `ring`: the same as `import` on a closed ring, with one period each of load and of export."""
    tables = {
        "calm": radial(),
        "import": radial(90.0, 0.985),
        "export": radial(300.0, 0.95, 1.012),
        "ring": meshed(85.0, 0.985, 1.011),
    }[name]
    network = build(tables)
    scales = {"calm": [(1.0, 1.0)], "import": [(1.2, 1.0), (1.6, 1.0)], "export": [(0.1, 2.5)]}
    states = scales.get(name, [(1.7, 0.4), (0.1, 3.0)])
    p, q = (np.concatenate(parts) for parts in zip(*(injections(tables, network, *s) for s in states), strict=True))
    return Problem(tables, network, p, q, units(network, len(states)), np.linspace(50.0, 60.0, len(states)))

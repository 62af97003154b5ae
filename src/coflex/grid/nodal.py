"""Nodal prices of real and reactive power (D-LMP, Q-LMP), and what they are made of.

One more MW withdrawn at bus b costs, at the optimum and on its last linearisation,

    price_b = -pi dP/dp_b - rho dQ/dp_b - sum_h eta_h dQ_h/dp_b + sum_r mu_r df_r/dp_b

with P + jQ what the grid above delivers at prices pi and rho, Q_h what nodes of held voltage deliver at price eta_h,
and mu_r <= 0 the price of limit f_r; and the same by q_b for one more Mvar. -dP/dp_b - 1 are the losses that it brings.
M. Caramanis et al., "Co-optimization of power and reserves in dynamic T&D power markets", Proc. IEEE 104 (2016) 807,
doi:10.1109/JPROC.2016.2520758, section III.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coflex.domain.quantity import Floats
from coflex.grid.dispatch import Dispatched
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState
from coflex.grid.response import Point
from coflex.grid.rows import LOW, GridRows


@dataclass(frozen=True, eq=False)
class Split:
    """A price of withdrawal by bus, each part (t, n): `energy` at the interface, `loss`, `congestion` of branches,
    `voltage`, and `exchange`: reactive power that the interface or a generator of held voltage delivers."""

    energy: Floats
    loss: Floats
    congestion: Floats
    voltage: Floats
    exchange: Floats

    @property
    def total(self) -> Floats:
        """The price (t, n)."""
        return self.energy + self.loss + self.congestion + self.voltage + self.exchange


@dataclass(frozen=True, eq=False)
class NodalPrices:
    """`real` in EUR/MWh, `reactive` in EUR/Mvarh; what an injection earns, and a withdrawal pays, at each node."""

    real: Split
    reactive: Split


def prices(network: Network, answer: Dispatched) -> NodalPrices:
    """Prices at every node of a dispatch's answer, from its last linearisation."""
    t, n = answer.state.u.shape
    real, reactive = np.zeros((5, t, n)), np.zeros((5, t, n))
    for period in range(t):
        mine = answer.limits.period == period
        real[:, period], reactive[:, period] = _of_period(
            Point(network, answer.state.u[period], answer.apparent),
            (answer.limits.form[mine], answer.limits.index[mine], answer.limit_price[mine]),
            (float(answer.energy_price[period]), float(answer.reactive_price[period]), answer.held_price[period]),
        )
    return NodalPrices(Split(*real), Split(*reactive))


def _of_period(
    point: Point, limits: tuple[np.ndarray, np.ndarray, Floats], at_free: tuple[float, float, Floats]
) -> tuple[Floats, Floats]:
    """Parts of the prices of real and of reactive power, each (5, n), in the order of `Split`."""
    network = point.network
    form, index, price = limits
    energy, exchange, held = at_free
    delivered, reactive = (part.toarray() for part in point.power_gradients(np.append(network.slack, network.held)))
    parts = np.zeros((network.n, 4), dtype=np.complex128)
    parts[:, 0] = -energy * delivered[0]
    for column, mine in ((1, form > LOW), (2, form <= LOW)):
        if mine.any():
            parts[:, column] = price[mine] @ point.gradients(form[mine], index[mine])
    parts[:, 3] = -np.append(exchange, held) @ reactive
    by_p, by_q = point.adjoint(parts)
    # What is injected where reactive power is free takes the place of what is delivered there.
    by_q[network.held] = 0.0
    by_q[network.held, 3] = held
    by_p[network.slack], by_q[network.slack] = (energy, 0, 0, 0), (0, 0, 0, exchange)
    level = np.full(network.n, energy)
    return (
        np.stack([level, by_p[:, 0] - level, by_p[:, 1], by_p[:, 2], by_p[:, 3]]),
        np.stack([np.full(network.n, exchange), *by_q.T[:3], by_q[:, 3] - exchange]),
    )


def cleared_prices(
    network: Network, rows: GridRows, row_price: Floats, energy_price: Floats, state: GridState
) -> NodalPrices:
    """Prices at every node of a cleared session, from its grid rows.

    `row_price` (m,): EUR/h per unit of room, not positive; `energy_price` (t,): EUR/MWh of energy at the interface,
    `state`: the grid (t, n) after the awards. Rows that name no known kind of limit raise ValueError.
    """
    t, n = state.u.shape
    nothing = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
    held = np.zeros(len(network.held))
    real, reactive = np.zeros((5, t, n)), np.zeros((5, t, n))
    for period in range(t):
        free = (float(energy_price[period]), 0.0, held)
        real[:, period], reactive[:, period] = _of_period(Point(network, state.u[period]), nothing, free)
    for r, name in enumerate(rows.names):
        part = {"loading": 2, "voltage_high": 3, "voltage_low": 3}.get(name.split(" ", 1)[0])
        if part is None:
            raise ValueError(f"A row's name starts with its kind of limit, and '{name}' does not.")
        real[part, rows.period[r]] += row_price[r] * rows.dp[r]
        reactive[part, rows.period[r]] += row_price[r] * rows.dq[r]
    return NodalPrices(Split(*real), Split(*reactive))

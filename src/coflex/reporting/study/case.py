"""What a study looks at: a grid, and the powers of its elements over some periods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from coflex.domain.errors import Finding, GridFailure, SolverFailure
from coflex.domain.quantity import Floats
from coflex.domain.series import Series
from coflex.domain.time import Axis
from coflex.grid.injection import element_powers, node_injections
from coflex.grid.network import Network, build
from coflex.grid.powerflow import GridState, solve
from coflex.grid.quality import SEVERE, quality
from coflex.grid.reactive_limits import machine_mvar, reach, solve_within
from coflex.grid.tables import GridTables

# The one period of a grid without profiles; its date says nothing and is never shown.
_AS_GIVEN = Axis(datetime(2000, 1, 1, tzinfo=UTC), 1, timedelta(hours=1))


@dataclass(frozen=True, eq=False)
class GridCase:
    """A grid under study. `p_mw`, `q_mvar` (elements, t) in the order of `network.element_names`, injection positive;
    `labels[t]`: what each period is called; `findings`: what the reading and the data themselves give to doubt.
    `within_reach`: machines let their voltage go at the limits of their reactive power."""

    name: str
    tables: GridTables
    network: Network
    axis: Axis
    labels: tuple[str, ...]
    p_mw: Floats
    q_mvar: Floats
    findings: tuple[Finding, ...]
    within_reach: bool = False

    @property
    def injections(self) -> tuple[Floats, Floats]:
        """Node injections in MW and Mvar, shape (t, n)."""
        return node_injections(self.network, self.p_mw), node_injections(self.network, self.q_mvar)

    def solve(self) -> GridState:
        """The state of every period. Raises GridFailure when one has none."""
        with self.doubted():
            if self.within_reach and len(self.network.held):
                return solve_within(self.network, reach(self.tables, self.network), *self.injections)
            return solve(self.network, *self.injections)

    @contextmanager
    def doubted(self) -> Iterator[None]:
        """A failure inside is told with what the data give to doubt: it is often the cause."""
        try:
            yield
        except (GridFailure, SolverFailure) as failure:
            doubts = [finding for finding in self.findings if finding.code in SEVERE]
            if not doubts:
                raise
            more = f" and {len(doubts) - 3} more" if len(doubts) > 3 else ""
            told = "; ".join(f"{finding.place}: {finding.message}" for finding in doubts[:3])
            raise type(failure)(f"{failure.message} The data may be why: {told}{more}", failure.remedy) from failure

    def beyond(self, state: GridState) -> tuple[Finding, ...]:
        """Machines that a state asks for more reactive power than they have."""
        network = self.network
        if not len(network.held):
            return ()
        limits = reach(self.tables, network)
        given = machine_mvar(network, state, self.injections[1])
        found = []
        for h, name in enumerate(limits.names):
            low, high = float(given[:, h].min()), float(given[:, h].max())
            if low < limits.low[h] - 1e-3 or high > limits.high[h] + 1e-3:
                worst = low if low < limits.low[h] else high
                message = (
                    f"To hold its voltage it gives {worst:.4g} Mvar, beyond its {limits.low[h]:.4g} to "
                    f"{limits.high[h]:.4g}. Solve with --reactive-limits to let the voltage go."
                )
                found.append(Finding(f"generators.csv: {name}", "beyond_reach", message))
        return tuple(found)


def grid_case(
    name: str,
    tables: GridTables,
    profiles: Series | None,
    axis: Axis | None,
    findings: Sequence[Finding] = (),
    within_reach: bool = False,
) -> GridCase:
    """A grid with its powers as given, or by its profiles on an axis, and all that its data give to doubt. Raises
    Refused with the faults of the tables."""
    network = build(tables)
    findings = (*findings, *quality(tables))
    if profiles is None or axis is None:
        at_rest = Series((), _AS_GIVEN, np.zeros((0, 1)))
        p, q = element_powers(_without_profiles(tables), at_rest)
        return GridCase(name, tables, network, _AS_GIVEN, ("as given",), p, q, findings, within_reach)
    p, q = element_powers(tables, profiles.window(axis))
    labels = tuple(instant.isoformat() for instant in axis)
    return GridCase(name, tables, network, axis, labels, p, q, findings, within_reach)


def _without_profiles(tables: GridTables) -> GridTables:
    return replace(
        tables,
        loads=tuple(replace(row, profile_p="", profile_q="") for row in tables.loads),
        generators=tuple(replace(row, profile="") for row in tables.generators),
    )

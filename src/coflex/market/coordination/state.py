"""Who holds what, while a design runs: one holder for each unit and quarter-hour, whatever it sells.

What a chain of sessions holds preliminarily it may change; what is definitive, or another's, it may not (mutual
unavailability, document B, section 6.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from coflex.domain.clearing import Status
from coflex.domain.errors import SoldTwice
from coflex.domain.quantity import Bools, Direction, Floats, Ints
from coflex.domain.reserve import Reservation
from coflex.domain.time import Axis, local_label
from coflex.grid.means import Operation
from coflex.market.coordination.outcome import Bought, LeaseAgreement
from coflex.market.coordination.world import World

FREE = -1
# Index of a seller that is no unit: what it does is kept apart.
NOWHERE = -1


@dataclass(frozen=True, eq=False)
class Positions:
    """u units over t quarter-hours. `holder[u, t]`: index of the chain that holds the unit, FREE where none does;
    `firm[u, t]`: for good. `kw`, `kvar` [u, t]: what it changes by, up positive. `reserved[u, t]`: index of the chain
    whose capacity the unit keeps ready, FREE where none; `reserved_up`, `reserved_down` [u, t] in kW."""

    holder: Ints
    firm: Bools
    kw: Ints
    kvar: Ints
    reserved: Ints
    reserved_up: Ints
    reserved_down: Ints

    @staticmethod
    def empty(units: int, periods: int) -> Positions:
        def zeros() -> Ints:
            return np.zeros((units, periods), dtype=np.int64)

        free = np.full((units, periods), FREE, dtype=np.int64)
        return Positions(free, zeros().astype(np.bool_), zeros(), zeros(), free.copy(), zeros(), zeros())

    def copy(self) -> Positions:
        return Positions(
            self.holder.copy(),
            self.firm.copy(),
            self.kw.copy(),
            self.kvar.copy(),
            self.reserved.copy(),
            self.reserved_up.copy(),
            self.reserved_down.copy(),
        )


@dataclass(frozen=True, eq=False)
class State:
    """What is decided so far. `chains` by name in the order of their index; `bought` with the chain of each award.

    `orders_kw[c, o, t]`: what balance responsible parties have bought from chain c, up positive. `lowered_kw[c, r, t]`:
    what grid r of `world.reductions` gives chain c by lowering its voltage. `owed_kw[g, t]`: what grid g
    has promised at its interface and its own session has still to lay on units; NaN where nothing is promised.
    `operation`: how the grids are run where a DSO has set its own means, None for the normal setting.
    `energy_eur_mwh[t]`: price at the interfaces that sessions which answer each other have come to, None for the
    case's. `set_for`: by quarter-hour what own means were last set for. `leases` with the chain of each.
    """

    world: World
    chains: tuple[str, ...]
    positions: Positions
    bought: tuple[tuple[str, Bought], ...] = ()
    reservations: tuple[tuple[str, Reservation], ...] = ()
    orders_kw: Ints = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=np.int64))
    lowered_kw: Ints = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=np.int64))
    owed_kw: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    operation: Operation | None = None
    energy_eur_mwh: Floats | None = None
    set_for: Mapping[int, bytes] = field(default_factory=dict)
    leases: tuple[tuple[str, LeaseAgreement], ...] = ()

    @staticmethod
    def start(world: World, chains: Sequence[str]) -> State:
        t, names = len(world.axis), tuple(dict.fromkeys(chains))
        return State(
            world,
            names,
            Positions.empty(len(world.sellers), t),
            orders_kw=np.zeros((len(names), len(world.orders), t), dtype=np.int64),
            lowered_kw=np.zeros((len(names), len(world.reductions), t), dtype=np.int64),
            owed_kw=np.full((len(world.grids), t), np.nan),
        )

    @property
    def run_by(self) -> Operation:
        """How the grids are run over the whole axis."""
        return self.operation or Operation.steady(self.world.network, len(self.world.axis))

    @cached_property
    def unit_index(self) -> dict[str, int]:
        return {one.id: u for u, one in enumerate(self.world.sellers)}

    def index(self, chain: str) -> int:
        return self.chains.index(chain)

    # ------------------------------------------------------------ what others see

    def changes(self) -> tuple[Floats, Floats]:
        """What all that is held changes at the nodes: MW and Mvar (t, n), injection positive."""
        world, positions = self.world, self.positions
        p = np.zeros((len(world.axis), world.network.n))
        q = np.zeros_like(p)
        for u in np.flatnonzero((positions.kw != 0).any(axis=1) | (positions.kvar != 0).any(axis=1)).tolist():
            one = world.sellers[u]
            if one.node >= 0:
                p[:, one.node] += positions.kw[u] / 1000.0
                q[:, one.node] += (one.tan_phi * positions.kw[u] + positions.kvar[u]) / 1000.0
        for r, reduction in enumerate(world.reductions):
            share = self._taken(r)
            p += np.einsum("st,stn->tn", share, reduction.change_p_mw)
            q += np.einsum("st,stn->tn", share, reduction.change_q_mvar)
        return p, q

    def _taken(self, r: int) -> Floats:
        """Which share of each step of a voltage reduction is taken, (steps, t)."""
        steps = self.world.reductions[r].kw
        before = np.cumsum(steps, axis=0) - steps
        taken: Floats = np.clip(self.lowered_kw[:, r].sum(axis=0) - before, 0, steps) / np.maximum(steps, 1)
        return taken

    def moved_kw(self, chains: Iterable[str] | None = None) -> Floats:
        """kW (t,) by which what is held brings the system up, those of some chains or all; less what balance
        responsible parties have taken of it."""
        positions = self.positions
        those = [self.index(name) for name in (self.chains if chains is None else dict.fromkeys(chains))]
        mine = np.isin(positions.holder, those)
        moved: Floats = (positions.kw * mine).sum(axis=0) + np.nan_to_num(self.owed_kw).sum(axis=0)
        moved += self.lowered_kw[those].sum(axis=(0, 1)) - self.orders_kw[those].sum(axis=(0, 1))
        return moved

    def free(self, chain: str, admits: Sequence[str], axis: slice) -> Bools:
        """Which units (u, t of the part) the chain may buy from: held by none, and kept ready for none but those whose
        capacity it admits."""
        positions = self.positions
        allowed = [FREE, *(self.index(name) for name in admits if name in self.chains)]
        free: Bools = (positions.holder[:, axis] == FREE) & np.isin(positions.reserved[:, axis], allowed)
        return free

    def contracted(self, admits: Sequence[str], axis: slice) -> Bools:
        """Units (u, t of the part) that keep capacity ready which the session admits."""
        allowed = [self.index(name) for name in admits if name in self.chains]
        kept: Bools = np.isin(self.positions.reserved[:, axis], allowed)
        return kept

    # ------------------------------------------------------------ what a session changes

    def released(self, chain: str, axis: Axis) -> State:
        """Without what the chain holds or keeps ready preliminarily on the axis."""
        if chain not in self.chains:
            return self
        part = self.world.axis.slice_of(axis)
        positions = self.positions.copy()
        within = np.zeros_like(positions.firm)
        within[:, part] = True
        gone = (positions.holder == self.index(chain)) & ~positions.firm & within
        positions.holder[gone], positions.kw[gone], positions.kvar[gone] = FREE, 0, 0
        kept = tuple(
            (name, one)
            for name, one in self.bought
            if name != chain or one.award.status is Status.DEFINITIVE or not axis.covers(one.award.start)
        )
        ready = []
        for name, one in self.reservations:
            if name != chain or one.status is Status.DEFINITIVE or not axis.covers(one.start):
                ready.append((name, one))
            elif one.unit is not None:
                u, t = self.unit_index[one.unit], self.world.axis.position(one.start)
                positions.reserved[u, t] = FREE
                positions.reserved_up[u, t] = positions.reserved_down[u, t] = 0
        return replace(self, positions=positions, bought=kept, reservations=tuple(ready))

    def with_awards(self, chain: str, firm: Axis, awards: Sequence[tuple[int, Bought]]) -> State:
        """With a session's awards, each of a unit by index, NOWHERE for what no unit gives.

        Raises SoldTwice when one meets another holder.
        """
        positions, world = self.positions.copy(), self.world
        me = self.index(chain)
        placed = [(u, one) for u, one in awards if u != NOWHERE]
        place = {start: world.axis.position(start) for start in {one.award.start for _, one in placed}}
        unit = np.array([u for u, _ in placed], dtype=np.int64)
        when = np.array([place[one.award.start] for _, one in placed], dtype=np.int64)
        holder = positions.holder[unit, when]
        for k in np.flatnonzero((holder != FREE) & (holder != me)).tolist():
            u, one = placed[k]
            at = local_label(one.award.start, world.zone)
            message = f"Unit {world.sellers[u].id} is held for {at} by {self.chains[int(holder[k])]}."
            raise SoldTwice(message, f"Let {one.award.session} take another unit or quarter-hour.")
        firm_then = {start: firm.covers(start) for start in place}
        positions.holder[unit, when] = me
        positions.firm[unit, when] = [firm_then[one.award.start] for _, one in placed]
        signed = np.array([one.award.direction.sign * one.award.quantity_kw for _, one in placed], dtype=np.int64)
        reactive = np.array([one.reactive for _, one in placed], dtype=np.bool_)
        np.add.at(positions.kvar, (unit[reactive], when[reactive]), signed[reactive])
        np.add.at(positions.kw, (unit[~reactive], when[~reactive]), signed[~reactive])
        added = tuple((chain, one) for _, one in awards)
        return replace(self, positions=positions, bought=(*self.bought, *added))

    def with_reservations(self, chain: str, held: Sequence[tuple[int, Reservation]]) -> State:
        """With capacity that units keep ready. Raises SoldTwice when a unit is held or keeps another's ready."""
        positions, world = self.positions.copy(), self.world
        me = self.index(chain)
        for u, one in held:
            t = world.axis.position(one.start)
            if positions.holder[u, t] != FREE or positions.reserved[u, t] not in (FREE, me):
                at = local_label(one.start, world.zone)
                raise SoldTwice(f"Unit {world.sellers[u].id} is taken for {at}.", "Hold another unit's capacity.")
            positions.reserved[u, t] = me
            side = positions.reserved_up if one.direction is Direction.UP else positions.reserved_down
            side[u, t] += one.quantity_kw
        added = tuple((chain, one) for _, one in held)
        return replace(self, positions=positions, reservations=(*self.reservations, *added))

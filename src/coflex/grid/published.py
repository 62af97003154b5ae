"""What a DSO hands to a market that does not have its network: rows over places, no bus and no branch (GRID-14).

A place is who offers (a unit, or a group of units), by name. Each row is one limit in one period, as in `grid.rows`,

    sum_p effect[p] * change[p] <= room         change in MW, injection positive

where the effect holds the reactive power that follows. A row is rounded to the safe side: with the published effect e
and room h, the true effect a of any unit of a place, and reach R, the most by which a place may change,

    h = floor(room - sum_p max_u |a_u - e_p| R_p)      so that      e x <= h and |x| <= R      give      a x <= room

for every split of a group over its units. Limits bear numbers in the order in which they first came up; their names
are told only if the DSO allows it. The market clears on the rows alone (`PublishedGrid`), once, or asking the DSO
again under every change (`Desk.answer`), which makes it the clearing on the network itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from coflex.domain.errors import CoflexError
from coflex.domain.quantity import Floats, Ints
from coflex.grid import assess
from coflex.grid.powerflow import GridState
from coflex.grid.rows import FROM, HIGH, LOW, GridModel, GridRows, Guard, Linearised, RowKeys

# Decimals of a room (pu or share of a rating); effects, which are multiplied by MW, have two more.
DECIMALS = 9


class Disclosure(StrEnum):
    """How limits are named: by a number alone, or by their kind and element."""

    MASKED = "masked"
    NAMED = "named"


class Quantity(StrEnum):
    """What a limit is of, which says in which unit its room is: pu of a voltage, share of a rated current."""

    VOLTAGE = "voltage"
    CURRENT = "current"


@dataclass(frozen=True, eq=False)
class Sites:
    """Where places lie, which stays with the DSO. p places, u units, t periods.

    `places` by name; `place[u]`, `node[u]`, `tan_phi[u]` (kvar per kW that follows) and `share[u]` of each unit, the
    part of its place's change that it is taken to make (1 over each place); `reach_mw[p, t]`: the most by which a
    place may change either way.
    """

    places: tuple[str, ...]
    place: Ints
    node: Ints
    tan_phi: Floats
    share: Floats
    reach_mw: Floats


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One limit in one period: its number and name, what it is of, its room, and the effect of each place in order, in
    the room's unit per MW."""

    period: int
    number: int
    limit: str
    quantity: Quantity
    room: float
    effect: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """Rows over places, for `periods` periods."""

    places: tuple[str, ...]
    periods: int
    rows: tuple[PublishedRow, ...]


def to_document(published: Published) -> dict[str, Any]:
    """As plain values for JSON."""
    return asdict(published)


def from_document(document: dict[str, Any]) -> Published:
    """Rows from plain values. Raises CoflexError where the document is not one of `to_document`."""
    try:
        rows = tuple(
            PublishedRow(
                int(row["period"]),
                int(row["number"]),
                str(row["limit"]),
                Quantity(row["quantity"]),
                float(row["room"]),
                tuple(float(value) for value in row["effect"]),
            )
            for row in document["rows"]
        )
        published = Published(tuple(document["places"]), int(document["periods"]), rows)
    except (KeyError, TypeError, ValueError) as error:
        raise CoflexError(f"These are no published rows: {error!r}.", "Ask the DSO for the document again.") from None
    if any(len(row.effect) != len(published.places) or not 0 <= row.period < published.periods for row in rows):
        raise CoflexError("A row does not fit its places and periods.", "Ask the DSO for the document again.")
    return published


class Desk:
    """The DSO's side: answers what changes of places would do to its grid, in rows."""

    def __init__(
        self,
        grid: GridModel,
        sites: Sites,
        disclosure: Disclosure = Disclosure.MASKED,
        decimals: int = DECIMALS,
    ) -> None:
        self.grid, self.sites, self.disclosure, self.decimals = grid, sites, disclosure, decimals
        self._keys = RowKeys.none()
        self._number: dict[tuple[int, int], int] = {}

    @property
    def periods(self) -> int:
        return int(self.sites.reach_mw.shape[1])

    def answer(self, change_mw: Floats, periods: Ints) -> Published:
        """Rows of the given periods, linearised under changes (t, p) of the places: those told before, and of what
        the changes break beyond them the worst. Raises GridFailure when a state has no power flow."""
        change = self._injections(change_mw)
        seen = self.grid.look(*change, periods, self._keys)
        self._keys = self._keys.then(seen.broken)
        here = np.flatnonzero(np.isin(self._keys.period, periods))
        keys = RowKeys(self._keys.period[here], self._keys.form[here], self._keys.index[here])
        rows = self.grid.rows(seen.state, periods, keys, *change)
        effect, error = self._effects(rows)
        reach = self.sites.reach_mw.T[rows.period]
        scale = 10.0**self.decimals
        room = np.floor((rows.room - (error * reach).sum(axis=1)) * scale) / scale
        told = [self._row(keys, rows, k, float(room[k]), effect[k]) for k in range(len(keys))]
        told.sort(key=lambda row: (row.period, row.number))
        return Published(self.sites.places, self.periods, tuple(told))

    def at_risk(self) -> Published:
        """Rows at the base state of every limit that is broken there, or would be with all places at one end of their
        reach: a document for a market that asks once. Where a state at such an end does not exist, GridFailure."""
        everywhere = np.arange(self.periods)
        nothing = np.zeros((self.periods, len(self.sites.places)))
        for change in (nothing, self.sites.reach_mw.T, -self.sites.reach_mw.T):
            before = -1
            while before < len(self._keys):
                before = len(self._keys)
                self.answer(change, everywhere)
        return self.answer(nothing, everywhere)

    def _injections(self, change_mw: Floats) -> tuple[Floats, Floats]:
        """Changes (t, n) in MW and Mvar of the nodes when places change (t, p)."""
        sites = self.sites
        p, q = (np.zeros((self.periods, self.grid.network.n)) for _ in range(2))
        of_unit = change_mw[:, sites.place] * sites.share
        np.add.at(p.T, sites.node, of_unit.T)
        np.add.at(q.T, sites.node, (of_unit * sites.tan_phi).T)
        return p, q

    def _effects(self, rows: GridRows) -> tuple[Floats, Floats]:
        """Effect (r, p) of each place, midway between those of its units and rounded, and how far a unit's own may lie
        from it."""
        sites, count = self.sites, len(self.sites.places)
        of_unit = rows.dp[:, sites.node] + rows.dq[:, sites.node] * sites.tan_phi
        least, most = np.full((count, len(rows)), np.inf), np.full((count, len(rows)), -np.inf)
        np.minimum.at(least, sites.place, of_unit.T)
        np.maximum.at(most, sites.place, of_unit.T)
        effect = np.round((least + most) / 2, self.decimals + 2) + 0.0
        return effect.T, np.maximum(most - effect, effect - least).T

    def _row(self, keys: RowKeys, rows: GridRows, k: int, room: float, effect: Floats) -> PublishedRow:
        form, index = int(keys.form[k]), int(keys.index[k])
        number = self._number.setdefault((form, index), len(self._number) + 1)
        name = rows.names[k] if self.disclosure is Disclosure.NAMED else f"limit {number}"
        quantity = Quantity.VOLTAGE if form in (HIGH, LOW) else Quantity.CURRENT
        return PublishedRow(int(keys.period[k]), number, name, quantity, room, tuple(effect.tolist()))


# A question to the DSO: (changes (t, p) of places in MW, periods) -> rows of these periods under these changes.
Ask = Callable[[Floats, Ints], Published]


@dataclass(frozen=True, slots=True)
class Count:
    """As many nodes as there are places, and nothing else of a network."""

    n: int


class PublishedGrid:
    """The grid as a market sees it that has rows alone: a `GridModel` whose nodes are the places, in their order.

    Offers act at their place with a `tan_phi` of zero, for the effects hold it already. States are known by their
    injections; voltages and currents are nan.
    """

    def __init__(self, published: Published, ask: Ask | None = None, guard: Guard | None = None) -> None:
        self.published, self.guard = published, guard or Guard()
        self._ask = ask

    @property
    def network(self) -> Count:
        return Count(len(self.published.places))

    def with_guard(self, guard: Guard) -> PublishedGrid:
        """The same rows, tighter by another guard."""
        return PublishedGrid(self.published, self._ask, guard)

    def look(self, change_p: Floats, change_q: Floats, periods: Ints, known: RowKeys) -> Linearised:
        """The changes, and the rows that they break and that are not yet known."""
        _without_reactive(change_q)
        state = _state(change_p[periods])
        rows = _Columns(self._rows(change_p, periods), self.guard)
        left = rows.left(change_p)
        broken = left < -assess.TOLERANCE / 10
        new = np.flatnonzero(broken & ~np.isin(rows.keys.code(_WIDTH), known.code(_WIDTH)))
        order = new[np.argsort(rows.keys.code(_WIDTH)[new], kind="stable")]
        return Linearised(state, float((-left).max(initial=-np.inf)), rows.keys_of(order))

    def rows(self, state: GridState, periods: Ints, keys: RowKeys, change_p: Floats, change_q: Floats) -> GridRows:
        """The rows of `keys` as they are told under the changes."""
        _without_reactive(change_q)
        rows = _Columns(self._rows(change_p, periods), self.guard)
        at = rows.places_of(keys)
        names = tuple(rows.names[k] for k in at.tolist())
        return GridRows(names, keys.period, rows.effect[at], np.zeros_like(rows.effect[at]), rows.room[at])

    def headroom(self, state: GridState, periods: Ints, keys: RowKeys) -> Floats:
        """What each row of `keys` leaves under the changes that the state stands for."""
        change = np.zeros((self.published.periods, self.network.n))
        change[periods] = state.p_mw
        rows = _Columns(self._rows(change, periods), self.guard)
        left: Floats = rows.left(change)[rows.places_of(keys)]
        return left

    def _rows(self, change_p: Floats, periods: Ints) -> Published:
        """The document's rows of some periods, or the DSO's answer to the changes there."""
        if self._ask is not None:
            return self._ask(change_p, periods)
        wanted = set(periods.tolist())
        mine = tuple(row for row in self.published.rows if row.period in wanted)
        return Published(self.published.places, self.published.periods, mine)


# More limits than any grid has.
_WIDTH = 1 << 40


class _Columns:
    """Published rows as arrays, tightened by a guard."""

    def __init__(self, published: Published, guard: Guard) -> None:
        rows = published.rows
        voltage = np.array([row.quantity is Quantity.VOLTAGE for row in rows], dtype=np.bool_)
        self.keys = RowKeys(
            np.array([row.period for row in rows], dtype=np.int64),
            np.where(voltage, HIGH, FROM).astype(np.int64),
            np.array([row.number for row in rows], dtype=np.int64),
        )
        self.names = tuple(row.limit for row in rows)
        self.effect = np.array([row.effect for row in rows]).reshape(len(rows), len(published.places))
        tight = np.where(voltage, guard.voltage_pu, guard.loading_share)
        self.room = np.array([row.room for row in rows], dtype=np.float64) - tight

    def left(self, change_p: Floats) -> Floats:
        """What each row leaves under changes (t, p)."""
        left: Floats = self.room - np.einsum("rp,rp->r", self.effect, change_p[self.keys.period])
        return left

    def keys_of(self, rows: Sequence[int] | Ints) -> RowKeys:
        return RowKeys(self.keys.period[rows], self.keys.form[rows], self.keys.index[rows])

    def places_of(self, keys: RowKeys) -> Ints:
        """Where the rows of some keys stand. Raises CoflexError where the DSO told no such row."""
        code = self.keys.code(_WIDTH)
        order = np.argsort(code, kind="stable")
        wanted = keys.code(_WIDTH)
        at = order[np.minimum(np.searchsorted(code[order], wanted), max(0, len(code) - 1))] if len(code) else order
        if len(at) != len(wanted) or not np.array_equal(code[at], wanted):
            raise CoflexError("A row is asked for that was not published.", "Ask the DSO for the document again.")
        found: Ints = at
        return found


def _state(change_p: Floats) -> GridState:
    t, n = change_p.shape
    unknown = np.full(t, np.nan)
    none = np.zeros((t, 0))
    return GridState(
        np.full((t, n), np.nan, dtype=complex), change_p, np.zeros_like(change_p), none, none, unknown, unknown
    )


def _without_reactive(change_q: Floats) -> None:
    if change_q.any():
        raise CoflexError(
            "Places change with the reactive power that their rows hold already.", "Give offers a tan_phi of zero."
        )

"""Sessions of phase balancing: the DSO buys active power, phase by phase, until an unbalanced feeder keeps its limits.

    needs      quarter-hours whose three-phase state breaks a limit: voltage and loading of a phase, current of the
               neutral, negative over positive sequence; the others are not looked at again
    clearing   the cheapest whole kW that remove them: in each such quarter-hour integer programs over rows made by
               small changes of the power flow, solved and looked at again until the answer stands there
    awards     of units that no other session holds; a unit goes one way in a quarter-hour

Units of the feeder are none of the case's sellers: who holds them is read from what was bought.

Sources: document O, section 3.5 (SOCL-CY-02); J. E. Kelley, "The cutting-plane method for solving convex programs",
J. SIAM 8 (1960) 703, doi:10.1137/0108053, for rows of earlier passes that stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cached_property

import numpy as np
from scipy import sparse

from coflex.domain.clearing import Award, Uncovered
from coflex.domain.errors import CoflexError, Finding, SolverFailure, refuse
from coflex.domain.offer import Offer
from coflex.domain.phase import PhaseLimit
from coflex.domain.quantity import CENT, Bools, Floats, Ints
from coflex.domain.unit import Level
from coflex.grid.balance import BATCH, STEP_KW
from coflex.grid.rows import Guard
from coflex.grid.unbalanced import PHASES, PhaseGrid, PhaseLimits, PhaseState, solve
from coflex.market.book import OrderBook, Place, build, direction_of
from coflex.market.coordination.outcome import Bought, Held
from coflex.market.coordination.session import Decided
from coflex.market.coordination.state import State
from coflex.market.coordination.view import View
from coflex.market.coordination.world import PhaseFeeder
from coflex.market.design import Buyer, Interface, Pricing, Resource, Service
from coflex.market.model import PENALTY
from coflex.market.pricing import bid
from coflex.solver import highs
from coflex.solver.program import Program

# pu, or share of a rating or of the positive sequence, by which a limit may be missed: the assessment's.
KEPT = 1e-6
PASSES = 30
# EUR/MWh from one receipt to the next: of equal prices the earlier one counts, and whole cents stand far above it.
TIE_BREAK = 1e-6
# Distance in EUR/MWh times kW at which a choice of whole kW counts as the best, where all needs can be met and where
# the penalty of what is missing drowns so small a distance; and its most branchings.
GAP, GAP_MISSING, BRANCHINGS = 1e-7, 1.0, 1000
# kW by which what is missing may differ without meaning it.
_SAME_KW = 1e-6
# Below this price a need would be met beyond itself because a provider pays for it.
_LEAST_EUR = 0.01


def hold_phases(view: View, state: State) -> Decided:
    """Hold a session of phase balancing on the feeder of the case.

    Guarantees: awards in whole kW within offers; a unit is sold once in a quarter-hour, and one way; every limit holds
    to 1e-6 by three-phase power flow where nothing is told as uncovered; no answer with a kW or two less of one block
    and as much more of another is cheaper; the same outcome for any order of units and offers. What the chain held
    preliminarily is bought anew or lapses.
    Raises CoflexError where the session's pricing or interface has no meaning for phases, Refused with every offer
    whose terms or unit this clearing does not know, GridFailure where a state has no power flow.
    """
    feeder = _feeder(view)
    state = state.released(view.session.chain, view.plan.horizon)
    base_kw, taken = _held(view, state, feeder)
    book = build(_offers(view, feeder), view.plan.horizon, _places(feeder))
    open_to = book.price <= view.world.value_eur_mwh
    open_to &= ~taken[book.node, book.period]
    clearing = _Clearing(view, feeder, book, open_to, base_kw)
    clearing.settle()
    laid = list(clearing.awards())
    added = tuple((view.session.chain, one) for one in laid)
    cells = np.zeros((len(view.world.sellers), len(view.plan.horizon)), dtype=np.bool_)
    return Decided(replace(state, bought=(*state.bought, *added)), _told(view, clearing, laid), cells)


def _told(view: View, clearing: _Clearing, laid: Sequence[Bought]) -> Held:
    hours = view.plan.horizon.hours
    kwh = sum(one.award.quantity_kw for one in laid) * hours
    scale = Decimal(str(hours)) / 1000
    cost = sum((one.award.quantity_kw * scale * one.award.price_eur_mwh for one in laid), Decimal(0))
    return Held(
        session=view.plan.id,
        closes=view.plan.closes,
        offers=len(np.unique(clearing.book.offer[clearing.open_to])),
        awards=len(laid),
        bought_kwh=kwh,
        cost_eur=float(cost),
        concordant_kwh=0.0,
        discordant_kwh=0.0,
        validated=0,
        limited_kwh=0.0,
        uncovered=tuple(clearing.uncovered()),
    )


# ---------------------------------------------------------------- what the session has before it


def _feeder(view: View) -> PhaseFeeder:
    """The case's feeder with its units in the order of their names. Raises CoflexError where there is none or the
    session asks for what phases have not, Refused for its offers."""
    session, feeder = view.session, view.world.phases
    if feeder is None:
        raise CoflexError(f"The case {view.world.id} has no grid of three phases.", "Choose a case that has one.")
    if session.pricing not in (Pricing.PAY_AS_BID, Pricing.NODAL):
        message = (
            f"The session {session.id} pays one price to all, which needs of different phases and places have not."
        )
        raise CoflexError(message, "Write pricing: pay_as_bid or nodal.")
    if session.interface in (Interface.FIXED, Interface.PRICED):
        message = f"The session {session.id} settles power with the grid above, which phase balancing does not see."
        raise CoflexError(message, "Write interface: free.")
    if session.own_means:
        message = f"The session {session.id} sets means of its own, of which a feeder of three phases has none."
        raise CoflexError(message, "Leave own_means out.")
    refuse(f"Offers of the feeder below {feeder.grid}", _unknown(view, feeder))
    order = np.array(sorted(range(len(feeder.units)), key=lambda v: feeder.units[v]), dtype=np.int64)
    return replace(
        feeder,
        units=tuple(feeder.units[v] for v in order.tolist()),
        providers=tuple(feeder.providers[v] for v in order.tolist()),
        node=feeder.node[order],
        share=feeder.share[order],
        tan_phi=feeder.tan_phi[order],
    )


def _unknown(view: View, feeder: PhaseFeeder) -> Iterator[Finding]:
    """Units and offers that a clearing of phases cannot take."""
    for name in feeder.units:
        if name in view.world.seller:
            yield Finding(f"unit {name}", "sold_elsewhere", "A seller of the case has this name; choose another.")
    for offer in feeder.offers:
        place = f"offer {offer.id}"
        if offer.unit not in feeder.units:
            yield Finding(place, "unknown_unit", f"The feeder has no unit '{offer.unit or ''}'; name one of its own.")
        if offer.block or offer.max_periods is not None or offer.energy_limit_kwh is not None or offer.exclusive:
            message = "Quarter-hours are cleared one by one here; leave out blocks, run lengths, energy and exclusion."
            yield Finding(place, "terms_across_periods", message)


def _offers(view: View, feeder: PhaseFeeder) -> list[Offer]:
    """The feeder's offers, if the session reaches them: of distribution level, qualified for phase balancing."""
    sellers, services = view.session.sellers, view.session.services
    reached = (
        Level.DISTRIBUTION in sellers.levels
        and Resource.UNITS in sellers.resources
        and (not services or Service.PHASE_BALANCING in services)
    )
    at = view.plan.closes
    return [one for one in feeder.offers if reached and (one.valid_until is None or one.valid_until > at)]


def _places(feeder: PhaseFeeder) -> Mapping[str, Place]:
    """A node of the book for each unit, as phases tell apart units of one bus."""
    return {name: Place(v, "", float(feeder.tan_phi[v])) for v, name in enumerate(feeder.units)}


def _held(view: View, state: State, feeder: PhaseFeeder) -> tuple[Floats, Bools]:
    """What units of the feeder are held for on the horizon: kW (v, h), up positive, and whether they are, (v, h)."""
    axis, index = view.plan.horizon, {name: v for v, name in enumerate(feeder.units)}
    kw, taken = np.zeros((len(index), len(axis))), np.zeros((len(index), len(axis)), dtype=np.bool_)
    for _, one in state.bought:
        award = one.award
        if award.unit in index and axis.covers(award.start):
            cell = index[award.unit], axis.position(award.start)
            kw[cell] += award.direction.sign * award.quantity_kw
            taken[cell] = True
    return kw, taken


# ---------------------------------------------------------------- limits of a feeder


@dataclass(frozen=True, eq=False)
class _Limits:
    """All k limits of a grid of n nodes and m branches, one behind the other: voltages too high (n, 3) and too low
    (n, 3), loading (m, 3), neutral (m), unbalance (n). `bound[k]` with the guard taken off; the source has none."""

    grid: PhaseGrid
    guard: Guard

    @cached_property
    def bound(self) -> Floats:
        network, limits = self.grid.network, PhaseLimits()
        inner = np.arange(network.n) != network.slack
        high = np.where(inner, network.v_max - self.guard.voltage_pu, np.inf)
        low = np.where(inner, -(network.v_min + self.guard.voltage_pu), np.inf)
        loading = network.loading_max - self.guard.loading_share
        neutral = np.full(network.m, limits.neutral - self.guard.loading_share)
        unbalance = np.where(inner, limits.unbalance, np.inf)
        return np.concatenate([*(np.repeat(x, 3) for x in (high, low, loading)), neutral, unbalance])

    def excess(self, state: PhaseState) -> Floats:
        """By how much states break each limit, (t, k), negative where they keep it; pu or a share."""
        t = len(state.u)
        parts = (state.vm, -state.vm, state.loading, state.neutral_loading, state.unbalance)
        values = np.concatenate([part.reshape(t, -1) for part in parts], axis=1)
        beyond: Floats = np.where(np.isfinite(self.bound), values - self.bound, -1.0)
        return beyond

    @cached_property
    def bends(self) -> Bools:
        """Limits of a modulus (k,): convex in what is bought, so that a row made anywhere cuts off nothing good. A
        voltage is all but linear, and its row is best where it was made last."""
        return np.arange(len(self.bound)) >= 6 * self.grid.network.n

    @cached_property
    def told(self) -> tuple[tuple[str, str], ...]:
        """Name and unit of each limit."""
        network = self.grid.network
        three = (
            (PhaseLimit.VOLTAGE_HIGH, network.node_names, "pu"),
            (PhaseLimit.VOLTAGE_LOW, network.node_names, "pu"),
            (PhaseLimit.LOADING, network.branch_names, "share of rating"),
        )
        named = [(f"{kind} {name} phase {f}", unit) for kind, names, unit in three for name in names for f in PHASES]
        named += [(f"{PhaseLimit.NEUTRAL} {name}", "share of rating") for name in network.branch_names]
        share = "share of positive sequence"
        return (*named, *((f"{PhaseLimit.UNBALANCE} {name}", share) for name in network.node_names))


# ---------------------------------------------------------------- one quarter-hour


@dataclass(frozen=True, eq=False)
class _Row:
    """A limit linear in c blocks: effect @ kw <= room, both in kW of the block that acts most on it."""

    limit: int
    effect: Floats
    room: float


@dataclass(eq=False)
class _Quarter:
    """A quarter-hour on its way: its c blocks (places in the book), what is bought of them, and what was tried.

    `kw[c]`; `rows`; `weight`: strongest effect of a kW on each known limit;
    `tried`: what each answer misses in kW and what it costs.
    """

    t: int
    blocks: Ints
    kw: Ints
    rows: list[_Row] = field(default_factory=list)
    weight: dict[int, float] = field(default_factory=dict)
    tried: dict[tuple[int, ...], tuple[float, float]] = field(default_factory=dict)

    def missing(self, excess: Floats) -> float:
        """What an answer misses of the known limits, in kW of each one's strongest block."""
        return sum(max(0.0, float(excess[k]) - KEPT) / weight for k, weight in self.weight.items())

    def best(self) -> tuple[int, ...]:
        """The answer that misses least, of those the cheapest, of those the one with least of what comes last."""
        least = min(missing for missing, _ in self.tried.values())
        near = [kw for kw, (missing, _) in self.tried.items() if missing <= least + _SAME_KW]
        return min(near, key=lambda kw: (self.tried[kw][1], kw[::-1]))

    def look(self, excess: Floats, effect: Floats, bends: Bools) -> None:
        """Take in the state of the answer: limits that it breaks become rows, known ones are made anew."""
        for k in np.flatnonzero(excess > KEPT).tolist():
            if k not in self.weight:
                strongest = float(np.abs(effect[k]).max(initial=0.0))
                self.weight[k] = strongest if strongest > 1e-9 else 1.0
        self.rows = [row for row in self.rows if bends[row.limit]]
        for k, weight in sorted(self.weight.items()):
            self.rows.append(_Row(k, effect[k] / weight, float(effect[k] @ self.kw - excess[k]) / weight))


@dataclass(frozen=True, eq=False)
class _Terms:
    """What the c blocks of a quarter-hour are bound by: `cost[c]`, `most[c]` in kW, sign, unit, offer, least kW."""

    cost: Floats
    most: Ints
    sign: Ints
    unit: Ints
    offer: Ints
    least: Ints

    def either(self) -> Iterator[tuple[Ints, Ints]]:
        """Blocks up and blocks down of each unit that offers both."""
        for unit in np.unique(self.unit).tolist():
            ways = [np.flatnonzero((self.unit == unit) & (self.sign == sign)) for sign in (1, -1)]
            if all(len(way) for way in ways):
                yield ways[0], ways[1]

    def at_least(self) -> Iterator[tuple[Ints, int]]:
        """Blocks of each offer that is bought with a least quantity or not at all."""
        for offer in np.unique(self.offer[self.least > 0]).tolist():
            mine = np.flatnonzero(self.offer == offer)
            yield mine, int(self.least[mine[0]])

    def keeps(self, kw: Ints) -> bool:
        """Whether an answer keeps least quantities, and one way for each unit."""
        least = all(not 0 < kw[mine].sum() < least for mine, least in self.at_least())
        return least and not any(kw[up].any() and kw[down].any() for up, down in self.either())

    def near(self, kw: Ints, dearer: bool) -> Iterator[Ints]:
        """Answers a kW or two away: taken from one block, moved from it to another, and added where `dearer` answers
        are asked for too."""
        one = np.eye(len(kw), dtype=np.int64)
        steps = [np.zeros_like(kw), *(size * one[j] for j in range(len(kw)) for size in (1, 2))]
        less = [size * one[i] for i in np.flatnonzero(kw > 0).tolist() for size in (1, 2)]
        for fewer in (*less, *([np.zeros_like(kw)] if dearer else [])):
            for more in steps:
                other = kw - fewer + more
                if not dearer and float(self.cost @ (more - fewer)) >= 0:
                    continue
                if (other >= 0).all() and (other <= self.most).all() and (other != kw).any() and self.keeps(other):
                    yield other


def _program(quarter: _Quarter, terms: _Terms) -> Program:
    """min cost @ kw + PENALTY * missing over blocks [c], what each known limit misses, binaries of units and offers.

    s.t. effect @ kw - missing_k <= room of each row; a unit goes one way; an offer gives its least or nothing.
    """
    limits = sorted(quarter.weight)
    c, width = len(terms.cost), len(terms.cost) + len(limits)
    rows: list[tuple[Ints, Floats, float]] = [
        (np.r_[np.arange(c), c + limits.index(row.limit)], np.r_[row.effect, -1.0], row.room) for row in quarter.rows
    ]
    for up, down in terms.either():
        for way, here in ((up, True), (down, False)):
            most = float(terms.most[way].sum())
            bound = 0.0 if here else most
            rows.append((np.r_[way, width], np.r_[np.ones(len(way)), -most if here else most], bound))
        width += 1
    for mine, least in terms.at_least():
        most = float(terms.most[mine].sum())
        rows.append((np.r_[mine, width], np.r_[np.ones(len(mine)), -most], 0.0))
        rows.append((np.r_[mine, width], np.r_[-np.ones(len(mine)), float(least)], 0.0))
        width += 1
    data = np.concatenate([values for _, values, _ in rows])
    place = np.concatenate([columns for columns, _, _ in rows])
    which = np.repeat(np.arange(len(rows)), [len(values) for _, values, _ in rows])
    binaries = width - c - len(limits)
    return Program(
        cost=np.concatenate([terms.cost, np.full(len(limits), PENALTY), np.zeros(binaries)]),
        matrix=sparse.csr_array((data, (which, place)), shape=(len(rows), width)),
        row_lower=np.full(len(rows), -np.inf),
        row_upper=np.array([bound for _, _, bound in rows]),
        lower=np.zeros(width),
        upper=np.concatenate([terms.most, np.full(len(limits), np.inf), np.ones(binaries)]),
        integer=np.concatenate(
            [np.ones(c, dtype=np.bool_), np.zeros(len(limits), dtype=np.bool_), np.ones(binaries, dtype=np.bool_)]
        ),
    )


def _solved(quarter: _Quarter, program: Program, gap: float) -> Floats:
    """The columns of a program's solution. Raises SolverFailure where it has none."""
    solution = highs.solve(program, gap=gap, nodes=BRANCHINGS)
    if not len(solution.x):
        message = f"The choice of quarter-hour {quarter.t} ended as {solution.ending.value}."
        raise SolverFailure(message, "Look at the least quantities of its offers.")
    return solution.x


# ---------------------------------------------------------------- the clearing


@dataclass(eq=False)
class _Clearing:
    """A session's clearing. `book`: its nodes are the feeder's units; `open_to[b]`: blocks that may be bought;
    `base_kw[v, h]`: what other sessions move."""

    view: View
    feeder: PhaseFeeder
    book: OrderBook
    open_to: Bools
    base_kw: Floats

    def __post_init__(self) -> None:
        margin = self.view.session.security_margin
        guard = Guard(margin.voltage_pu, margin.loading_share) if margin else Guard()
        feeder, nodes = self.feeder, self.feeder.phases.network.n
        self.limits = _Limits(feeder.phases, guard)
        onto = np.zeros((len(feeder.units), nodes, 3))
        onto[np.arange(len(feeder.units)), feeder.node] = feeder.share / 1000.0
        # MW and Mvar at each node and phase for a kW of each unit.
        self.onto = onto, onto * feeder.tan_phi[:, None, None]
        self.award_kw = np.zeros(len(self.book), dtype=np.int64)
        self.lacking: list[Uncovered] = []
        self.quarters: list[_Quarter] = []

    def settle(self) -> None:
        """Buy for the quarter-hours that break a limit."""
        before = self._excess(np.arange(self.base_kw.shape[1]), self.base_kw.T[:, None])[:, 0]
        self.quarters = [self._quarter(t) for t in np.flatnonzero((before > KEPT).any(axis=1)).tolist()]
        moving = [one for one in self.quarters if len(one.blocks)]
        for _ in range(PASSES):
            if not moving:
                break
            seen = zip(moving, *self._look(moving), strict=True)
            moving = [one for one, excess, effect in seen if self._step(one, excess, effect)]
        for one in self.quarters:
            self._end(one, before[one.t])

    def _quarter(self, t: int) -> _Quarter:
        blocks = np.flatnonzero(self.open_to & (self.book.period == t))
        return _Quarter(t, blocks, np.zeros(len(blocks), dtype=np.int64))

    def _terms(self, quarter: _Quarter) -> _Terms:
        book, mine = self.book, quarter.blocks
        price = book.price[mine]
        lowest = float(price.min(initial=_LEAST_EUR))
        if lowest < _LEAST_EUR:
            # Between half a cent and a cent, in their order: a need is met, nothing is bought beyond it.
            squeezed = _LEAST_EUR / 2 * (1 + (price - lowest) / (_LEAST_EUR - lowest))
            price = np.where(price < _LEAST_EUR, squeezed, price)
        rank = np.argsort(np.argsort(book.offer[mine], kind="stable"), kind="stable")
        return _Terms(
            cost=price + TIE_BREAK * rank,
            most=np.round(book.quantity_mw[mine] * 1000).astype(np.int64),
            sign=book.sign[mine],
            unit=book.node[mine],
            offer=book.offer[mine],
            least=np.array([book.offers[o].min_quantity_kw for o in book.offer[mine].tolist()], dtype=np.int64),
        )

    # ------------------------------------------------------------ power flow

    def _excess(self, periods: Ints, units_kw: Floats) -> Floats:
        """By how much states break each limit, (p, j, k): j changes of all units (p, j, v) in each of p periods."""
        feeder, shape = self.feeder, units_kw.shape[:2]
        part = np.arange(len(feeder.p_mw))[self.view.part][periods]
        power = [
            (base[part][:, None] + np.tensordot(units_kw, onto, axes=1)).reshape(-1, *base.shape[1:])
            for base, onto in zip((feeder.p_mw, feeder.q_mvar), self.onto, strict=True)
        ]
        found = [
            self.limits.excess(solve(feeder.phases, *(one[begin : begin + BATCH] for one in power)))
            for begin in range(0, len(power[0]), BATCH)
        ]
        return np.concatenate(found).reshape(*shape, -1) if found else np.zeros((*shape, len(self.limits.bound)))

    def _units_kw(self, quarter: _Quarter, kw: Ints) -> Floats:
        """What all units (v,) move with an answer of a quarter-hour, what others hold included."""
        moved: Floats = self.base_kw[:, quarter.t].copy()
        np.add.at(moved, self.book.node[quarter.blocks], self.book.sign[quarter.blocks] * kw)
        return moved

    def _look(self, quarters: Sequence[_Quarter]) -> tuple[list[Floats], list[Floats]]:
        """Excess (k,) of each quarter-hour's answer, and the effect of a kW of each of its blocks, (k, c)."""
        acting = np.unique(np.concatenate([self.book.node[one.blocks] for one in quarters]))
        step = np.zeros((len(acting), len(self.feeder.units)))
        step[np.arange(len(acting)), acting] = STEP_KW
        change = np.concatenate([np.zeros((1, step.shape[1])), step, -step])
        units = np.stack([self._units_kw(one, one.kw) + change for one in quarters])
        found = self._excess(np.array([one.t for one in quarters]), units)
        slope = (found[:, 1 : len(acting) + 1] - found[:, len(acting) + 1 :]) / (2 * STEP_KW)
        effects = []
        for one, mine in zip(quarters, slope, strict=True):
            at = np.searchsorted(acting, self.book.node[one.blocks])
            effects.append(self.book.sign[one.blocks] * mine[at].T)
        return list(found[:, 0]), effects

    # ------------------------------------------------------------ programs

    def _step(self, quarter: _Quarter, excess: Floats, effect: Floats) -> bool:
        """Make rows at the quarter-hour's answer and choose anew; whether that is an answer not tried before."""
        terms = self._terms(quarter)
        quarter.look(excess, effect, self.limits.bends)
        quarter.tried[tuple(quarter.kw.tolist())] = quarter.missing(excess), float(terms.cost @ quarter.kw)
        program = _program(quarter, terms)
        c = len(terms.cost)
        linear = _solved(quarter, replace(program, integer=np.zeros_like(program.integer)), GAP)
        missing = linear[c : c + len(quarter.weight)].sum() > _SAME_KW
        whole = np.round(_solved(quarter, program, GAP_MISSING if missing else GAP)[:c])
        quarter.kw = whole.astype(np.int64)
        return tuple(quarter.kw.tolist()) not in quarter.tried

    def _end(self, quarter: _Quarter, before: Floats) -> None:
        """Lay down the best answer, less every kW that it can do without, and what it leaves broken."""
        excess = before
        if len(quarter.blocks):
            quarter.kw, excess = self._settled(quarter, np.array(quarter.best(), dtype=np.int64))
            self.award_kw[quarter.blocks] = quarter.kw
        start = self.view.plan.horizon[quarter.t]
        known = sorted(quarter.weight)
        tight = tuple(self.limits.told[k][0] for k in known if -quarter.weight[k] < excess[k] <= KEPT)
        for k in np.flatnonzero(excess > KEPT).tolist():
            what, unit = self.limits.told[k]
            amount = round(float(excess[k]), 9)
            self.lacking.append(
                Uncovered(self.view.plan.id, start, what, amount, unit, tight or ("nothing more is offered",))
            )

    def _settled(self, quarter: _Quarter, kw: Ints) -> tuple[Ints, Floats]:
        """An answer made better by a kW or two here and there, until none of its neighbours misses less by power flow,
        or as much at less cost, and its excess (k,): rows are straight where the power flow bends, so what they call
        best may be a few kW from it."""
        terms = self._terms(quarter)
        known = np.zeros(len(self.limits.bound), dtype=np.bool_)
        known[sorted(quarter.weight)] = True
        excess = self._excess(np.array([quarter.t]), self._units_kw(quarter, kw)[None, None])[0, 0]
        missing = quarter.missing(excess)
        while True:
            others = list(terms.near(kw, dearer=missing > _SAME_KW))
            if not others:
                return kw, excess
            units = np.stack([self._units_kw(quarter, one) for one in others])
            found = self._excess(np.array([quarter.t]), units[None])[0]
            able = [
                (quarter.missing(there), one, there)
                for one, there in zip(others, found, strict=True)
                if quarter.missing(there) <= missing + _SAME_KW and not (there[~known] > KEPT).any()
            ]
            cost = float(terms.cost @ kw)
            able = [one for one in able if one[0] < missing - _SAME_KW or float(terms.cost @ one[1]) < cost]
            if not able:
                return kw, excess
            least = min(one[0] for one in able) + _SAME_KW
            there, kw, excess = min(
                (one for one in able if one[0] <= least),
                key=lambda one: (float(terms.cost @ one[1]), tuple(one[1][::-1].tolist())),
            )
            # Never up again: what is missing and then the cost fall, so this ends.
            missing = there if there < missing - _SAME_KW else missing

    # ------------------------------------------------------------ what comes of it

    def awards(self) -> Iterator[Bought]:
        """What was bought, in the order of the book."""
        book, plan = self.book, self.view.plan
        paid = self._paid()
        for i in np.flatnonzero(self.award_kw > 0).tolist():
            offer, start = book.offers[int(book.offer[i])], plan.horizon[int(book.period[i])]
            award = Award(
                session=plan.id,
                offer=offer.id,
                step=offer.steps[int(book.step[i])].number,
                provider=offer.provider,
                buyer=Buyer.DSO.value,
                product=offer.product,
                unit=offer.unit,
                group=None,
                direction=direction_of(int(book.sign[i])),
                start=start,
                quantity_kw=int(self.award_kw[i]),
                bid_eur_mwh=bid(book, i),
                price_eur_mwh=paid[i],
                status=plan.status(start),
            )
            yield Bought(award, self.feeder.grid, 1.0, 0.0, 0.0)

    def _paid(self) -> dict[int, Decimal]:
        """Price in EUR/MWh of each accepted block: its own, or what the limits pay at its bus and phase, never less
        than its own nor more than the dearest that could have been bought in the quarter-hour and direction."""
        book = self.book
        accepted = np.flatnonzero(self.award_kw > 0)
        bids = {i: bid(book, i) for i in accepted.tolist()}
        if self.view.session.pricing is Pricing.PAY_AS_BID:
            return bids
        paid = {}
        for quarter in self.quarters:
            for i, worth in zip(quarter.blocks.tolist(), self._worth(quarter).tolist(), strict=True):
                if i in bids:
                    alike = quarter.blocks[book.sign[quarter.blocks] == book.sign[i]]
                    most = min(worth, float(book.price[alike].max()))
                    paid[i] = max(bids[i], Decimal(most).quantize(CENT, ROUND_HALF_EVEN))
        return paid

    def _worth(self, quarter: _Quarter) -> Floats:
        """EUR/MWh (c,) that one more kW of each block is worth to the limits, by the duals of the linear program made
        at the answer, its binaries as the answer has them."""
        terms = self._terms(quarter)
        (excess,), (effect,) = self._look([quarter])
        quarter.look(excess, effect, np.zeros_like(self.limits.bends))
        program = _program(quarter, terms)
        chosen = _binaries(terms, quarter.kw)
        first = len(program.cost) - len(chosen)
        lower, upper = program.lower.copy(), program.upper.copy()
        lower[first:], upper[first:] = chosen[:, 0], chosen[:, 1]
        relaxed = replace(program, lower=lower, upper=upper, integer=np.zeros_like(program.integer))
        price = highs.solve(relaxed).row_price
        worth: Floats = sum(
            (price[r] * row.effect for r, row in enumerate(quarter.rows)), np.zeros(len(quarter.blocks))
        )
        return worth

    def uncovered(self) -> Sequence[Uncovered]:
        """What stays broken, in the order of time and limit: by how much, with the limits that keep more from being
        bought, or that nothing more is offered."""
        return self.lacking


def _binaries(terms: _Terms, kw: Ints) -> Floats:
    """Lower and upper bound of each binary of `_program` as an answer has it, (binaries, 2)."""
    found = []
    for up, down in terms.either():
        found.append([float(kw[up].sum() > 0), float(kw[down].sum() == 0)])
    for mine, _ in terms.at_least():
        found.append([float(kw[mine].sum() > 0)] * 2)
    return np.array(found, dtype=np.float64).reshape(-1, 2)

"""Leasing of storage by auction: an owner lets shares of a storage, so much power and energy over stated windows.

Bids are sealed, for whole bundles: all windows of a bid or nothing. The allocation has the highest total value above
the owner's reserve. A share is a battery of its own to its lessee; what is never let twice, power and energy, is also
enough for the device to follow whatever all lessees do at once. Source: document F, section 5.2.6; the payment rules
after its section 4.1, and W. Vickrey (1961), E. Clarke (1971), T. Groves (1973).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise

import numpy as np
from scipy import sparse

from coflex.domain.errors import CoflexError, Finding, SolverFailure, refuse
from coflex.domain.quantity import CENT, Bools, Floats, Ints, split_cents
from coflex.domain.time import Axis
from coflex.solver import highs
from coflex.solver.program import Ending, Program

# Values are whole cents: an answer nearer than this to the best, in EUR, is the best.
_NEARER = 0.004
_NODES = 1_000_000
# Prices are published with so many decimals, and payments follow from what is published.
_PRICE = Decimal("0.000001")
# kWh and kW that arithmetic may lose over a lease.
_SLACK = 1e-6


class Payment(StrEnum):
    """What a lessee pays.

    `clearing`: one price for each window, for power and for energy, the same for all; no lessee pays more than it bid.
    `pay_as_bid`: its bid. `vickrey`: what its being there costs the others and the owner; then bidding the true value
    is best, whatever others do.
    """

    CLEARING = "clearing"
    PAY_AS_BID = "pay_as_bid"
    VICKREY = "vickrey"


class Reason(StrEnum):
    """Why a bid gets nothing."""

    TOO_LARGE = "too_large"
    BELOW_RESERVE = "below_reserve"
    EXCLUSIVE = "exclusive"
    OUTBID = "outbid"


@dataclass(frozen=True, slots=True)
class Device:
    """The storage itself: the most it takes and gives at its terminals, kW; what it holds, kWh; the shares of energy
    that survive charging and discharging (above 0, at most 1). `level`: the share of its energy, 0 to 1, at which a
    lease begins and must end."""

    charge_kw: int
    discharge_kw: int
    energy_kwh: int
    charge_efficiency: float = 1.0
    discharge_efficiency: float = 1.0
    level: float = 0.5


@dataclass(frozen=True, slots=True)
class Storage:
    """What an owner offers: `power_kw[w]` both ways and `energy_kwh[w]` in each window of `windows`. What is not
    offered stays the owner's. `reserve_power_eur_mw_h`, `reserve_energy_eur_mwh_h`: the least price of one MW, and of
    one MWh of room, for an hour."""

    id: str
    owner: str
    device: Device
    windows: Axis
    power_kw: tuple[int, ...]
    energy_kwh: tuple[int, ...]
    reserve_power_eur_mw_h: Decimal = Decimal(0)
    reserve_energy_eur_mwh_h: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Power, both ways, and room for energy in all windows in [start, end)."""

    start: datetime
    end: datetime
    power_kw: int
    energy_kwh: int


@dataclass(frozen=True, slots=True)
class LeaseBid:
    """A sealed bid of a lessee for bundles that do not overlap: all of them for `price_eur`, or none.

    `receipt`: running number given at intake; it breaks ties. Of a lessee's bids with one `exclusive` label at most
    one wins.
    """

    id: str
    receipt: int
    lessee: str
    bundles: tuple[Bundle, ...]
    price_eur: Decimal
    exclusive: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A bid that won, and what its lessee pays for it in all."""

    bid: LeaseBid
    payment_eur: Decimal


@dataclass(frozen=True, slots=True)
class Lost:
    """A bid that gets nothing. `needed_eur`: the price with which it would have been as good as what won; None where no
    price helps."""

    bid: LeaseBid
    reason: Reason
    needed_eur: Decimal | None
    detail: str


@dataclass(frozen=True, slots=True)
class WindowPrice:
    """Clearing prices of a window: of one MW for an hour, and of room for one MWh for an hour."""

    start: datetime
    power_eur_mw_h: Decimal
    energy_eur_mwh_h: Decimal


@dataclass(frozen=True, eq=False)
class Leased:
    """How an auction ended: leases and losers by receipt; what stays free of the offer, kW and kWh by window;
    `surplus_eur`, the value of what won above the reserve; `prices` under the clearing rule alone."""

    leases: tuple[Lease, ...]
    lost: tuple[Lost, ...]
    free_kw: tuple[int, ...]
    free_kwh: tuple[int, ...]
    surplus_eur: Decimal
    prices: tuple[WindowPrice, ...] = ()

    @property
    def revenue_eur(self) -> Decimal:
        return sum((lease.payment_eur for lease in self.leases), Decimal("0.00"))


# ---------------------------------------------------------------- the auction


def auction(storage: Storage, bids: Sequence[LeaseBid], payment: Payment = Payment.CLEARING) -> Leased:
    """Let the storage to the bids of the highest total value above the reserve.

    Among allocations of the same value the one with the first receipt wins, among those the one with the second, and so
    on. Guarantees: in no window more power or energy let than is offered; every payment a whole number of cents, at
    least the reserve (rounded up to the cent), at most the bid; any order of the bids gives the same.
    Raises Refused with every fault of storage and bids, SolverFailure when the allocation cannot be proved best.
    """
    refuse(f"Storage {storage.id}", _storage_faults(storage))
    refuse(f"Bids for storage {storage.id}", _bid_faults(storage, bids))
    ranked = sorted(bids, key=lambda bid: (bid.receipt, bid.id))
    power, energy = _wanted(storage, ranked)
    reserve = [_reserve_cents(storage, p, e) for p, e in zip(power, energy, strict=True)]
    room = np.concatenate([storage.power_kw, storage.energy_kwh]).astype(np.int64)
    use = np.concatenate([power, energy], axis=1)
    game = _Game(ranked, use, room, np.array([_cents(b.price_eur) for b in ranked], dtype=np.int64), np.array(reserve))
    won = game.decide()
    lost = [_lost(storage, game, won, i) for i in range(len(ranked)) if not won[i]]
    prices: tuple[WindowPrice, ...] = ()
    if payment is Payment.VICKREY:
        paid = _vickrey(game, won)
    elif payment is Payment.PAY_AS_BID:
        paid = {i: int(game.value[i]) for i in np.flatnonzero(won).tolist()}
    else:
        prices = _clearing(storage, game, won, lost)
        paid = _at_prices(storage, game, won, prices)
    free = room - use[won].sum(axis=0)
    count = len(storage.windows)
    return Leased(
        leases=tuple(Lease(ranked[i], paid[i] * CENT) for i in np.flatnonzero(won).tolist()),
        lost=tuple(lost),
        free_kw=tuple(free[:count].tolist()),
        free_kwh=tuple(free[count:].tolist()),
        surplus_eur=int(game.gain[won].sum()) * CENT,
        prices=prices,
    )


def _cents(amount: Decimal) -> int:
    return int(amount / CENT)


def _hours(axis: Axis) -> Fraction:
    return Fraction(axis.step.total_seconds()) / 3600


def _wanted(storage: Storage, bids: Sequence[LeaseBid]) -> tuple[Ints, Ints]:
    """kW and kWh that each bid wants in each window, (bids, windows)."""
    power = np.zeros((len(bids), len(storage.windows)), dtype=np.int64)
    energy = np.zeros_like(power)
    for i, bid in enumerate(bids):
        for bundle in bid.bundles:
            part = storage.windows.slice_of(storage.windows.window(bundle.start, bundle.end))
            power[i, part] += bundle.power_kw
            energy[i, part] += bundle.energy_kwh
    return power, energy


def _worth(
    storage: Storage, power_kw: Ints, energy_kwh: Ints, of_power: Sequence[Decimal], of_energy: Sequence[Decimal]
) -> Decimal:
    """EUR of a bundle at prices of each window, exact."""
    hours = _hours(storage.windows)
    sums = zip(power_kw.tolist(), energy_kwh.tolist(), of_power, of_energy, strict=True)
    total = sum((kw * a + kwh * b for kw, kwh, a, b in sums), Decimal(0))
    return total * hours.numerator / (1000 * hours.denominator)


def _reserve_cents(storage: Storage, power_kw: Ints, energy_kwh: Ints) -> int:
    count = len(storage.windows)
    of_power, of_energy = [storage.reserve_power_eur_mw_h] * count, [storage.reserve_energy_eur_mwh_h] * count
    worth = _worth(storage, power_kw, energy_kwh, of_power, of_energy)
    return int((worth / CENT).to_integral_value(ROUND_CEILING))


class _Game:
    """The choice among n bids in the order of receipt: `use` (n, 2w), power then energy of each window; `room` (2w,);
    `value`, `reserve`, and `gain` between them, in cents."""

    def __init__(self, bids: Sequence[LeaseBid], use: Ints, room: Ints, value: Ints, reserve: Ints) -> None:
        self.bids, self.use, self.room = bids, use, room
        self.value, self.reserve = value, reserve.astype(np.int64)
        self.gain: Ints = self.value - self.reserve
        self.fits: Bools = np.asarray((use <= room).all(axis=1), dtype=np.bool_)
        # A bid below the reserve only lowers the total, so it is out from the start.
        self.able: Bools = self.fits & (self.gain >= 0)
        labels: dict[tuple[str, str], list[int]] = defaultdict(list)
        for i, bid in enumerate(bids):
            if bid.exclusive is not None:
                labels[(bid.lessee, bid.exclusive)].append(i)
        self.labels = [places for places in labels.values() if len(places) > 1]
        one = np.zeros((len(self.labels), len(bids)))
        for row, places in enumerate(self.labels):
            one[row, places] = 1.0
        self.matrix = sparse.csr_array(np.concatenate([use.T.astype(np.float64), one]))
        self.rows = sparse.csr_array(sparse.vstack([self.matrix, sparse.csr_array(self.gain[None, :] / 100.0)]))
        self.upper = np.concatenate([room, np.ones(len(one))]).astype(np.float64)

    def best(self, may: Bools, must: Bools, reach: int | None = None) -> tuple[int, Bools] | None:
        """The highest total gain with all of `must` and only of `may`, and a choice with it; None if `must` does not
        fit, or if no choice reaches the gain `reach`, cents, which is found out much sooner."""
        if (self.matrix @ must.astype(np.float64) > self.upper).any():
            return None
        if not (may & ~must).any():
            return int(self.gain[must].sum()), must
        least = -np.inf if reach is None else reach / 100.0 - _NEARER
        program = Program(
            cost=-self.gain / 100.0,
            matrix=self.rows,
            row_lower=np.r_[np.full(len(self.upper), -np.inf), least],
            row_upper=np.r_[self.upper, np.inf],
            lower=must.astype(np.float64),
            upper=(may | must).astype(np.float64),
            integer=np.ones(len(self.bids), dtype=np.bool_),
        )
        found = highs.solve(program, gap=_NEARER, nodes=_NODES)
        if found.ending is Ending.INFEASIBLE and reach is not None:
            return None
        if found.ending is not Ending.OPTIMAL:
            raise SolverFailure("The allocation of leases could not be proved best.", "Auction fewer windows at once.")
        chosen: Bools = found.x > 0.5
        if (self.matrix @ chosen.astype(np.float64) > self.upper).any():
            raise SolverFailure("The allocation of leases does not fit.", "Look at the magnitudes of the bids.")
        return int(self.gain[chosen].sum()), chosen

    def total(self, may: Bools) -> int:
        """The highest total gain from these bids."""
        found = self.best(may, np.zeros_like(may))
        return found[0] if found else 0

    def decide(self) -> Bools:
        """The best choice, ties by receipt: each bid in turn stays if some best choice has it with those before it."""
        may, must = self.able.copy(), np.zeros(len(self.bids), dtype=np.bool_)
        start = self.best(may, must)
        if start is None:
            return must
        most, chosen = start
        for i in np.flatnonzero(self.able).tolist():
            if not chosen[i]:
                must[i] = True
                other = self.best(may, must, most)
                if other is None or other[0] < most:
                    must[i] = may[i] = False
                    continue
                chosen = other[1]
            must[i] = True
        return must

    def rival(self, won: Bools, i: int) -> int | None:
        """The bid with the same exclusive label as bid i that won."""
        for places in self.labels:
            if i in places:
                return next((j for j in places if won[j]), None)
        return None


def _lost(storage: Storage, game: _Game, won: Bools, i: int) -> Lost:
    bid, count = game.bids[i], len(storage.windows)
    if not game.fits[i]:
        where = _named(storage, np.flatnonzero(game.use[i] > game.room))
        return Lost(bid, Reason.TOO_LARGE, None, f"more than is offered of {where}")
    # With this bid forced in at no gain: what all others lose is what it must bring.
    forced = np.arange(len(game.bids)) == i
    with_it = game.best(game.able, forced)
    others = (with_it[0] if with_it else 0) - int(game.gain[i])
    needed = (int(game.reserve[i]) + int(game.gain[won].sum()) - others) * CENT
    if game.gain[i] < 0:
        return Lost(bid, Reason.BELOW_RESERVE, needed, f"the reserve is {int(game.reserve[i]) * CENT} EUR")
    rival = game.rival(won, i)
    if rival is not None:
        return Lost(bid, Reason.EXCLUSIVE, needed, f"{game.bids[rival].id} of the same lessee won")
    short = np.flatnonzero(game.use[i] > game.room - game.use[won].sum(axis=0))
    first = np.unique(short % count)[0]
    ahead = [game.bids[j].id for j in np.flatnonzero(won & (game.use[:, [first, first + count]].any(axis=1))).tolist()]
    return Lost(bid, Reason.OUTBID, needed, f"no {_named(storage, short)} left beside {', '.join(ahead)}")


def _named(storage: Storage, columns: Ints) -> str:
    """What is short first, and in how many windows."""
    count = len(storage.windows)
    kinds = [name for name, mine in (("power", columns < count), ("energy", columns >= count)) if mine.any()]
    windows = np.unique(columns % count)
    return f"{' and '.join(kinds)} from {storage.windows[int(windows[0])].isoformat()} on ({len(windows)} windows)"


# ---------------------------------------------------------------- payments


def _vickrey(game: _Game, won: Bools) -> dict[int, int]:
    """Cents: a lessee's bid less what the total gains by its being there, shared over its leases by their gain."""
    total = int(game.gain[won].sum())
    mine: dict[str, list[int]] = defaultdict(list)
    for i in np.flatnonzero(won).tolist():
        mine[game.bids[i].lessee].append(i)
    paid: dict[int, int] = {}
    for lessee, places in mine.items():
        without = np.array([bid.lessee != lessee for bid in game.bids], dtype=np.bool_)
        off = total - game.total(game.able & without)
        gains = [int(game.gain[i]) for i in places]
        weight = max(1, sum(gains))
        parts = split_cents([off * gain * CENT / weight for gain in gains])
        paid |= {i: int(game.value[i]) - part for i, part in zip(places, parts, strict=True)}
    return paid


def _clearing(storage: Storage, game: _Game, won: Bools, lost: Sequence[Lost]) -> tuple[WindowPrice, ...]:
    """Prices of each window at which every winner gains, the losers that would rather have won miss the least in all
    and, among those, the lowest payments.

    Bundles that are won whole may leave no price at which each loser is content: some may then stay out although they
    bid more than the price, as blocks may in the European day-ahead auction; none ever pays more than it bid.
    """
    count = len(storage.windows)
    place = {bid.id: i for i, bid in enumerate(game.bids)}
    losers = [place[one.bid.id] for one in lost if one.reason in (Reason.OUTBID, Reason.EXCLUSIVE)]
    if not won.any():
        return ()
    program, paying = _price_program(storage, game, won, losers)
    first = highs.solve(program)
    second = highs.solve(
        replace(
            program,
            cost=paying,
            matrix=sparse.csr_array(sparse.vstack([program.matrix, sparse.csr_array(program.cost[None, :])])),
            row_lower=np.r_[program.row_lower, -np.inf],
            row_upper=np.r_[program.row_upper, first.cost + 1e-7],
        )
    )
    if first.ending is not Ending.OPTIMAL or second.ending is not Ending.OPTIMAL:
        raise SolverFailure("No clearing prices were found.", "Look at the magnitudes of the bids.")
    of_power, of_energy = second.x[:count], second.x[count : 2 * count]
    return tuple(
        WindowPrice(start, _published(a), _published(b))
        for start, a, b in zip(storage.windows, of_power, of_energy, strict=True)
    )


def _price_program(storage: Storage, game: _Game, won: Bools, losers: Sequence[int]) -> tuple[Program, Floats]:
    """Prices of power and energy of each window, then what each loser misses, at the least sum of what is missed; and
    the cost of the same columns by which payments are least."""
    weight, value, winners = game.use * float(_hours(storage.windows)) / 1000.0, game.value / 100.0, np.flatnonzero(won)
    prices = weight.shape[1]
    envy, least = np.zeros((len(losers), prices)), np.zeros(len(losers))
    for row, i in enumerate(losers):
        rival = game.rival(won, i)
        # A loser to a bid of its own compares the two: it misses only what the other bundle would have been better.
        envy[row] = weight[i] - (0.0 if rival is None else weight[rival])
        least[row] = value[i] - (0.0 if rival is None else value[rival])
    floor = np.repeat([float(storage.reserve_power_eur_mw_h), float(storage.reserve_energy_eur_mwh_h)], prices // 2)
    pays = np.hstack([weight[winners], np.zeros((len(winners), len(losers)))])
    program = Program(
        cost=np.r_[np.zeros(prices), np.ones(len(losers))],
        matrix=sparse.csr_array(np.vstack([np.hstack([envy, np.eye(len(losers))]), pays])),
        row_lower=np.r_[least, np.full(len(winners), -np.inf)],
        row_upper=np.r_[np.full(len(losers), np.inf), value[winners]],
        lower=np.r_[floor, np.zeros(len(losers))],
        upper=np.full(prices + len(losers), np.inf),
        integer=np.zeros(prices + len(losers), dtype=np.bool_),
    )
    # A little on every price keeps those that nobody pays at the reserve.
    return program, pays.sum(axis=0) + np.r_[np.full(prices, 1e-9), np.zeros(len(losers))]


def _published(price: float) -> Decimal:
    return Decimal(repr(float(price))).quantize(_PRICE)


def _at_prices(storage: Storage, game: _Game, won: Bools, prices: Sequence[WindowPrice]) -> dict[int, int]:
    """Cents that each winner pays at the published prices, between reserve and bid."""
    count, paid = len(storage.windows), {}
    of_power, of_energy = [p.power_eur_mw_h for p in prices], [p.energy_eur_mwh_h for p in prices]
    for i in np.flatnonzero(won).tolist():
        worth = _worth(storage, game.use[i, :count], game.use[i, count:], of_power, of_energy)
        cents = int((worth / CENT).to_integral_value())
        paid[i] = min(int(game.value[i]), max(int(game.reserve[i]), cents))
    return paid


# ---------------------------------------------------------------- what is given


def _storage_faults(storage: Storage) -> list[Finding]:
    place, device, found = f"storage {storage.id}", storage.device, []
    count = len(storage.windows)
    if len(storage.power_kw) != count or len(storage.energy_kwh) != count:
        found.append(Finding(place, "windows", f"Give power and energy for each of {count} windows."))
    if min(device.charge_kw, device.discharge_kw) < max((0, *storage.power_kw)) or min((0, *storage.power_kw)) < 0:
        message = "Offer no less than 0 kW and no more than the device charges and discharges."
        found.append(Finding(place, "power", message))
    if device.energy_kwh < max((0, *storage.energy_kwh)) or min((0, *storage.energy_kwh)) < 0:
        found.append(Finding(place, "energy", "Offer no less than 0 kWh and no more than the device holds."))
    if not (0 < device.charge_efficiency <= 1 and 0 < device.discharge_efficiency <= 1):
        found.append(Finding(place, "efficiency", "Give efficiencies above 0 and at most 1."))
    if not 0 <= device.level <= 1:
        found.append(Finding(place, "level", "Give the level at which leases begin as a share from 0 to 1."))
    if storage.reserve_power_eur_mw_h < 0 or storage.reserve_energy_eur_mwh_h < 0:
        found.append(Finding(place, "reserve", "Give reserve prices of 0 or more."))
    return found


def _bid_faults(storage: Storage, bids: Sequence[LeaseBid]) -> list[Finding]:
    found: list[Finding] = []
    seen: set[str] = set()
    for bid in bids:
        place = f"bid {bid.id}"
        if bid.id in seen:
            found.append(Finding(place, "bid_twice", "Two bids have this id; name them apart."))
        seen.add(bid.id)
        if bid.price_eur < 0 or bid.price_eur % CENT:
            found.append(Finding(place, "price", "Bid a whole number of cents, 0 or more."))
        if not bid.bundles:
            found.append(Finding(place, "nothing", "Name at least one bundle."))
        found += [fault for bundle in bid.bundles for fault in _bundle_faults(storage, place, bundle)]
        ordered = sorted(bid.bundles, key=lambda bundle: bundle.start)
        if any(a.end > b.start for a, b in pairwise(ordered)):
            found.append(Finding(place, "overlap", "Let the bundles of a bid follow each other."))
    return found


def _bundle_faults(storage: Storage, place: str, bundle: Bundle) -> list[Finding]:
    found = []
    try:
        inside = len(storage.windows.window(bundle.start, bundle.end))
    except CoflexError:
        inside = 0
    if not inside:
        message = f"No windows from {bundle.start.isoformat()} to {bundle.end.isoformat()}; take bounds of the offer's."
        found.append(Finding(place, "windows", message))
    if bundle.power_kw < 1 or bundle.energy_kwh < 1:
        found.append(Finding(place, "quantity", "Ask for power and for energy; neither is of use without the other."))
    return found


# ---------------------------------------------------------------- the shares in use


@dataclass(frozen=True, eq=False)
class Operation:
    """What a device does for its lessees over n steps, injection positive.

    `power_kw[n]` of the device; `state_kwh[n + 1]`; `surplus_kw[n]`, never negative: what it injects beyond the sum of
    its lessees' use, since what one gives to another passes no losses; it belongs to the owner.
    """

    power_kw: Floats
    state_kwh: Floats
    surplus_kw: Floats


def bounds(
    device: Device, power_kw: float, energy_kwh: float, state_kwh: float, after: int, hours: float
) -> tuple[float, float]:
    """The least and most injection, kW, that a share may use now and still be back at its level `after` steps later.

    A share of `power_kw` both ways and `energy_kwh`, holding `state_kwh`; steps of `hours`. From a state from which the
    level can be reached in `after` + 1 steps, as it is at a lease's start, there always is such a use.
    """
    level = device.level * energy_kwh
    gain, loss = hours * device.charge_efficiency * power_kw, hours * power_kw / device.discharge_efficiency
    lowest, highest = max(0.0, level - after * gain), min(energy_kwh, level + after * loss)
    least = float(_injection(device, np.array([highest - state_kwh]), hours)[0])
    most = float(_injection(device, np.array([lowest - state_kwh]), hours)[0])
    return max(-power_kw, least), min(power_kw, most)


def _injection(device: Device, change_kwh: Floats, hours: float) -> Floats:
    """kW at the terminals, injection positive, for changes of what is stored in steps of `hours`."""
    taken, given = np.maximum(change_kwh, 0.0), np.maximum(-change_kwh, 0.0)
    injection: Floats = (given * device.discharge_efficiency - taken / device.charge_efficiency) / hours
    return injection


def operate(storage: Storage, leases: Sequence[Lease], steps: Axis, use_kw: Mapping[str, Floats]) -> Operation:
    """What the device does when each lessee uses its share as a battery of its own.

    `steps`: over all windows of the storage, some to a window. `use_kw[bid id]` (n,), injection positive; 0 for a lease
    that is not named. A share has the device's efficiencies, begins at its level and is back there whenever the energy
    leased changes. The rest of the device stays at its level.

    Guarantees, for leases of one auction: the device stays within its power and energy, whatever the uses are; at the
    bounds of windows where all leases change it is at its level. Raises Refused with every use that leaves its share,
    CoflexError on steps that do not divide the windows.
    """
    per, rest = divmod(storage.windows.step, steps.step)
    if rest or (steps.start, steps.end) != (storage.windows.start, storage.windows.end):
        raise CoflexError("These steps do not divide the windows of the storage.", "Take some to each window.")
    power, energy = (np.repeat(kind, per, axis=1) for kind in _wanted(storage, [lease.bid for lease in leases]))
    device, n = storage.device, len(steps)
    used, change, faults = np.zeros(n), np.zeros(n), []
    for i, lease in enumerate(leases):
        use = use_kw.get(lease.bid.id, np.zeros(n))
        if len(use) != n:
            raise CoflexError(f"The use of {lease.bid.id} has {len(use)} steps.", f"Give one value for each of {n}.")
        move = _stored(device, use, steps.hours)
        faults += _use_faults(device, lease.bid.id, steps, use, move, power[i], energy[i])
        used, change = used + use, change + move
    refuse(f"Uses of storage {storage.id}", faults)
    state = device.level * device.energy_kwh + np.r_[0.0, np.cumsum(change)]
    injected = _injection(device, change, steps.hours)
    return Operation(injected, state, injected - used)


def _stored(device: Device, use_kw: Floats, hours: float) -> Floats:
    """kWh that injections change what is stored by, in steps of `hours`."""
    given, taken = np.maximum(use_kw, 0.0), np.maximum(-use_kw, 0.0)
    change: Floats = hours * (taken * device.charge_efficiency - given / device.discharge_efficiency)
    return change


def _use_faults(
    device: Device, bid: str, steps: Axis, use: Floats, move: Floats, power: Ints, energy: Ints
) -> list[Finding]:
    """How the use of one share leaves it; the first step of each kind and stretch of equal energy."""
    found = []
    beyond = np.flatnonzero(np.abs(use) > power + _SLACK)
    if len(beyond):
        at = int(beyond[0])
        message = f"{use[at]:.3f} kW at {steps[at].isoformat()}; the lease has {int(power[at])} kW both ways."
        found.append(Finding(f"lease {bid}", "power", message))
    edges = np.r_[0, 1 + np.flatnonzero(np.diff(energy)), len(energy)].astype(np.int64)
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        room = int(energy[first])
        state = device.level * room + np.cumsum(move[first:last])
        out = np.flatnonzero((state < -_SLACK) | (state > room + _SLACK))
        if len(out):
            message = f"{state[out[0]]:.3f} kWh after {steps[first + int(out[0])].isoformat()}; it has 0 to {room} kWh."
            found.append(Finding(f"lease {bid}", "energy", message))
        elif abs(state[-1] - device.level * room) > _SLACK * max(1, last - first):
            message = (
                f"{state[-1]:.3f} kWh after {steps[last - 1].isoformat()}; return it at {device.level * room} kWh."
            )
            found.append(Finding(f"lease {bid}", "not_returned", message))
    return found

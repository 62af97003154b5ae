"""The rules that an offer must keep by itself. Each looks first, and builds a finding only where there is a fault."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from operator import add

import numpy as np

from coflex.domain.errors import Finding
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.quantity import Ints
from coflex.domain.time import local_label
from coflex.market.design import SessionPlan
from coflex.market.intake.laid import Caps, Laid, Lot, alternatives, fault, lowest
from coflex.market.intake.sellers import Sellers
from coflex.market.ledger import assign_over


class Rules:
    """What an offer must be by itself, in a session and against a context. Each rule appends the faults it finds."""

    def __init__(self, plan: SessionPlan, sellers: Sellers) -> None:
        self.plan, self.sellers = plan, sellers
        self._start, self._count, self._length = plan.horizon.start, len(plan.horizon), plan.horizon.step
        self._id, self._opens, self._closes = plan.id, plan.opens, plan.closes

    def look(self, offer: Offer, found: list[Finding]) -> Laid:
        """The offer on the horizon; appends every fault that it has by itself."""
        lot = self.sellers.lot(offer, found)
        self._gate(offer, found)
        self._terms(offer, lot, found)
        firsts = self.firsts(offer)
        for step, first in zip(offer.steps, firsts, strict=True):
            self._step(offer, step, first, lot, found)
        laid = self.lay(offer, lot, firsts)
        if not _ascend(offer.steps):
            self._numbers(offer, found)
            self._overlaps(offer, found)
            self._falls(offer, firsts, found)
        if offer.block:
            self._whole(laid, found)
        self._quantities(laid, found)
        if lot.limited:
            self.lasts(laid, self.asked_kwh(laid, lot), found)
        return laid

    # ------------------------------------------------------------ its place on the horizon

    def firsts(self, offer: Offer) -> list[int | None]:
        """The quarter-hour of the horizon in which each step begins, also before or after it; None between two."""
        start, length = self._start, self._length
        firsts: list[int | None] = []
        for step in offer.steps:
            first, rest = divmod(step.start - start, length)
            firsts.append(None if rest else first)
        return firsts

    def lay(self, offer: Offer, lot: Lot, firsts: Sequence[int | None]) -> Laid:
        """The offer on the horizon, all steps together."""
        first = firsts[0] if firsts else None
        if first is not None and firsts.count(first) == len(firsts):
            kw = _stacked(offer.steps)
            if kw and 0 <= first <= self._count - len(kw):
                return Laid(offer, lot, first, kw, ((1 << len(kw)) - 1) << first)
        mask, total = 0, [0] * self._count
        for step, first in zip(offer.steps, firsts, strict=True):
            if first is not None:
                for t, one in enumerate(step.quantity_kw, first):
                    if one > 0 and 0 <= t < self._count:
                        total[t] += one
                        mask |= 1 << t
        begin = lowest(mask) if mask else 0
        return Laid(offer, lot, begin, total[begin : mask.bit_length()], mask)

    def label(self, period: int) -> str:
        """The local time of a quarter-hour of the horizon."""
        return local_label(self.plan.horizon[period], self.plan.zone)

    def _where(self, step: OfferStep, period: int = 0) -> tuple[str, str]:
        """A step and one of its own quarter-hours, which may lie anywhere in time."""
        try:
            at = local_label(step.start + period * self._length, self.plan.zone)
        except OverflowError:
            at = step.start.isoformat(timespec="minutes")
        return f"step {step.number}", at

    # ------------------------------------------------------------ rules of the whole offer

    def _gate(self, offer: Offer, found: list[Finding]) -> None:
        at, until, name = offer.received_at, offer.valid_until, self._id
        if offer.session != name:
            message = f"The session '{offer.session}' is not {name}, which takes offers here; name {name}."
            found.append(fault(offer, "unknown_session", message))
        if at >= self._closes:
            message = f"The gate of {name} closed at {self._local(self._closes)}; offer in a later session."
            found.append(fault(offer, "after_gate", message))
        if at < self._opens:
            opens, closes = self._local(self._opens), self._local(self._closes)
            message = f"The gate of {name} opens at {opens} and closes at {closes}; send the offer in that time."
            found.append(fault(offer, "before_gate", message))
        if until is not None and until <= self._closes:
            closes = self._local(self._closes)
            message = f"The offer ends before the session clears at {closes}; let it be valid for longer."
            found.append(fault(offer, "expired", message))

    def _local(self, instant: datetime) -> str:
        return local_label(instant, self.plan.zone)

    def _terms(self, offer: Offer, lot: Lot, found: list[Finding]) -> None:
        """Conditions that no clearing could meet, whatever the quantities."""
        if not (offer.block or lot.divisible):
            message = f"The product {offer.product} is not divisible; offer it as a block."
            found.append(fault(offer, "indivisible", message))
        if offer.min_quantity_kw < 0:
            message = "The minimum quantity is negative; write 0 for none."
            found.append(fault(offer, "negative_minimum", message))
        if offer.max_periods is not None and offer.max_periods < 1:
            found.append(fault(offer, "max_periods", _nothing("max_periods", offer.max_periods)))
        if offer.energy_limit_kwh is not None and offer.energy_limit_kwh < 1:
            found.append(fault(offer, "energy_limit_kwh", _nothing("energy_limit_kwh", offer.energy_limit_kwh)))

    def _whole(self, laid: Laid, found: list[Finding]) -> None:
        """A block that its own limits forbid, or that has two prices, could never be taken."""
        offer, axis = laid.offer, self.plan.horizon
        if len({step.number for step in offer.steps}) > 1:
            message = "A block is taken whole, so it has one price step; leave out the others."
            found.append(fault(offer, "block_steps", message))
        firm, energy_kwh = axis.slice_of(self.plan.firm), float(sum(laid.kw)) * axis.hours
        definitive = (1 << firm.stop) - (1 << firm.start)
        if laid.mask & definitive and laid.mask >> firm.stop:
            message = "Only a part of the block would become definitive; end it there, or start it after that."
            found.append(fault(offer, "block_across", message, self.label(firm.stop)))
        if offer.max_periods is not None and offer.max_periods < _longest_run(laid.mask):
            message = f"The block is longer than its own limit of {offer.max_periods} quarter-hours; shorten it."
            found.append(fault(offer, "block_periods", message))
        if offer.energy_limit_kwh is not None and energy_kwh > offer.energy_limit_kwh:
            limit = offer.energy_limit_kwh
            message = f"The block of {energy_kwh:g} kWh is above its own limit of {limit} kWh; lower it."
            found.append(fault(offer, "block_energy", message))

    # ------------------------------------------------------------ rules of its steps

    def _step(self, offer: Offer, step: OfferStep, first: int | None, lot: Lot, found: list[Finding]) -> None:
        price, kw, tick = step.price_eur_mwh, step.quantity_kw, lot.tick_kw
        if not price.is_finite():
            message = f"The price {price} is no number; give EUR/MWh."
            found.append(fault(offer, "price_not_finite", message, *self._where(step)))
        elif price > lot.highest:
            message = f"The price {price} is above the cap of {lot.highest} EUR/MWh; lower it."
            found.append(fault(offer, "price_cap", message, *self._where(step)))
        elif price < lot.lowest:
            message = f"The price {price} is below the floor of {lot.lowest} EUR/MWh; raise it."
            found.append(fault(offer, "price_floor", message, *self._where(step)))
        if first is None or not 0 <= first < self._count or first + len(kw) > self._count:
            self._outside(offer, step, first, found)
        for i, one in enumerate(kw):
            if one < 0:
                message = f"The quantity of {one} kW is negative; give the quantity unsigned and the direction."
                found.append(fault(offer, "negative", message, *self._where(step, i)))
            if one % tick:
                message = f"The quantity of {one} kW is no multiple of the tick of {tick} kW; round it."
                found.append(fault(offer, "tick", message, *self._where(step, i)))

    def _outside(self, offer: Offer, step: OfferStep, first: int | None, found: list[Finding]) -> None:
        """A step that is not on the quarter-hours of the horizon, and its first one that is not."""
        if first is None:
            message = "The step does not begin on a quarter-hour; move it to one."
            found.append(fault(offer, "off_quarter_hour", message, *self._where(step)))
            return
        axis, inside = self.plan.horizon, 0 <= first < self._count
        message = f"The session buys for {self._local(axis.start)} to {self._local(axis.end)} only; "
        where = self._where(step, self._count - first if inside else 0)
        found.append(fault(offer, "outside_horizon", f"{message}leave out what is before or after.", *where))

    def _numbers(self, offer: Offer, found: list[Finding]) -> None:
        numbers = sorted({step.number for step in offer.steps})
        if numbers != list(range(1, len(numbers) + 1)):
            message = f"The steps are numbered {numbers}; number them 1, 2, ... without a gap."
            found.append(fault(offer, "step_numbers", message))

    def _overlaps(self, offer: Offer, found: list[Finding]) -> None:
        """Steps of one number must not overlap."""
        ends: dict[int, timedelta] = {}
        for step in sorted(offer.steps, key=lambda step: (step.number, step.start)):
            begin, end = step.start - self._start, ends.get(step.number)
            if end is not None and begin < end:
                message = "Two steps of this number meet in this quarter-hour; number them apart or end one sooner."
                found.append(fault(offer, "overlap", message, *self._where(step)))
            reach = begin + len(step.quantity_kw) * self._length
            ends[step.number] = reach if end is None else max(end, reach)

    def _falls(self, offer: Offer, firsts: Sequence[int | None], found: list[Finding]) -> None:
        """From number to number the price rises in every quarter-hour of the horizon."""
        rows: dict[int, dict[int, Decimal]] = defaultdict(dict)
        for step, first in zip(offer.steps, firsts, strict=True):
            if first is not None and step.price_eur_mwh.is_finite():
                inside = range(max(0, first), min(self._count, first + len(step.quantity_kw)))
                rows[step.number].update(dict.fromkeys(inside, step.price_eur_mwh))
        highest: dict[int, Decimal] = {}
        for number, row in sorted(rows.items()):
            for t, price in row.items():
                if t in highest and price <= highest[t]:
                    message = "The price is not above that of the step before; let prices rise from step to step."
                    found.append(fault(offer, "price_order", message, f"step {number}", self.label(t)))
                highest[t] = max(price, highest.get(t, price))

    # ------------------------------------------------------------ rules of its quantities

    def _quantities(self, laid: Laid, found: list[Finding]) -> None:
        offer, lot, kw = laid.offer, laid.lot, laid.kw
        if laid.mask:
            if min(kw) < max(lot.least_kw, offer.min_quantity_kw):
                self._minima(laid, found)
            if lot.caps is not None and max(kw) > lot.caps.least:
                self._maxima(laid, lot.caps, found)
        elif not any(one > 0 for step in offer.steps for one in step.quantity_kw):
            found.append(fault(offer, "empty", "Nothing is offered; give a quantity above zero."))

    def _minima(self, laid: Laid, found: list[Finding]) -> None:
        offer, product_kw, own_kw = laid.offer, laid.lot.least_kw, laid.offer.min_quantity_kw
        for t, kw in enumerate(laid.kw, laid.begin):
            if 0 < kw < product_kw:
                message = f"{kw} kW is less than the product's {product_kw} kW; offer more, or nothing."
                found.append(fault(offer, "below_product_minimum", message, self.label(t)))
            if 0 < kw < own_kw:
                message = f"The offer's minimum of {own_kw} kW is above its {kw} kW; lower the minimum."
                found.append(fault(offer, "minimum_above_quantity", message, self.label(t)))

    def _maxima(self, laid: Laid, caps: Caps, found: list[Finding]) -> None:
        """Each cap is held against what the caps before it leave, so that one excess is reported once."""
        for t, kw in enumerate(laid.kw, laid.begin):
            qualified, unheld, available = caps.qualified, caps.unheld[t], caps.available[t]
            if kw <= available:
                continue
            for code, asked, cap, reason in (
                ("above_qualified", kw, qualified, "are qualified; offer at most that"),
                ("held", min(kw, qualified), unheld, "are free of other holders; offer at most that"),
                ("above_available", min(kw, unheld), available, "are declared available; lower it"),
            ):
                if asked > cap:
                    message = f"Of the {kw} kW offered only {cap} kW {reason}."
                    where = (f"step {self._reaching(laid.offer, t, cap)}", self.label(t))
                    found.append(fault(laid.offer, code, message, *where))

    def _reaching(self, offer: Offer, t: int, cap: int) -> int:
        """The step with which the offer goes above a cap in a quarter-hour."""
        firsts = self.firsts(offer)
        numbered = sorted(zip(offer.steps, firsts, strict=True), key=lambda one: one[0].number)
        kw: dict[int, int] = defaultdict(int)
        for step, first in numbered:
            if first is not None and 0 <= t - first < len(step.quantity_kw):
                kw[step.number] += max(0, step.quantity_kw[t - first])
        numbers = list(kw)
        return next(number for number, total in zip(numbers, accumulate(kw.values()), strict=True) if total > cap)

    # ------------------------------------------------------------ energy

    def asked_kwh(self, laid: Laid, lot: Lot) -> float:
        """Most energy of an offer: what it lays down and its units have free, within its own limit."""
        free = lot.caps.available[laid.begin :] if lot.caps is not None else laid.kw
        asked = float(sum(map(min, laid.kw, free))) * self.plan.horizon.hours
        limit = laid.offer.energy_limit_kwh
        return asked if limit is None else min(asked, float(limit))

    def lasts(self, laid: Laid, asked_kwh: float, found: list[Finding], beside: Iterable[Laid] = ()) -> None:
        """Whether the energy of the units behind an offer lasts: of one unit for kWh, of a group for what this offer
        and those beside it lay down in each quarter-hour."""
        offer = laid.offer
        if offer.unit is not None:
            left = self.sellers.left_kwh(offer.unit, offer.direction)
            if asked_kwh > left + 1e-6:
                message = f"{asked_kwh:g} kWh are offered and {left:g} kWh are left; state an energy limit of that."
                found.append(fault(offer, "above_energy", message))
            return
        misfit = self._misfit(laid, beside)
        if misfit is not None:
            message = "The energy of the group's units does not last until then; offer less, or in fewer quarter-hours."
            found.append(fault(offer, "above_energy", message, self.label(misfit)))

    def _misfit(self, laid: Laid, beside: Iterable[Laid]) -> int | None:
        """The first quarter-hour for which the energy of a group's units does not last."""
        units, direction, sellers = laid.lot.units, laid.offer.direction, self.sellers
        largest: dict[tuple[str | None, str], Ints] = {}
        for one in [laid, *beside]:
            kw = np.zeros(self._count, dtype=np.int64)
            kw[one.begin : one.begin + len(one.kw)] = one.kw
            key = alternatives(one.offer)
            largest[key] = np.maximum(kw, largest[key]) if key in largest else kw
        free = np.array([sellers.caps((unit,), direction).available for unit in units], dtype=np.int64)
        left = np.array([sellers.left_kwh(unit, direction) for unit in units])
        wanted = np.minimum(np.sum(list(largest.values()), axis=0), free.sum(axis=0))
        return assign_over(wanted, free, left, self.plan.horizon.hours, units)[1]


def _ascend(steps: Sequence[OfferStep]) -> bool:
    """Whether the steps are numbered 1, 2, ... as they stand, each dearer than the one before: then none can overlap
    another of its number, and no price falls."""
    below = None
    for number, step in enumerate(steps, start=1):
        price = step.price_eur_mwh
        if step.number != number or not price.is_finite() or (below is not None and price <= below):
            return False
        below = price
    return True


def _stacked(steps: Sequence[OfferStep]) -> tuple[int, ...]:
    """The kW of steps that begin together, added up; empty unless they end together and offer something throughout."""
    total = steps[0].quantity_kw
    for step in steps[1:]:
        kw = step.quantity_kw
        if len(kw) != len(total) or (kw and min(kw) < 0):
            return ()
        total = tuple(map(add, total, kw))
    whole = steps[0].quantity_kw and min(steps[0].quantity_kw) >= 0 and min(total) > 0
    return total if whole else ()


def _nothing(name: str, value: int) -> str:
    return f"{name} is {value}, which allows nothing; raise it or leave it out."


def _longest_run(mask: int) -> int:
    """The most quarter-hours of a mask without a gap: how often its runs can be cut by one."""
    length = 0
    while mask:
        mask &= mask >> 1
        length += 1
    return length

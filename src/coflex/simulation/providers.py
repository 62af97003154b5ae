"""Simulated service providers: what each unit plans and can change, and what it asks for it.

Every number is drawn from a generator of its own, seeded by the seed and the unit's id, so that an offer depends
neither on the other units nor on the order in which they are told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType
from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.offer import Offer, OfferStep
from coflex.domain.quantity import CENT, Direction, Floats, Ints
from coflex.domain.series import Series
from coflex.domain.unit import Group, Scope, Technology, Unit
from coflex.process.ports import SessionCall

UTC_ZONE = ZoneInfo("UTC")
GROUP_MARKUP = Decimal("1.05")

# What one MWh in a direction costs its owner, lowest and highest, EUR/MWh.
PRICES: Mapping[tuple[Technology, Direction], tuple[int, int]] = MappingProxyType(
    {
        (Technology.PV, Direction.UP): (60, 100),
        (Technology.PV, Direction.DOWN): (25, 60),
        (Technology.HYDRO, Direction.UP): (50, 80),
        (Technology.HYDRO, Direction.DOWN): (10, 30),
        (Technology.CHP, Direction.UP): (60, 95),
        (Technology.CHP, Direction.DOWN): (20, 60),
        (Technology.BATTERY, Direction.UP): (70, 110),
        (Technology.BATTERY, Direction.DOWN): (20, 50),
        (Technology.EV_CHARGING, Direction.UP): (50, 90),
        (Technology.EV_CHARGING, Direction.DOWN): (15, 45),
        (Technology.HEAT_PUMP, Direction.UP): (60, 120),
        (Technology.HEAT_PUMP, Direction.DOWN): (10, 40),
        (Technology.WATER_PUMP, Direction.UP): (50, 100),
        (Technology.WATER_PUMP, Direction.DOWN): (15, 45),
        (Technology.INDUSTRIAL_LOAD, Direction.UP): (90, 180),
        (Technology.INDUSTRIAL_LOAD, Direction.DOWN): (20, 60),
        (Technology.POWER_PLANT, Direction.UP): (95, 140),
        (Technology.POWER_PLANT, Direction.DOWN): (35, 60),
    }
)


def seeded(seed: int, *names: str) -> np.random.Generator:
    """A generator of its own for what the names name, the same on every machine and run."""
    digest = hashlib.sha256(":".join((str(seed), *names)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


@dataclass(frozen=True, eq=False)
class Nomination:
    """The plan of units and how far each can leave it, in the order the units were given.

    `schedule`: kW, injection positive, one series a unit. `up_kw[i, t]`, `down_kw[i, t]`: whole kW, non-negative.
    """

    schedule: Series
    up_kw: Floats
    down_kw: Floats


def nominate(forecast: Series, units: Sequence[Unit]) -> Nomination:
    """Nominate the forecast of each unit, and tell what it can change in each direction.

    `forecast`: kW, injection positive, one series a unit under the unit's id. PV and hydro can only be lowered;
    a CHP moves between zero and its registered power; a flexible load can drop to zero or rise to its registered
    power; batteries and power plants have their registered power both ways. Never above the registered power.
    Raises CoflexError when a unit has no forecast.
    """
    plan = forecast.rows(unit.id for unit in units)
    up, down = np.zeros_like(plan), np.zeros_like(plan)
    for i, unit in enumerate(units):
        up[i], down[i] = _room(unit, plan[i])
    registered_up = np.array([unit.up_kw for unit in units], dtype=float).reshape(-1, 1)
    registered_down = np.array([unit.down_kw for unit in units], dtype=float).reshape(-1, 1)
    return Nomination(
        Series(tuple(unit.id for unit in units), forecast.axis, plan),
        np.floor(np.clip(up, 0.0, registered_up)),
        np.floor(np.clip(down, 0.0, registered_down)),
    )


def _room(unit: Unit, plan: Floats) -> tuple[Floats | float, Floats | float]:
    """Change in kW that the plan leaves, up and down, before the registered limits."""
    rated = max(unit.up_kw, unit.down_kw)
    match unit.technology:
        case Technology.PV | Technology.HYDRO:
            return 0.0, plan
        case Technology.CHP:
            return rated - plan, plan
        case Technology.BATTERY | Technology.POWER_PLANT:
            return float(unit.up_kw), float(unit.down_kw)
        case _:
            return -plan, rated + plan


@dataclass(frozen=True, slots=True)
class _Terms:
    """How one unit offers in one direction. Shares are of the quantity available."""

    price_eur_mwh: Decimal
    step_shares: tuple[float, ...]
    step_factors: tuple[Decimal, ...]
    block: bool
    min_share: float
    alternatives: bool
    local_only: bool
    block_periods: int
    block_place: float


def _terms(seed: int, unit: Unit, direction: Direction) -> _Terms:
    chance = seeded(seed, unit.id, direction)
    low, high = PRICES[unit.technology, direction]
    price = Decimal(f"{chance.uniform(low, high):.2f}")
    first, dearer, pick = chance.uniform(0.5, 0.8), chance.uniform(1.10, 1.25), chance.random(6)
    two = pick[0] < 0.6
    large = unit.technology in (Technology.INDUSTRIAL_LOAD, Technology.CHP)
    return _Terms(
        price_eur_mwh=price,
        step_shares=(float(first), 1.0) if two else (1.0,),
        step_factors=(Decimal(1), Decimal(f"{dearer:.3f}")) if two else (Decimal(1),),
        block=bool(unit.technology is Technology.INDUSTRIAL_LOAD and direction is Direction.UP and pick[1] < 1 / 15),
        min_share=float(0.1 + 0.2 * pick[2]) if large and pick[3] < 0.2 else 0.0,
        alternatives=bool(unit.technology is Technology.BATTERY and pick[4] < 0.3),
        local_only=bool(pick[5] < 0.15),
        block_periods=int(chance.integers(4, 9)),
        block_place=float(chance.random()),
    )


class SimulatedProviders:
    """Every provider of a case. Implements `coflex.process.ports.Providers`.

    `zone`: the clock by which day, morning and evening are told. In a local session each unit offers by itself;
    in a global one each group offers what its units have left, dearer by the provider's mark-up of 5 %.
    """

    def __init__(self, seed: int, zone: ZoneInfo = UTC_ZONE) -> None:
        self._seed = seed
        self._zone = zone

    def offers(self, call: SessionCall) -> tuple[Offer, ...]:
        """Offers for a session, in the order of receipt.

        Guarantees: no more than is available, nothing where a unit is held, whole ticks, at least the product's
        smallest quantity in every quarter-hour offered, no price above its cap, no empty offer.
        """
        collect = self._of_groups if call.scope == Scope.GLOBAL else self._of_units
        drafts = [offer for direction in call.product.directions for offer in collect(call, direction)]
        drafts.sort(key=lambda offer: (offer.received_at, offer.id))
        return tuple(replace(offer, receipt=number) for number, offer in enumerate(drafts, start=1))

    def _of_units(self, call: SessionCall, direction: Direction) -> Iterator[Offer]:
        free, energy = _free_kw(call, direction), _energy_kwh(call, direction)
        hour = self._local_hours(call)
        for i, unit in enumerate(call.units):
            yield from self._of_unit(call, direction, unit, _tradable(free[i], call), energy[i], hour)

    def _of_unit(
        self, call: SessionCall, direction: Direction, unit: Unit, quantity: Ints, energy_kwh: float, hour: Floats
    ) -> Iterator[Offer]:
        terms = _terms(self._seed, unit, direction)
        block = _block(quantity, hour, terms, energy_kwh, call)
        least = 0 if block.any() else int(terms.min_share * quantity.max(initial=0))
        whole = np.where(quantity >= least, quantity, 0)
        halved = terms.alternatives and not block.any()
        choices = _halves(whole, hour) if halved else [block if block.any() else whole]
        parts = [part for part in choices if part.any()]
        shares = (1.0,) if block.any() else terms.step_shares
        name = f"{call.session}:{unit.id}:{direction}"
        for number, part in enumerate(parts, start=1):
            ladder = zip(shares, terms.step_factors, strict=False)
            steps = _steps(call, part, terms.price_eur_mwh, ladder)
            offer = self._draft(call, direction, name if len(parts) == 1 else f"{name}:{number}", unit.provider, steps)
            yield replace(
                offer,
                unit=unit.id,
                min_quantity_kw=least,
                block=bool(block.any()),
                energy_limit_kwh=int(energy_kwh) if np.isfinite(energy_kwh) else None,
                exclusive=name if len(parts) > 1 else None,
                local_only=terms.local_only,
            )

    def _of_groups(self, call: SessionCall, direction: Direction) -> Iterator[Offer]:
        free = _lasting(
            _free_kw(call, direction), _energy_kwh(call, direction), self._local_hours(call), call, direction
        )
        place = {unit.id: i for i, unit in enumerate(call.units)}
        for group in call.groups:
            rows = np.array([place[unit] for unit in sorted(group.units) if unit in place], dtype=np.int64)
            quantity = _tradable(free[rows].sum(axis=0), call)
            if group.scope != call.scope or not quantity.any():
                continue
            price = self._group_price([call.units[i] for i in rows], free[rows], direction)
            steps = _steps(call, quantity, price, self._group_steps(group, direction))
            offer = self._draft(call, direction, f"{call.session}:{group.id}:{direction}", group.provider, steps)
            yield replace(offer, group=group.id)

    def _draft(
        self, call: SessionCall, direction: Direction, offer: str, provider: str, steps: tuple[OfferStep, ...]
    ) -> Offer:
        """What offers of units and of groups have in common; the receipt number comes when all are in."""
        window = int((call.closes - call.opens).total_seconds())
        delay = int(seeded(self._seed, offer).integers(max(1, window)))
        return Offer(
            id=offer,
            receipt=0,
            received_at=call.opens + timedelta(seconds=delay),
            session=call.session,
            provider=provider,
            product=call.product.id,
            direction=direction,
            unit=None,
            group=None,
            steps=steps,
        )

    def _group_price(self, units: Sequence[Unit], free: Ints, direction: Direction) -> Decimal:
        """Mean of the units' prices, weighted by what each has left over the horizon, with the mark-up."""
        weights = [int(weight) for weight in free.sum(axis=1)]
        prices = [_terms(self._seed, unit, direction).price_eur_mwh for unit in units]
        worth = sum((price * weight for price, weight in zip(prices, weights, strict=True)), Decimal(0))
        return worth / sum(weights) * GROUP_MARKUP

    def _group_steps(self, group: Group, direction: Direction) -> list[tuple[float, Decimal]]:
        """Two or three steps: the share of the quantity up to each, and its price as a factor of the first."""
        chance = seeded(self._seed, group.id, direction)
        shares = (0.6, 1.0) if chance.random() < 0.5 else (0.5, 0.8, 1.0)
        factors = np.concatenate(([1.0], np.cumprod(chance.uniform(1.10, 1.25, len(shares) - 1))))
        return [(share, Decimal(f"{factor:.3f}")) for share, factor in zip(shares, factors, strict=True)]

    def _local_hours(self, call: SessionCall) -> Floats:
        clock = [instant.astimezone(self._zone) for instant in call.horizon]
        return np.array([instant.hour + instant.minute / 60 for instant in clock])


def _free_kw(call: SessionCall, direction: Direction) -> Ints:
    """What each unit can still sell in each period, shape (units, periods), whole kW: nothing where it is held,
    has no energy left or can do less than its own smallest quantity; never above its largest."""
    given = call.up_kw if direction is Direction.UP else call.down_kw
    least = np.array([unit.min_quantity_kw for unit in call.units], dtype=np.int64).reshape(-1, 1)
    most = np.array([unit.max_quantity_kw for unit in call.units], dtype=np.int64).reshape(-1, 1)
    whole = np.minimum(np.floor(np.maximum(given, 0.0)).astype(np.int64), most)
    spent = _energy_kwh(call, direction) < 1.0
    return np.where((whole < least) | call.held | spent[:, None], 0, whole)


def _energy_kwh(call: SessionCall, direction: Direction) -> Floats:
    return call.energy_up_kwh if direction is Direction.UP else call.energy_down_kwh


def _lasting(free: Ints, energy_kwh: Floats, hour: Floats, call: SessionCall, direction: Direction) -> Ints:
    """Free power as a group can promise it: units with little energy only as long as it lasts, from the hour at which
    it is worth most (up from 18:00, down from 11:00), shape (units, periods)."""
    first = np.flatnonzero(hour >= (18.0 if direction is Direction.UP else 11.0))
    start = int(first[0]) if first.size else 0
    order = np.arange(start, free.shape[1])
    promised = free.copy()
    for u in np.flatnonzero(np.isfinite(energy_kwh)).tolist():
        drawn = np.cumsum(free[u, order]) * call.horizon.hours
        promised[u] = 0
        promised[u, order] = np.where(drawn <= energy_kwh[u] + 1e-9, free[u, order], 0)
    return promised


def _tradable(quantity: Ints, call: SessionCall) -> Ints:
    """Whole ticks, and nothing below the product's smallest quantity."""
    ticks: Ints = quantity // call.product.tick_kw * call.product.tick_kw
    return np.where(ticks < call.product.min_quantity_kw, 0, ticks)


def _block(quantity: Ints, hour: Floats, terms: _Terms, energy_kwh: float, call: SessionCall) -> Ints:
    """One run of equal quantities between 7 and 19 o'clock, which later sessions would not cut; all zeros when the
    unit offers no block or none fits."""
    block, length = np.zeros_like(quantity), terms.block_periods
    if not terms.block or len(quantity) < length:
        return block
    daytime = np.where((hour >= 7) & (hour < 19), quantity, 0)
    runs = np.lib.stride_tricks.sliding_window_view(daytime, length).min(axis=1)
    affordable = min(energy_kwh / (length * call.horizon.hours), float(runs.max()))
    power = _tradable(np.minimum(runs, int(affordable)), call)
    first, part = np.arange(len(power)), max(1, len(call.firm))
    starts = np.flatnonzero((power > 0) & (first // part == (first + length - 1) // part))
    if len(starts):
        start = starts[int(terms.block_place * len(starts))]
        block[start : start + length] = power[start]
    return block


def _halves(quantity: Ints, hour: Floats) -> list[Ints]:
    """The quantity before and after local noon."""
    return [np.where(hour < 12, quantity, 0), np.where(hour >= 12, quantity, 0)]


def _steps(
    call: SessionCall, quantity: Ints, price_eur_mwh: Decimal, ladder: Iterable[tuple[float, Decimal]]
) -> tuple[OfferStep, ...]:
    """Stack the quantity in steps. `ladder`: for each step the share of the quantity up to its end, and its price as
    a factor of the first. Steps without quantity are left out; zeros at both ends are trimmed."""
    steps: list[OfferStep] = []
    below = np.zeros_like(quantity)
    for share, factor in ladder:
        reached = np.floor(share * quantity / call.product.tick_kw).astype(np.int64) * call.product.tick_kw
        amount, below = reached - below, reached
        filled = np.flatnonzero(amount)
        if not len(filled):
            continue
        first, last = int(filled[0]), int(filled[-1])
        steps.append(
            OfferStep(
                number=len(steps) + 1,
                start=call.horizon[first],
                price_eur_mwh=min((price_eur_mwh * factor).quantize(CENT), call.product.price_cap_eur_mwh),
                quantity_kw=tuple(int(kw) for kw in amount[first : last + 1]),
            )
        )
    return tuple(steps)

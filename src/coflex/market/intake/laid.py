"""Offers as an intake keeps them: laid on the horizon, and what is offered of a unit and asked of its energy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from coflex.domain.errors import Finding
from coflex.domain.offer import Offer
from coflex.domain.qualification import ProductLimit
from coflex.domain.quantity import Direction

UnitWay = tuple[str, Direction]
SellerWay = tuple[str | None, str | None, Direction]
PoolWay = tuple[str, str, Direction]


def fault(offer: Offer, code: str, message: str, *where: str) -> Finding:
    """A finding about an offer, with the place inside it."""
    return Finding(", ".join((f"offer {offer.id}", *where)), code, message)


@dataclass(slots=True, eq=False)
class Caps:
    """What the units behind an offer can give, in kW, in each quarter-hour; each cap lies within the one before it.

    `qualified` by the static light, always the same; `unheld`: of units that no other buyer holds; `available`: of
    that, as declared. `least`: the smallest of `available`.
    """

    qualified: int
    unheld: Sequence[int]
    available: Sequence[int]
    least: int


@dataclass(slots=True, eq=False)
class Lot:
    """What the register says of an offer's seller, product and direction.

    `name`: of the seller's account of energy. `units`: those behind the offer, none where it does not name one known
    seller; `cells`: of each. `caps`: of them, `limited`: whether there is an end to the energy of any, `limit`: of the
    qualification that it is offered under; none of these is asked of another provider's. The product's tick, minimum
    and bounds of the price allow everything where it is not known.
    """

    name: SellerWay
    units: tuple[str, ...]
    cells: tuple[Cells, ...]
    caps: Caps | None
    limited: bool
    limit: ProductLimit | None
    tick_kw: int
    least_kw: int
    lowest: Decimal
    highest: Decimal
    divisible: bool


@dataclass(slots=True, eq=False)
class Laid:
    """An offer on the session's horizon: kW of all steps together from quarter-hour `begin` on, and the mask of the
    quarter-hours with any, bit t for quarter-hour t. What is outside the horizon or negative counts as nothing."""

    offer: Offer
    lot: Lot
    begin: int
    kw: Sequence[int]
    mask: int


@dataclass(slots=True, eq=False)
class Cells:
    """What is offered of one unit in one direction, by id, and in which quarter-hours: `mask` of all offers, `alone` of
    those without an exclusive label, `masks` of those that share one."""

    laid: dict[str, Laid] = field(default_factory=dict)
    mask: int = 0
    alone: int = 0
    masks: dict[str, int] = field(default_factory=dict)

    def add(self, laid: Laid) -> None:
        label = laid.offer.exclusive
        self.laid[laid.offer.id] = laid
        self.mask |= laid.mask
        if label is None:
            self.alone |= laid.mask
        else:
            self.masks[label] = self.masks.get(label, 0) | laid.mask

    def recount(self) -> None:
        """The masks anew once offers have gone: those that share a label may share quarter-hours."""
        kept, self.laid, self.mask, self.alone, self.masks = self.laid, {}, 0, 0, {}
        for laid in kept.values():
            self.add(laid)

    def rival(self, laid: Laid) -> Laid | None:
        """The first received of the offers that share a quarter-hour with this one and do not exclude it."""
        label, mask = laid.offer.exclusive, laid.mask
        if not self.alone & mask and not any(cells & mask for one, cells in self.masks.items() if one != label):
            return None
        return min(
            (one for one in self.laid.values() if one.mask & mask and not exclude(one.offer, laid.offer)),
            key=lambda one: order(one.offer),
        )


@dataclass(slots=True, eq=False)
class Account:
    """The energy that one seller's offers of one direction ask for: by id, and the `largest` kWh of those that exclude
    each other, since only one of them can be taken. `kwh`: all of these together."""

    laid: dict[str, Laid] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    largest: dict[tuple[str | None, str], float] = field(default_factory=dict)
    kwh: float = 0.0

    def add(self, laid: Laid, kwh: float) -> None:
        key, name = alternatives(laid.offer), laid.offer.id
        self.laid[name], self.asked[name] = laid, kwh
        before = self.largest.get(key, 0.0)
        self.largest[key] = max(before, kwh)
        self.kwh += self.largest[key] - before

    def recount(self) -> None:
        """The sums anew once offers have gone, so that they are as if those had never been there."""
        kept, asked = self.laid, self.asked
        self.laid, self.asked, self.largest, self.kwh = {}, {}, {}, 0.0
        for name, laid in kept.items():
            self.add(laid, asked[name])

    def besides(self, offer: Offer) -> bool:
        """Whether there is an offer that this one does not exclude."""
        return len(self.largest) > (alternatives(offer) in self.largest)

    def with_kwh(self, offer: Offer, kwh: float) -> float:
        """All that is asked for if this offer comes in."""
        before = self.largest.get(alternatives(offer), 0.0)
        return self.kwh - before + max(before, kwh)


@dataclass(slots=True, eq=False)
class Pool:
    """What is offered under one qualification in one direction: kW in each quarter-hour, of offers that exclude each
    other the most, since only one of them can be taken. `labels`: of those that share one; `total`: of all."""

    total: list[int]
    laid: dict[str, Laid] = field(default_factory=dict)
    labels: dict[str, list[int]] = field(default_factory=dict)

    def add(self, laid: Laid) -> None:
        self.laid[laid.offer.id] = laid
        label = laid.offer.exclusive
        if label is None:
            self._raise(laid, 1)
            return
        largest = self.labels.setdefault(label, [0] * len(self.total))
        for t, kw in enumerate(laid.kw, laid.begin):
            if kw > largest[t]:
                self.total[t] += kw - largest[t]
                largest[t] = kw

    def remove(self, laid: Laid) -> None:
        """Forget an offer, as if it had never been there."""
        del self.laid[laid.offer.id]
        label = laid.offer.exclusive
        if label is None:
            self._raise(laid, -1)
            return
        for t, kw in enumerate(self.labels.pop(label)):
            self.total[t] -= kw
        for one in self.laid.values():
            if one.offer.exclusive == label:
                self.add(one)

    def beyond(self, laid: Laid, most_kw: int) -> tuple[int, int] | None:
        """The first quarter-hour in which all is above a limit if this offer comes in, and the kW that it may still
        have there; None where it fits."""
        label = laid.offer.exclusive
        besides = None if label is None else self.labels.get(label)
        for t, kw in enumerate(laid.kw, laid.begin):
            others = self.total[t] - (besides[t] if besides else 0)
            if kw > 0 and kw + others > most_kw:
                return t, max(0, most_kw - others)
        return None

    def _raise(self, laid: Laid, sign: int) -> None:
        for t, kw in enumerate(laid.kw, laid.begin):
            self.total[t] += sign * kw


def alternatives(offer: Offer) -> tuple[str | None, str]:
    """Equal for offers that exclude each other, and of no other's."""
    return (None, offer.id) if offer.exclusive is None else (offer.exclusive, "")


def exclude(one: Offer, other: Offer) -> bool:
    return one.exclusive is not None and one.exclusive == other.exclusive


def order(offer: Offer) -> tuple[int, str, str]:
    return offer.receipt, offer.id, offer.provider


def lowest(mask: int) -> int:
    """The first quarter-hour of a mask that is not empty."""
    return (mask & -mask).bit_length() - 1

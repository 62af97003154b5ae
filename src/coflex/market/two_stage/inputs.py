"""What a two-stage clearing is given: capacity on offer, and what the day could bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.domain.quantity import Floats, Ints
from coflex.domain.reserve import CapacityOffer
from coflex.domain.time import Axis
from coflex.grid.network import Network
from coflex.grid.rows import AcGrid, GridModel, Guard
from coflex.market.book import OrderBook, Place, build, seller

Physics = Callable[[Network, Floats, Floats, Guard | None], GridModel]


@dataclass(frozen=True, eq=False)
class ReserveBook:
    """Capacity on offer: n blocks in one canonical order. `book`: as of an energy market, its price that of use in
    EUR/MWh; `availability[n]`: EUR per MW and hour held."""

    book: OrderBook
    availability: Floats

    def __len__(self) -> int:
        return len(self.availability)


def build_reserve(offers: Sequence[CapacityOffer], axis: Axis, places: Mapping[str, Place]) -> ReserveBook:
    """The book of all capacity inside the horizon. Raises Refused with every offer whose availability prices are
    negative or do not fit its steps."""
    refuse("Capacity offers", (finding for offer in offers for finding in _findings(offer)))
    refuse(
        "Capacity offers",
        (
            Finding(f"offer {a}", "offer_twice", "Two capacity offers have this id; name them apart.")
            for a, b in pairwise(sorted(offer.offer.id for offer in offers))
            if a == b
        ),
    )
    book = build([offer.offer for offer in offers], axis, places)
    asked = {offer.offer.id: offer.availability_eur_mw_h for offer in offers}
    price = [float(asked[book.offers[o].id][s]) for o, s in zip(book.offer, book.step, strict=True)]
    return ReserveBook(book, np.array(price, dtype=np.float64))


def _findings(offer: CapacityOffer) -> list[Finding]:
    place, found = f"offer {offer.offer.id}", []
    if len(offer.availability_eur_mw_h) != len(offer.offer.steps):
        found.append(Finding(place, "availability_steps", "Give one availability price for each step."))
    if any(price < 0 for price in offer.availability_eur_mw_h):
        found.append(Finding(place, "availability_negative", "Ask nothing or more for holding capacity."))
    return found


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The grid of every scenario: injections (s, t, n) in MW and Mvar, injection positive, before anything is bought.
    `physics` makes a grid model of a network and injections (periods, n)."""

    network: Network
    p_mw: Floats
    q_mvar: Floats
    guard: Guard = field(default_factory=Guard)
    physics: Physics = AcGrid

    def model(self, tighter: float) -> GridModel:
        """All scenarios as one grid model: period t of scenario s is its period s * periods + t. `tighter`: times
        the margin of rounding."""
        flat = (-1, self.p_mw.shape[2])
        guard = Guard(self.guard.voltage_pu + 2e-5 * tighter, self.guard.loading_share + 2e-4 * tighter)
        return self.physics(self.network, self.p_mw.reshape(flat), self.q_mvar.reshape(flat), guard)


@dataclass(frozen=True, eq=False)
class Outlook:
    """What the day could bring: s scenarios over t periods.

    `probability[s]` adds to one. `need_mw[s, t]`: power that the buyer lacks (positive: up) or has too much of, to be
    balanced by awards and activations; None when only the grid has needs. `grid`: None when no grid is looked at.
    """

    probability: Floats
    need_mw: Floats | None = None
    grid: Surroundings | None = None

    def __len__(self) -> int:
        return len(self.probability)

    def check(self, periods: int) -> None:
        """Raises CoflexError on shapes that do not fit, or probabilities that are none."""
        shape = (len(self), periods)
        for what, given in (("needs", self.need_mw), ("injections", None if self.grid is None else self.grid.p_mw)):
            if given is not None and (given.shape[:2] != shape or not np.isfinite(given).all()):
                raise CoflexError(
                    f"The {what} of shape {given.shape} do not fit {shape[0]} scenarios of {periods} periods.",
                    "Give a finite number for each scenario and period.",
                )
        if not len(self) or (self.probability <= 0).any() or abs(float(self.probability.sum()) - 1) > 1e-9:
            raise CoflexError(
                "The probabilities are not positive numbers that add to one.", "Leave out what cannot be."
            )

    @property
    def periods(self) -> int:
        """How many periods it covers; none where nothing is said of any."""
        if self.need_mw is not None:
            return int(self.need_mw.shape[1])
        return 0 if self.grid is None else int(self.grid.p_mw.shape[1])

    def within(self, periods: Ints) -> Outlook:
        """The same scenarios in some periods only."""
        need, grid = None if self.need_mw is None else self.need_mw[:, periods], self.grid
        if grid is not None:
            grid = replace(grid, p_mw=grid.p_mw[:, periods], q_mvar=grid.q_mvar[:, periods])
        return Outlook(self.probability, need, grid)

    def part(self, scenarios: Ints) -> Outlook:
        """Some scenarios, their probabilities as they are."""
        need = None if self.need_mw is None else self.need_mw[scenarios]
        grid = self.grid
        if grid is not None:
            grid = replace(grid, p_mw=grid.p_mw[scenarios], q_mvar=grid.q_mvar[scenarios])
        return Outlook(self.probability[scenarios], need, grid)

    def mean(self) -> Outlook:
        """The one scenario that is the mean of all: what a deterministic clearing would be told."""
        need = None if self.need_mw is None else np.einsum("s,st->t", self.probability, self.need_mw)[None]
        grid = self.grid
        if grid is not None:
            p, q = (np.einsum("s,stn->tn", self.probability, values)[None] for values in (grid.p_mw, grid.q_mvar))
            grid = replace(grid, p_mw=p, q_mvar=q)
        return Outlook(np.ones(1), need, grid)

    def canonical(self) -> Ints:
        """The scenarios in an order that does not depend on the one given."""
        parts = [self.probability[:, None]]
        if self.need_mw is not None:
            parts.append(self.need_mw)
        if self.grid is not None:
            parts += [self.grid.p_mw.reshape(len(self), -1), self.grid.q_mvar.reshape(len(self), -1)]
        # Adding zero makes one zero of two.
        keys = [b"".join(np.ascontiguousarray(part[s] + 0.0).tobytes() for part in parts) for s in range(len(self))]
        return np.array(sorted(range(len(self)), key=lambda s: keys[s]), dtype=np.int64)


def gainful_pairs(awards: OrderBook, reserve: OrderBook) -> list[Finding]:
    """Sellers who would pay for going up and down at once: the program would buy nothing for money without end."""
    cheapest: dict[tuple[str, bool, int, int], float] = {}
    for book in (awards, reserve):
        for o, active, t, sign, price in zip(book.offer, book.p_share, book.period, book.sign, book.price, strict=True):
            key = seller(book.offers[o]), bool(active), int(t), int(sign)
            cheapest[key] = min(cheapest.get(key, np.inf), float(price))
    names = sorted(
        {
            who
            for (who, active, t, sign), price in cheapest.items()
            if (who, active, t, -sign) in cheapest and price + cheapest[who, active, t, -sign] < 0
        }
    )
    text = "The prices of up and down add to less than nothing; raise one of them."
    return [Finding(f"offers of {who}", "gainful_both_ways", text) for who in names]

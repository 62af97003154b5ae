"""The interface between the grids: what the system operator asks for, what local activations already move (MKT-11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coflex.domain.need import Request
from coflex.domain.quantity import Floats
from coflex.domain.time import Axis


@dataclass(frozen=True, eq=False)
class Netting:
    """Asked, moved and needed power at the interface, kW of shape (t,), up positive; `hours` of one quarter-hour.

    `needed = asked - local`: what is left to buy once local activations have moved the interface.
    """

    asked_kw: Floats
    local_kw: Floats
    hours: float

    @property
    def needed_kw(self) -> Floats:
        return self.asked_kw - self.local_kw

    @property
    def concordant_kw(self) -> Floats:
        """The part of the local movement that meets what the system asks for, unsigned: it reduces the purchase."""
        same = self.asked_kw * self.local_kw > 0
        return np.where(same, np.minimum(np.abs(self.asked_kw), np.abs(self.local_kw)), 0.0)

    @property
    def discordant_kw(self) -> Floats:
        """The rest of the local movement, unsigned: it raises the purchase.

        |needed| = |asked| - concordant + discordant in every quarter-hour.
        """
        discordant: Floats = np.abs(self.local_kw) - self.concordant_kw
        return discordant

    @property
    def concordant_mwh(self) -> float:
        return float(self.concordant_kw.sum()) * self.hours / 1000

    @property
    def discordant_mwh(self) -> float:
        return float(self.discordant_kw.sum()) * self.hours / 1000


def netting(requests: Sequence[Request], axis: Axis) -> Netting:
    """The netting that requests of a buyer carry, zero where there is none.

    `requests`: of one session for each quarter-hour; netting leaves at most one direction with a quantity, so that
    local = asked - quantity with their signs. Raises OutsideAxis for a request off the axis.
    """
    asked, needed = np.zeros(len(axis)), np.zeros(len(axis))
    for request in requests:
        t = axis.position(request.start)
        asked[t] += request.direction.sign * request.asked_kw
        needed[t] += request.direction.sign * request.quantity_kw
    return Netting(asked, asked - needed, axis.hours)

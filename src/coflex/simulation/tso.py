"""A simulated transmission system operator: what the system asks for over the day.

The net need is a smooth shape of the local clock: upward in the morning and the evening ramp, downward around noon
when PV peaks. Each session sees a slightly revised forecast of the same day.
"""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.need import Request
from coflex.domain.product import Product
from coflex.domain.quantity import Direction, Floats
from coflex.domain.time import Axis
from coflex.process.ports import TsoSettings
from coflex.simulation.providers import UTC_ZONE, seeded

# Centre (local hour), width (hours) and height (share of the peak; negative is down) of each swell of the need.
SWELLS = np.array([[7.5, 1.0, 0.55], [13.0, 1.8, -1.0], [19.5, 1.5, 1.0]])
QUIET_SHARE = 0.15


class SimulatedTso:
    """The TSO of a case. Implements `coflex.process.ports.SystemOperator`.

    `zone`: the clock the day's shape follows. `buyer`: the name under which it asks.
    """

    def __init__(self, settings: TsoSettings, seed: int, zone: ZoneInfo = UTC_ZONE, buyer: str = "tso") -> None:
        self._settings = settings
        self._seed = seed
        self._zone = zone
        self._buyer = buyer

    def requests(self, session: str, number: int, horizon: Axis, product: Product) -> tuple[Request, ...]:
        """Requests of session `number` over its horizon, in the order of time; quarter-hours without need have none.

        Guarantees: whole ticks of the product, no more than the settings' peak, never both directions in one
        quarter-hour, nothing in a direction the product does not trade. `netted_kw` is 0: netting is the platform's.
        """
        shape = self._shape(number, horizon)
        found = []
        for start, share in zip(horizon, shape, strict=True):
            direction = Direction.UP if share > 0 else Direction.DOWN
            asked = self._asked(direction, abs(float(share)), product)
            if asked:
                found.append(
                    Request(
                        session=session,
                        buyer=self._buyer,
                        product=product.id,
                        direction=direction,
                        start=start,
                        asked_kw=asked,
                        netted_kw=0,
                        price_limit_eur_mwh=self._settings.price_limit_eur_mwh,
                    )
                )
        return tuple(found)

    def _asked(self, direction: Direction, share: float, product: Product) -> int:
        """The request in kW for a share of the peak; small needs are left to the system's own reserves."""
        peak_mw = self._settings.up_mw if direction is Direction.UP else self._settings.down_mw
        beyond = max(0.0, share - QUIET_SHARE) / (1 - QUIET_SHARE)
        asked = int(1000 * peak_mw * beyond) // product.tick_kw * product.tick_kw
        return asked if direction in product.directions and asked >= product.min_quantity_kw else 0

    def _shape(self, number: int, horizon: Axis) -> Floats:
        """Net need in each period as a share of the peak, up positive, within [-1, 1]."""
        clock = [instant.astimezone(self._zone) for instant in horizon]
        days = sorted({instant.date() for instant in clock})
        swells = np.stack([self._swells(day, number) for day in days])[[days.index(i.date()) for i in clock]]
        hour = np.array([instant.hour + instant.minute / 60 for instant in clock])[:, None]
        centre, width, height = swells[..., 0], swells[..., 1], swells[..., 2]
        need: Floats = (height * np.exp(-(((hour - centre) / width) ** 2) / 2)).sum(axis=1)
        return np.clip(need, -1.0, 1.0)

    def _swells(self, day: date, number: int) -> Floats:
        """The day's swells as the given session sees them."""
        nature = seeded(self._seed, "tso", day.isoformat())
        revision = seeded(self._seed, "tso", day.isoformat(), str(number))
        swells = SWELLS.copy()
        swells[:, 0] += nature.uniform(-0.75, 0.75, len(swells)) + revision.uniform(-0.25, 0.25, len(swells))
        swells[:, 2] *= nature.uniform(0.75, 0.95, len(swells)) * revision.uniform(0.95, 1.05, len(swells))
        return swells

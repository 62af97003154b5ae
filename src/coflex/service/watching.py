"""Units that were told to move, and whether they do (ACT-03): what is expected now, and which alarms are over.

The door compares with what devices measure (`coflex.watched`) and says when an alarm begins or ends by the verb
`set_point.watched`. Units that follow a regulation's signal are left out: their change is not the set point's alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from coflex.activation.monitor import Alarm, Limits
from coflex.domain.activation import Piece
from coflex.domain.product import Product
from coflex.domain.time import QUARTER
from coflex.register.activations import ActivationOrder, SetPointEntry, SetPointState
from coflex.register.products import ProductEntry
from coflex.service.field import device_of, regulating
from coflex.service.index import index
from coflex.service.orders import quarter
from coflex.service.state import State

LEAST_SHARE = 0.01
# A device may tell a value as seldom as its product is measured: it is silent after so many of these times, and no
# sooner than after so many seconds.
INTERVALS, SILENT_S = 3.0, 180.0


@dataclass(frozen=True, slots=True)
class Expected:
    """What a unit is to do at an instant, by all of its set points that are in force.

    `point`: of its device. `counts_from`: before it the unit may still be on its way. `limits`: of the strictest of its
    products.
    """

    unit: str
    point: int
    set_points: tuple[SetPointEntry, ...]
    counts_from: datetime
    limits: Limits

    @property
    def alarm(self) -> Alarm:
        """As it was told last."""
        return next((one.alarm for one in self.set_points if one.alarm is not Alarm.NONE), Alarm.NONE)


def expected(state: State, now: datetime) -> tuple[Expected, ...]:
    """Units with a set point that was sent and is in force, and a device, by unit."""
    following = {share.unit for one in regulating(state, now) for share in one.shares}
    of_unit: dict[str, list[tuple[SetPointEntry, Piece]]] = {}
    for one in index(state, SetPointEntry, "quarter", _quarters).at(_named(quarter(now))):
        piece = _in_force(one, now)
        if piece is not None and one.state is SetPointState.SENT and one.unit not in following:
            of_unit.setdefault(one.unit, []).append((one, piece))
    found = []
    for unit, mine in sorted(of_unit.items()):
        device = device_of(state, unit)
        if device is not None:
            products = [_product(state, one) for one, _ in mine]
            counts = max(
                _counts_from(one, piece, product) for (one, piece), product in zip(mine, products, strict=True)
            )
            limits = limits_of(products)
            found.append(Expected(unit, device.point, tuple(one for one, _ in mine), counts, limits))
    return tuple(found)


def alarmed(state: State, now: datetime) -> tuple[SetPointEntry, ...]:
    """Set points with an alarm that was told and not ended, by id; a version that is about to leave keeps it."""
    told = index(state, SetPointEntry, "alarmed", _alarmed).at("alarmed")
    return tuple(one for one in told if one.state is SetPointState.SENT or _in_force(one, now) is None)


def limits_of(products: list[Product]) -> Limits:
    """By what the products tolerate, and how often they are measured."""
    enter = max(LEAST_SHARE, min(float(one.tolerance) for one in products))
    silent = max(SILENT_S, INTERVALS * min(one.measurement_interval_s for one in products))
    return Limits(enter=enter, leave=enter / 2, silent_s=silent)


def _in_force(one: SetPointEntry, now: datetime) -> Piece | None:
    return next((piece for piece in one.profile if piece.starts <= now < piece.ends), None)


def _product(state: State, one: SetPointEntry) -> Product:
    return state.get(ProductEntry, state.get(ActivationOrder, one.order).product).product


def _counts_from(one: SetPointEntry, piece: Piece, product: Product) -> datetime:
    begins = max(piece.starts, one.sent_at or piece.starts)
    return begins + timedelta(seconds=product.full_activation_time_s)


def _quarters(one: SetPointEntry) -> tuple[str, ...]:
    """The quarter-hours that a set point touches."""
    found: dict[str, None] = {}
    for piece in one.profile:
        at = quarter(piece.starts)
        while at < piece.ends:
            found[_named(at)] = None
            at += QUARTER
    return tuple(found)


def _named(at: datetime) -> str:
    return str(int(at.timestamp()))


def _alarmed(one: SetPointEntry) -> tuple[str, ...]:
    return ("alarmed",) if one.alarm is not Alarm.NONE else ()

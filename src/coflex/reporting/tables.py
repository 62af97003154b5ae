"""The rows of the outcome's tables: flat, one line a fact, where a record is nested or lacks what a reader asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any

from coflex.domain.need import LocalNeed, Request
from coflex.domain.offer import Offer
from coflex.domain.qualification import LimitKind
from coflex.domain.quantity import Direction, Floats
from coflex.domain.statement import SettlementLine, Statement
from coflex.domain.time import Axis
from coflex.settlement.summary import LineCents


@dataclass(frozen=True, slots=True)
class OfferStepLine:
    """A price step of an offer: `quantity_kw` in each quarter-hour from `start` on."""

    offer: str
    session: str
    receipt: int
    received_at: datetime
    provider: str
    product: str
    direction: Direction
    unit: str | None
    group: str | None
    step: int
    price_eur_mwh: Decimal
    start: datetime
    quantity_kw: tuple[int, ...]
    min_quantity_kw: int
    block: bool
    max_periods: int | None
    energy_limit_kwh: int | None
    exclusive: str | None
    valid_until: datetime | None
    local_only: bool


@dataclass(frozen=True, slots=True)
class NeedLine:
    """A local need; `acting[i]` acts with `effect_per_kw[i]` in the need's direction."""

    session: str
    start: datetime
    element: str
    kind: LimitKind
    perimeter: str
    direction: Direction
    value: float
    bound: float
    volume_kw: int
    coverable: bool
    acting: tuple[str, ...]
    effect_per_kw: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RequestLine:
    """A request with the quantity that its session clears."""

    session: str
    buyer: str
    product: str
    direction: Direction
    start: datetime
    asked_kw: int
    netted_kw: int
    quantity_kw: int
    price_limit_eur_mwh: Decimal


@dataclass(frozen=True, slots=True)
class SettledLine:
    """A settlement line with its cents: amount from buyer to provider, penalty back, fee to the platform."""

    unit: str
    start: datetime
    session: str
    award: str
    buyer: str
    provider: str
    direction: Direction
    ordered_kwh: Decimal
    baseline_method: str
    baseline_kwh: Decimal | None
    measured_kwh: Decimal | None
    delivered_kwh: Decimal
    paid_kwh: Decimal
    price_eur_mwh: Decimal
    amount_eur: Decimal
    penalty_eur: Decimal
    rule: str
    remark: str
    booking: str
    amount_cents: int
    penalty_cents: int
    fee_cents: int


@dataclass(frozen=True, slots=True)
class StatementLine:
    """A statement with its balance."""

    party: str
    received_cents: int
    paid_cents: int
    penalty_cents: int
    fee_cents: int
    balance_cents: int
    lines: int
    ordered_kwh: Decimal
    delivered_kwh: Decimal


@dataclass(frozen=True, slots=True)
class NodeState:
    """Injection of a node in a quarter-hour, MW and Mvar, injection positive."""

    node: str
    start: datetime
    p_mw: float
    q_mvar: float


@dataclass(frozen=True, slots=True)
class SettingLine:
    """A device of the operator's own means that departs from its normal position in a quarter-hour. `kind`: tap, step
    or switch; `position` of a switch: 1 closed, 0 open."""

    start: datetime
    kind: str
    device: str
    position: int


@dataclass(frozen=True, slots=True)
class ProfileLine:
    """Power into a substation from the grid above in a quarter-hour, as last sent in a session: kW and kvar, positive
    into the distribution grid."""

    session: str
    substation: str
    start: datetime
    p_kw: float
    q_kvar: float


def offer_lines(offers: Iterable[Offer]) -> tuple[OfferStepLine, ...]:
    """One line a price step."""
    return tuple(
        OfferStepLine(
            offer=offer.id,
            step=step.number,
            price_eur_mwh=step.price_eur_mwh,
            start=step.start,
            quantity_kw=step.quantity_kw,
            **_plain(offer, but=("id", "steps")),
        )
        for offer in offers
        for step in offer.steps
    )


def need_lines(needs: Iterable[LocalNeed]) -> tuple[NeedLine, ...]:
    return tuple(
        NeedLine(
            **_plain(need, but=("acting",)),
            acting=tuple(a.unit for a in need.acting),
            effect_per_kw=tuple(a.effect_per_kw for a in need.acting),
        )
        for need in needs
    )


def request_lines(requests: Iterable[Request]) -> tuple[RequestLine, ...]:
    return tuple(RequestLine(**_plain(request), quantity_kw=request.quantity_kw) for request in requests)


def settled_lines(lines: Sequence[SettlementLine], cents: Sequence[LineCents]) -> tuple[SettledLine, ...]:
    """`cents[i]` belongs to `lines[i]`."""
    return tuple(
        SettledLine(
            **_plain(line),
            booking=part.booking,
            amount_cents=part.amount,
            penalty_cents=part.penalty,
            fee_cents=part.fee,
        )
        for line, part in zip(lines, cents, strict=True)
    )


def statement_lines(statements: Iterable[Statement]) -> tuple[StatementLine, ...]:
    return tuple(StatementLine(**_plain(one), balance_cents=one.balance_cents) for one in statements)


def node_states(names: Sequence[str], axis: Axis, p_mw: Floats, q_mvar: Floats) -> tuple[NodeState, ...]:
    """Injections (t, n) to the milliwatt, one line a node and quarter-hour, nodes in their order."""
    instants = tuple(axis)
    p, q = (values.round(9) + 0.0 for values in (p_mw, q_mvar))
    return tuple(
        NodeState(name, start, active, reactive)
        for n, name in enumerate(names)
        for start, active, reactive in zip(instants, p[:, n].tolist(), q[:, n].tolist(), strict=True)
    )


def setting_lines(departs: Mapping[str, Mapping[str, Mapping[str, int]]]) -> tuple[SettingLine, ...]:
    """Of each quarter-hour (its instant as text) and kind of device, the positions by name."""
    kinds = {"taps": "tap", "steps": "step", "closed": "switch"}
    return tuple(
        SettingLine(datetime.fromisoformat(start), name, device, int(position))
        for start, devices in sorted(departs.items())
        for kind, name in kinds.items()
        for device, position in sorted(devices.get(kind, {}).items())
    )


def profile_lines(session: str, substation: str, axis: Axis, p_mw: Floats, q_mvar: Floats) -> tuple[ProfileLine, ...]:
    """One line a quarter-hour, to the milliwatt."""
    kw, kvar = ((values * 1000).round(6) + 0.0 for values in (p_mw, q_mvar))
    return tuple(
        ProfileLine(session, substation, start, active, reactive)
        for start, active, reactive in zip(axis, kw.tolist(), kvar.tolist(), strict=True)
    )


def _plain(record: Any, but: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a record by name, nothing inside them converted."""
    return {field.name: getattr(record, field.name) for field in fields(record) if field.name not in but}

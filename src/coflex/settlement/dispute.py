"""Disputes: a party contests one line; its delivery is settled anew from named new inputs; old and new are kept.

    opened -> upheld | changed | withdrawn

`upheld`: the line stands. `changed`: the new inputs hold, and the difference is posted by the next correction run.
Every instant comes in from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from coflex.domain.errors import CoflexError, Conflict, Finding, Forbidden, NotFound, refuse
from coflex.domain.reading import Quality
from coflex.domain.statement import Cause, Charge, Evidence, Line
from coflex.settlement.books import Run, correct
from coflex.settlement.charges import settle
from coflex.settlement.document import Rule
from coflex.settlement.inputs import Bought, Delivery, Held, Inputs

# What new evidence may change. Who sold what to whom is no matter of a settlement's dispute.
OPEN_TO_CHANGE = ("baseline_method", "baseline_kwh", "measured_kwh", "limit_kwh", "ordered_kwh", "quality", "limited",
                  "reference_eur_mwh")  # fmt: skip
OF_AN_AWARD = ("energy_kwh", "bid_eur_mwh", "clearing_eur_mwh", "nodal_eur_mwh", "penalty_eur_mwh")
OF_CAPACITY = ("capacity_kw", "price_eur_mw_h", "ready_share", "month_share")


class State(StrEnum):
    """Where a dispute stands."""

    OPENED = "opened"
    UPHELD = "upheld"
    CHANGED = "changed"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Step:
    """A state with the instant from which it holds, who brought it about, and why."""

    state: State
    at: datetime
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """One input that is said to be wrong. `field`: such as `measured_kwh`, or `award.bid_eur_mwh` of the award named
    before the point. `source`: where the new value comes from: a certificate, a letter, a protocol; from then on the
    charges' evidence names it."""

    field: str
    value: Decimal | str | bool | None
    source: str


@dataclass(frozen=True, slots=True)
class Dispute:
    """A contested line and its history; after a decision, the settlements of its delivery before and after."""

    id: str
    line: str
    party: str
    steps: tuple[Step, ...]
    changes: tuple[Change, ...] = ()
    old: tuple[Charge, ...] = ()
    new: tuple[Charge, ...] = ()

    @property
    def state(self) -> State:
        return self.steps[-1].state


def open_dispute(name: str, line: Line, party: str, at: datetime, reason: str) -> Dispute:
    """Contest a line. Raises Forbidden unless the party sells or pays it, Conflict for one of roundings, which follows
    from others, CoflexError without a reason."""
    charge = line.charge
    if party not in (charge.seller, charge.customer):
        raise Forbidden(f"The line {charge.id} is between {charge.seller} and {charge.customer}.", "Dispute your own.")
    if charge.cause is Cause.ROUNDING:
        raise Conflict(f"The line {charge.id} is what rounding left.", "Dispute a line of the purchase itself.")
    if not reason.strip():
        raise CoflexError("A dispute needs a reason.", "Say what is wrong with the line.")
    return Dispute(name, charge.root, party, (Step(State.OPENED, _instant(at), party, reason),))


def withdraw(dispute: Dispute, at: datetime, reason: str) -> Dispute:
    """Take a dispute back. Raises Conflict when it is decided."""
    return _stepped(dispute, State.WITHDRAWN, at, dispute.party, reason)


def decide(
    dispute: Dispute,
    inputs: Inputs,
    rules: Mapping[str, Rule],
    changes: Sequence[Change],
    at: datetime,
    by: str,
    reason: str,
) -> tuple[Dispute, Inputs]:
    """Settle the line's delivery anew with the changes, and say whether anything came out otherwise.

    The dispute that comes back keeps both settlements of the delivery; the inputs that come back carry the changes if
    they count, and are the given ones if the line is upheld. No changes uphold the line.
    Raises NotFound when no delivery of the inputs made the line, Conflict when the dispute is decided already, Refused
    with every change that cannot be made.
    """
    delivery = delivery_of(dispute.line, inputs, rules)
    changed = change(delivery, changes)
    old = settle(replace(inputs, deliveries=(delivery,)), rules)
    new = settle(replace(inputs, deliveries=(changed,)), rules)
    state = State.UPHELD if _money(old) == _money(new) else State.CHANGED
    decided = replace(_stepped(dispute, state, at, by, reason), changes=tuple(changes), old=old, new=new)
    if state is State.UPHELD:
        return decided, inputs
    others = (one for one in inputs.deliveries if one.id != delivery.id)
    return decided, replace(inputs, deliveries=tuple(sorted((*others, changed), key=lambda one: one.id)))


def difference(dispute: Dispute, posted: Iterable[Line], charges: Iterable[Charge], period: str) -> Run:
    """What a dispute that changed something posts: the delivery's charges replaced by the new ones, all others as they
    are. Raises Conflict unless it is decided so."""
    if dispute.state is not State.CHANGED:
        raise Conflict(f"The dispute {dispute.id} is {dispute.state}.", "Only one that changed something is posted.")
    gone = {one.id for one in dispute.old}
    return correct(posted, (*(one for one in charges if one.id not in gone), *dispute.new), period)


def delivery_of(line: str, inputs: Inputs, rules: Mapping[str, Rule]) -> Delivery:
    """The delivery that a line was settled from. Raises NotFound when there is none."""
    session, _, rest = line.partition("|")
    name = rest.partition("|")[0]
    for delivery in inputs.deliveries:
        if delivery.id == name and delivery.session == session and delivery.rule in rules:
            return delivery
    raise NotFound(f"No delivery made the line {line}.", "Give the inputs and the line of the same period.")


def change(delivery: Delivery, changes: Iterable[Change]) -> Delivery:
    """The delivery with its new inputs. Raises Refused with every change that is not of its form."""
    findings: list[Finding] = []
    for one in changes:
        place = f"change of {one.field}"
        if not one.source.strip():
            findings.append(Finding(place, "no_source", "Say where the new value comes from."))
        award, point, name = one.field.rpartition(".")
        if not point and name in OPEN_TO_CHANGE:
            delivery = replace(delivery, **{name: _value(name, one.value, findings, place)})
            delivery = replace(delivery, evidence=_resting_on(delivery.evidence, name, one.source))
            if name == "measured_kwh" and delivery.measured_kwh is not None and delivery.quality is Quality.MISSING:
                delivery = replace(delivery, quality=Quality.MEASURED)
        elif point and name in (*OF_AN_AWARD, *OF_CAPACITY) and _has(delivery, award, name):
            delivery = _of_award(delivery, award, name, _value(name, one.value, findings, place))
        else:
            known = ", ".join((*OPEN_TO_CHANGE, *(f"AWARD.{name}" for name in (*OF_AN_AWARD, *OF_CAPACITY))))
            findings.append(Finding(place, "not_offered", f"This cannot be changed here; known are {known}."))
    refuse(f"Changes of delivery {delivery.id}", findings)
    return delivery


def _resting_on(evidence: Evidence, name: str, source: str) -> Evidence:
    """The evidence once an input comes from elsewhere: what proved the old reading does not prove the new one."""
    if name in ("measured_kwh", "quality"):
        return replace(evidence, measurements="", log_size=0, certificates=(source,))
    return replace(evidence, baseline=source) if name.startswith("baseline") else evidence


def _value(name: str, value: Decimal | str | bool | None, findings: list[Finding], place: str) -> Any:
    """A value in the type of its field; where it has none of that type, None and a finding."""
    try:
        return _read(name, value)
    except (ValueError, ArithmeticError, KeyError):
        findings.append(Finding(place, "malformed", f"'{value}' is no value of {name}; correct it."))
        return None


def _read(name: str, value: Decimal | str | bool | None) -> Any:
    """A value in the type of its field. Raises ValueError, ArithmeticError or KeyError where it has none."""
    if name == "quality":
        return Quality(str(value))
    if name == "baseline_method":
        if not isinstance(value, str):
            raise ValueError("a method has a name")
        return value
    if name == "limited":
        return {"true": True, "false": False}[str(value).lower()]
    if value is None and name not in ("ordered_kwh", "energy_kwh", "capacity_kw", "price_eur_mw_h"):
        return None
    number = Decimal(str(value))
    if not number.is_finite():
        raise ValueError(f"{number} is not finite")
    return number


def _has(delivery: Delivery, award: str, name: str) -> bool:
    parts: Sequence[Bought | Held] = delivery.bought if name in OF_AN_AWARD else delivery.held
    return any(one.award == award for one in parts)


def _of_award(delivery: Delivery, award: str, name: str, value: Any) -> Delivery:
    def changed(parts: Sequence[Any]) -> tuple[Any, ...]:
        known = [
            one if one.award != award or name not in _names(one) else replace(one, **{name: value}) for one in parts
        ]
        return tuple(known)

    return replace(delivery, bought=changed(delivery.bought), held=changed(delivery.held))


def _names(part: Bought | Held) -> set[str]:
    return {one.name for one in fields(part)}


def _money(charges: Iterable[Charge]) -> dict[str, Decimal]:
    return {one.id: one.amount_eur for one in charges}


def _stepped(dispute: Dispute, state: State, at: datetime, by: str, reason: str) -> Dispute:
    if dispute.state is not State.OPENED:
        raise Conflict(f"The dispute {dispute.id} is {dispute.state} already.", "Open another with what is new.")
    if _instant(at) < dispute.steps[-1].at:
        raise CoflexError("A step cannot lie before the one it follows.", "Check the clock.")
    return replace(dispute, steps=(*dispute.steps, Step(state, at, by, reason)))


def _instant(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise CoflexError(f"The instant {at} has no time zone.", "Give one; UTC is kept inside.")
    return at

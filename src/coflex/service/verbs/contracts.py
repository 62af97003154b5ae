"""Contracts of providers with the owners of units: the share of the earnings that is paid on (SET-05).

    offered by the provider -> agreed by the owner -> until a day that either side names

Days that are settled stay as they are: a contract neither begins nor ends among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal

from coflex.domain.errors import Conflict, Finding, Forbidden, refuse
from coflex.domain.party import Role
from coflex.register.resources import UnitEntry
from coflex.register.settlement import OwnerContract, SettlementRun
from coflex.service.machine import CREATED, Context, Outcome, Verb
from coflex.service.orders import Draft
from coflex.service.reading import record, require, require_new, shown
from coflex.service.settling import zone_of
from coflex.service.state import State
from coflex.service.verbs.products import MOST_PRICE
from coflex.service.verbs.resource_forms import Form, Nothing

GRAIN = Decimal("1e-6")


class ContractForm(Form, frozen=True):
    """What the provider of `unit` offers its owner from a day on: a share of what it earns with it after claw-back, a
    price for each MWh paid, and the share of penalties that the owner bears."""

    unit: str
    from_day: date
    share: Decimal = Decimal(0)
    eur_mwh: Decimal = Decimal(0)
    penalty_share: Decimal = Decimal(0)
    until_day: date | None = None


class LastDay(Form, frozen=True):
    """The last day on which a contract counts."""

    until_day: date


def _offer(state: State, context: Context, form: ContractForm) -> Outcome:
    """Offer a contract to the owner of one's unit. Raises NotFound, Forbidden, Refused with every fault."""
    unit = record(state, context, UnitEntry, form.unit).unit
    if context.party != unit.provider:
        raise Forbidden(f"'{unit.id}' is not {context.party}'s.", "Its provider offers the contract.")
    made = OwnerContract(
        context.new_id("owner-contract"), unit.id, unit.provider, unit.owner, form.share, form.eur_mwh,
        form.penalty_share, form.from_day, form.until_day,
    )  # fmt: skip
    refuse("The contract", _faults(state, made))
    require_new(state, context, made, ("share",))
    return _told(state, context, made, "owner_contract.offered", CREATED)


def _faults(state: State, one: OwnerContract) -> Iterator[Finding]:
    if one.owner == one.provider:
        yield Finding("unit", "own_account", "The provider owns the unit itself; nothing is paid on.")
    for name in ("share", "penalty_share"):
        share = getattr(one, name)
        if not (share.is_finite() and 0 <= share <= 1 and share == share.quantize(GRAIN)):
            yield Finding(name, "out_of_range", "A share lies between 0 and 1, to six decimals; correct it.")
    price = one.eur_mwh
    if not (price.is_finite() and 0 <= price <= MOST_PRICE and price == price.quantize(GRAIN)):
        yield Finding("eur_mwh", "out_of_range", f"Give 0 to {MOST_PRICE} EUR/MWh, to six decimals.")
    if one.until_day is not None and one.until_day < one.from_day:
        yield Finding("until_day", "ends_first", "It ends before it begins; order the two.")
    yield from _settled(state, "from_day", one.from_day)


def _settled(state: State, place: str, day: date) -> Iterator[Finding]:
    settled = max((one.last_day for one in state.all(SettlementRun)), default=None)
    if settled is not None and day <= settled:
        yield Finding(place, "settled", f"Days to {settled} are settled; choose a later one.")


def _agree(state: State, context: Context, form: Nothing) -> Outcome:
    """The owner agrees. Raises NotFound, Forbidden, Conflict where it did, where the offer was taken back, or where
    another contract covers a day of it, Refused where its first days were settled meanwhile."""
    before = record(state, context, OwnerContract, context.subject)
    require(state, context, before, ("agreed",))
    if before.agreed is not None:
        raise Conflict(f"'{before.id}' is agreed since {before.agreed}.", "Nothing is to be done.")
    if before.until_day is not None and before.until_day < before.from_day:
        raise Conflict(f"'{before.id}' was ended before it began.", "Let the provider offer another.")
    refuse("The contract", _settled(state, "from_day", before.from_day))
    others = (one for one in state.all(OwnerContract) if one.agreed is not None and one.meets(before))
    other = next(others, None)
    if other is not None:
        raise Conflict(f"The contract '{other.id}' covers days of it.", "End that one before this one begins.")
    return _told(state, context, replace(before, agreed=context.now), "owner_contract.agreed")


def _end(state: State, context: Context, form: LastDay) -> Outcome:
    """Either side names the last day; of an agreed contract today at the earliest, since what was delivered under it is
    paid by it. Raises NotFound, Forbidden, Conflict where it ends before, Refused where days after it are settled."""
    before = record(state, context, OwnerContract, context.subject)
    require(state, context, before, ("until_day",))
    if before.until_day is not None and before.until_day < form.until_day:
        raise Conflict(f"'{before.id}' ends on {before.until_day}.", "A contract is only shortened.")
    after = replace(before, until_day=form.until_day)
    if before.agreed is not None:
        refuse("The end", _too_early(state, before, form.until_day, context.now))
    return _told(state, context, after, "owner_contract.ended")


def _too_early(state: State, one: OwnerContract, day: date, now: datetime) -> Iterator[Finding]:
    later = max((run.last_day for run in state.all(SettlementRun)), default=day)
    first = max(one.from_day, now.astimezone(zone_of(state)).date())
    if day < later:
        yield Finding("until_day", "settled", f"Days to {later} are settled; end it then or later.")
    elif day < first:
        yield Finding("until_day", "past", f"It is agreed and holds for what is delivered; end it on {first} or later.")


def _told(state: State, context: Context, one: OwnerContract, kind: str, status: int = 200) -> Outcome:
    draft = Draft(state, context)
    draft.put(one)
    draft.tell(kind, one.id, (one.provider, one.owner), unit=one.unit)
    return draft.outcome(shown(state, context, one), status)


_PROVIDER = frozenset({Role.SERVICE_PROVIDER})
_OWNER = frozenset({Role.ASSET_OWNER})
VERBS = (
    Verb("owner_contract.offer", ContractForm, _offer, _PROVIDER),
    Verb("owner_contract.agree", Nothing, _agree, _OWNER, OwnerContract),
    Verb("owner_contract.end", LastDay, _end, _PROVIDER | _OWNER, OwnerContract),
)

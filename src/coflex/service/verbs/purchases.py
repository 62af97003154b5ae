"""Shared purchases: what a session bought for one operator and several pay, since it serves them all (SET-03).

    offered by the buyer -> agreed by every other sharer -> paid together
                         -> declined by one of them, or taken back

A purchase is shared before its day is settled, and what all agreed to stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal

from coflex.domain.clearing import Award
from coflex.domain.errors import CoflexError, Conflict, Finding, Forbidden, refuse
from coflex.domain.party import Role
from coflex.market.design.document import Buyer
from coflex.register.market import SessionEntry
from coflex.register.outcomes import SessionOutcome
from coflex.register.parties import PartyEntry
from coflex.register.products import ProductEntry
from coflex.register.settlement import CostAlone, SettlementRun, SharedPurchase, Sharer
from coflex.service.gates import plan_of
from coflex.service.index import index
from coflex.service.machine import CREATED, Context, Outcome, Verb
from coflex.service.orders import Draft, awards_of
from coflex.service.reading import record, require, require_new, shown
from coflex.service.relations import operators
from coflex.service.settling import rule_in, terms_of
from coflex.service.state import State
from coflex.service.verbs.resource_forms import Form, Nothing
from coflex.settlement.document import Need, Payer, Rule
from coflex.settlement.inputs import Delivery, Inputs, Purchase, faults
from coflex.settlement.sharing import weights

MOST, GRAIN = Decimal(10**9), Decimal("1e-6")


class SharerForm(Form, frozen=True):
    """A party that is to pay a part, as what, and what it needed of the purchase, in the same unit as all others, where
    the rule shares by need."""

    role: Buyer
    party: str
    need: Decimal = Decimal(0)


class CostForm(Form, frozen=True):
    """What a sharer, or a group of them as "dso+tso", would have paid alone."""

    group: str
    eur: Decimal


class SharingForm(Form, frozen=True):
    """What a session bought is shared: who pays it, the buyer among them. `costs`: of every group of sharers, where the
    rule of the products shares by the Shapley value."""

    session: str
    sharers: tuple[SharerForm, ...]
    costs: tuple[CostForm, ...] = ()


def _offer(state: State, context: Context, form: SharingForm) -> Outcome:
    """Offer others to share what one's session bought. Raises NotFound, Forbidden to all but its buyer, Conflict before
    it has a result or where it is shared already, Refused with every fault."""
    entry = record(state, context, SessionEntry, form.session)
    outcome = state.find(SessionOutcome, entry.outcome)
    if outcome is None:
        raise Conflict(f"The session {entry.id} has no result.", "Share what it bought once that is known.")
    if context.party != outcome.buyer:
        raise Forbidden(f"The session {entry.id} bought for {outcome.buyer}.", "Its buyer offers to share.")
    for one in index(state, SharedPurchase, "session", lambda one: (one.session,)).at(entry.id):
        if one.ended is None:
            raise Conflict(f"'{one.id}' shares what {entry.id} bought.", "Take that one back before all agree to it.")
    made = SharedPurchase(
        id=context.new_id("shared-purchase"),
        session=entry.id,
        day=entry.day,
        buyer=outcome.buyer,
        sharers=tuple(
            Sharer(Payer(one.role.value), one.party, one.need, context.now if one.party == outcome.buyer else None)
            for one in sorted(form.sharers, key=lambda one: one.role)
        ),
        costs=tuple(CostAlone(one.group, one.eur) for one in sorted(form.costs, key=lambda one: one.group)),
    )
    refuse("The shared purchase", [*_number_faults(made), *_faults(state, made)])
    refuse("The shared purchase", _rule_faults(state, made))
    require_new(state, context, made, ("sharers",))
    return _told(state, context, made, "shared_purchase.offered", CREATED)


def _agree(state: State, context: Context, form: Nothing) -> Outcome:
    """A sharer agrees. Raises NotFound, Forbidden, Conflict where it did or where it was declined, Refused once the day
    is settled, or where the rule of what was bought shares it no more."""
    before = _open(state, context)
    mine = next((one for one in before.sharers if one.party == context.party), None)
    if mine is None or mine.agreed is not None:
        raise Conflict(f"{context.party} has nothing to agree to in '{before.id}'.", "Nothing is to be done.")
    refuse("The shared purchase", _faults(state, before))
    refuse("The shared purchase", _rule_faults(state, before))
    sharers = tuple(replace(one, agreed=context.now) if one is mine else one for one in before.sharers)
    return _told(state, context, replace(before, sharers=sharers), "shared_purchase.agreed")


def _decline(state: State, context: Context, form: Nothing) -> Outcome:
    """A sharer declines, or the buyer takes its offer back, before all agreed. Raises NotFound, Forbidden, Conflict."""
    before = _open(state, context)
    if before.agreed:
        raise Conflict(f"All agreed to '{before.id}'.", "It stands; what they settle among themselves is theirs.")
    return _told(state, context, replace(before, ended=context.now), "shared_purchase.declined")


def _open(state: State, context: Context) -> SharedPurchase:
    before = record(state, context, SharedPurchase, context.subject)
    require(state, context, before, ("sharers",))
    if before.ended is not None:
        raise Conflict(f"'{before.id}' was declined.", "Let the buyer offer another.")
    return before


def _told(state: State, context: Context, one: SharedPurchase, kind: str, status: int = 200) -> Outcome:
    draft = Draft(state, context)
    draft.put(one)
    audience = (*one.roles.values(), *operators(state, Role.MARKET_OPERATOR))
    draft.tell(kind, one.id, audience, session=one.session, agreed=one.agreed)
    return draft.outcome(shown(state, context, one), status)


# ---------------------------------------------------------------- faults


def _faults(state: State, made: SharedPurchase) -> Iterator[Finding]:
    """Who may share with whom, and until when: parties in the part that they play, the buyer among them, and nobody who
    sold; until the day is settled."""
    run = next((run for run in state.all(SettlementRun) if run.first_day <= made.day <= run.last_day), None)
    if run is not None:
        yield Finding("session", "settled", f"Its day is settled in {run.period}; share what is not settled yet.")
    entry = state.get(SessionEntry, made.session)
    parties = [one.party for one in made.sharers]
    if len(made.sharers) < 2 or len(set(parties)) < len(parties) or len(made.roles) < len(parties):
        yield Finding("sharers", "sharers", "Two or three share, each once and each in another part; correct them.")
    role = Payer(plan_of(state, entry).session.buyers[0].value)
    if made.roles.get(role) != made.buyer:
        yield Finding("sharers", "buyer", f"The buyer {made.buyer} shares as '{role.value}'; name it so.")
    sellers = {award.provider for award in _awards(state, entry)}
    for i, one in enumerate(made.sharers):
        party = state.find(PartyEntry, one.party)
        if party is None or Buyer(one.role.value).role not in party.roles:
            yield Finding(f"sharers[{i}].party", "unknown_party", f"'{one.party}' is no {one.role.value}; correct it.")
        if one.party in sellers:
            yield Finding(f"sharers[{i}].party", "own_account", f"'{one.party}' sold of it and would pay itself.")


def _number_faults(made: SharedPurchase) -> Iterator[Finding]:
    numbers = [*(("need", one.need) for one in made.sharers), *(("eur", one.eur) for one in made.costs)]
    for name, number in numbers:
        if not (number.is_finite() and 0 <= number <= MOST and number == number.quantize(GRAIN)):
            yield Finding(name, "number", f"Give a number from 0 to {MOST}, with at most six decimals.")
    if len({one.group for one in made.costs}) < len(made.costs):
        yield Finding("costs", "repeated", "Name each group once.")


def _rule_faults(state: State, made: SharedPurchase) -> Iterator[Finding]:
    """Every reason why the rules of what was bought do not share it so: as the settlement itself would say."""
    told: set[Finding] = set()
    entry = state.get(SessionEntry, made.session)
    for award in {award.product: award for award in _awards(state, entry)}.values():
        rule = rule_in(terms_of(state, state.get(ProductEntry, award.product).product, entry.day).document)
        told |= set(_unshared(award, rule, made))
    yield from sorted(told)


def _unshared(award: Award, rule: Rule, made: SharedPurchase) -> Iterator[Finding]:
    if Need.SHARED not in rule.payers:
        message = f"{award.product} is settled by {rule.name}, which shares nothing; have its terms say how."
        yield Finding("session", "no_sharing", message)
        return
    purchase: Purchase = made.purchase()
    probe = Delivery(
        id="shared", rule=rule.id, unit="shared", provider=award.provider, buyer=made.buyer, session=made.session,
        need=Need.SHARED, start=award.start, minutes=15, direction=award.direction, roles=made.roles, purchase=made.id,
    )  # fmt: skip
    found = [
        Finding("sharers", one.code, one.message)
        for one in faults(Inputs("shared", (probe,), purchases=(purchase,)), {rule.id: rule})
    ]
    yield from found
    try:
        if not found:
            weights(rule, probe, purchase)
    except CoflexError as error:
        yield Finding("costs", "costs", f"{error.message} {error.remedy}")


def _awards(state: State, entry: SessionEntry) -> Sequence[Award]:
    return [award for awards in awards_of(state, entry).values() for award in awards]


_BUYERS = frozenset({Role.DSO, Role.TSO, Role.BALANCE_RESPONSIBLE_PARTY})
VERBS = (
    Verb("shared_purchase.offer", SharingForm, _offer, _BUYERS),
    Verb("shared_purchase.agree", Nothing, _agree, _BUYERS, SharedPurchase),
    Verb("shared_purchase.decline", Nothing, _decline, _BUYERS, SharedPurchase),
)

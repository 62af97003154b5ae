"""Who tells whom what when a design is run: the generic business process that follows from its document.

Document O (2.2, 3.4) describes every use case as functions that roles perform and information that they exchange, in
five phases; document T (scenarios I and II) gives the steps of prequalification, offering, activation and settlement,
document P (I-01 to I-19) the information objects. Here the bidding phase is split at the gate: bidding and selection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from coflex.domain.unit import Level
from coflex.market.coordination.outcome import Actor
from coflex.market.design.document import (
    NEVER,
    Buyer,
    Carry,
    Design,
    DistributionGrid,
    Interface,
    Needs,
    Offered,
    Resource,
    Session,
    Trades,
    Validation,
)


class Phase(StrEnum):
    """The phases of the generic business process, in their order."""

    PREQUALIFICATION = "prequalification"
    PLAN = "plan"
    BIDDING = "bidding"
    SELECTION = "selection"
    DELIVERY = "delivery"
    SETTLEMENT = "settlement"


class Per(StrEnum):
    """What there is one message for, among those that the exchange concerns. `per_line`: a line of a merit order list,
    or of a list of orders."""

    OFFER = "per_offer"
    SELLER = "per_seller"
    PROVIDER = "per_provider"
    ONCE = "once"
    LINE = "per_line"
    GRID = "per_grid"


class Information(StrEnum):
    """What is told."""

    QUALIFICATION_REQUEST = "qualification_request"
    QUALIFICATION = "qualification"
    ANNOUNCEMENT = "announcement"
    NEEDS = "needs"
    REQUESTS = "requests"
    GRID_LIMITS = "grid_limits"
    TRAFFIC_LIGHT = "traffic_light"
    INTERFACE_SCHEDULE = "interface_schedule"
    INTERFACE_PRICE = "interface_price"
    CONTRACTED_OFFERS = "contracted_offers"
    CONSUMPTION_FORECAST = "consumption_forecast"
    OFFERS = "offers"
    MERIT_ORDER_LIST = "merit_order_list"
    VALIDATION = "validation"
    RESULTS = "results"
    UNAVAILABLE_UNITS = "unavailable_units"
    UNUSED_OFFERS = "unused_offers"
    AGGREGATED_OFFERS = "aggregated_offers"
    OFFER_FILTER = "offer_filter"
    DISPATCH = "dispatch"
    ACTIVATION = "activation"
    ACKNOWLEDGEMENT = "acknowledgement"
    BASELINE = "baseline"
    SETTLEMENT = "settlement"


# What the sender does that the information comes from.
FUNCTIONS: dict[Information, str] = {
    Information.QUALIFICATION_REQUEST: "gather technical data and location of units",
    Information.QUALIFICATION: "test units and validate them on the grid",
    Information.ANNOUNCEMENT: "open the session",
    Information.NEEDS: "forecast and assess the grid",
    Information.REQUESTS: "determine what is to be bought",
    Information.GRID_LIMITS: "reduce the grid to limits and effects",
    Information.TRAFFIC_LIGHT: "compute what each perimeter bears",
    Information.INTERFACE_SCHEDULE: "add up the power at the interface",
    Information.INTERFACE_PRICE: "price energy at the interface",
    Information.CONTRACTED_OFFERS: "turn contracts into offers",
    Information.CONSUMPTION_FORECAST: "forecast consumption for each interface",
    Information.OFFERS: "prepare offers",
    Information.MERIT_ORDER_LIST: "order offers by price",
    Information.VALIDATION: "walk the list on the grid",
    Information.RESULTS: "clear the session",
    Information.UNAVAILABLE_UNITS: "list the units that are held",
    Information.UNUSED_OFFERS: "keep the offers that were not selected",
    Information.AGGREGATED_OFFERS: "add up unused offers to a curve for each interface",
    Information.OFFER_FILTER: "cut offers to what the grid bears",
    Information.DISPATCH: "answer the other's dispatch",
    Information.ACTIVATION: "order what was bought",
    Information.ACKNOWLEDGEMENT: "take over the set point",
    Information.BASELINE: "measure and give the baseline",
    Information.SETTLEMENT: "settle what was delivered",
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One kind of message in a session, of which there is one `per` offer, seller, ...; `session` is empty in the
    prequalification, which precedes all of them. Of a session that repeats: in each round."""

    session: str
    phase: Phase
    sender: Actor
    receiver: Actor
    information: Information
    per: Per

    @property
    def function(self) -> str:
        """What the sender does that the information comes from."""
        return FUNCTIONS[self.information]


def operator(session: Session) -> Actor:
    """Who operates the market of a session: its only buyer where that is a system operator, else the neutral market
    operator, who is none of several buyers and no balance responsible party."""
    (first, *others) = session.buyers
    return Actor.MARKET_OPERATOR if others or first is Buyer.BRP else Actor(first.value)


def exchanges(design: Design) -> tuple[Exchange, ...]:
    """Every kind of message of a design, none twice, nobody to itself: prequalification once, the market phases of one
    session after another in the document's order, then delivery and settlement of those that decide for good."""
    made = list(_prequalification(design.sessions))
    for i, session in enumerate(design.sessions):
        others = _Others(design.sessions[:i], design.sessions[i + 1 :])
        for step in (_needed, _seen, _at_the_interface, _offered, _selected, _forwarded):
            made += step(session, others)
        made += _answered(design, session)
    committing = [session for session in design.sessions if session.horizon.firm != NEVER]
    made += [one for session in committing for one in _delivered(session)]
    made += [one for session in committing for one in _settled(session)]
    return tuple(dict.fromkeys(one for one in made if one.sender is not one.receiver))


@dataclass(frozen=True, slots=True)
class _Others:
    """The sessions around one in its document."""

    earlier: Sequence[Session]
    later: Sequence[Session]

    def feeding(self, session: Session) -> Iterator[Session]:
        """Earlier sessions that forward to it."""
        return (one for one in self.earlier if one.forward is not None and one.forward.to == session.id)


def _among(actor: Actor) -> Per:
    """How many there are of an actor: one for each distribution grid, of the others one."""
    return Per.GRID if actor is Actor.DSO else Per.ONCE


def _prequalification(sessions: Sequence[Session]) -> Iterator[Exchange]:
    """Document T, figures 4 and 8: units are asked for by the operator of the first market that takes them, who has
    them validated by the operator of their grid."""

    def told(sender: Actor, receiver: Actor, information: Information, per: Per) -> Exchange:
        return Exchange("", Phase.PREQUALIFICATION, sender, receiver, information, per)

    request, answer = Information.QUALIFICATION_REQUEST, Information.QUALIFICATION
    units = [session for session in sessions if _by_providers(session)]
    for level, owner in ((Level.DISTRIBUTION, Actor.DSO), (Level.TRANSMISSION, Actor.TSO)):
        for first in [session for session in units if level in session.sellers.levels][:1]:
            asked = operator(first)
            yield told(Actor.SERVICE_PROVIDER, asked, request, Per.SELLER)
            yield told(asked, owner, request, Per.SELLER)
            yield told(owner, asked, answer, Per.SELLER)
            yield told(asked, Actor.SERVICE_PROVIDER, answer, Per.SELLER)
    for session in sessions:
        if Resource.VOLTAGE_REDUCTION in session.sellers.resources:
            yield told(Actor.DSO, operator(session), request, Per.GRID)
            yield told(operator(session), Actor.DSO, answer, Per.GRID)


def _needed(session: Session, others: _Others) -> Iterator[Exchange]:
    """The session is announced, and buyers who do not operate it say what they need."""
    runs, needs = operator(session), session.needs

    def told(sender: Actor, receiver: Actor, information: Information, per: Per) -> Exchange:
        return Exchange(session.id, Phase.PLAN, sender, receiver, information, per)

    if _by_providers(session):
        yield told(runs, Actor.SERVICE_PROVIDER, Information.ANNOUNCEMENT, Per.PROVIDER)
    for buyer in session.buyers:
        actor = Actor(buyer.value)
        yield told(runs, actor, Information.ANNOUNCEMENT, _among(actor))
        if needs.assessed and _sees(session, actor):
            yield told(actor, runs, Information.NEEDS, _among(actor))
        if buyer is Buyer.BRP:
            yield told(actor, runs, Information.REQUESTS, Per.LINE)
        elif needs is Needs.REQUESTS or (needs is Needs.BOTH and buyer is Buyer.TSO):
            yield told(actor, runs, Information.REQUESTS, _among(actor))


def _sees(session: Session, actor: Actor) -> bool:
    """Whether the clearing sees the network of an operator."""
    view = {Actor.DSO: session.grid.distribution.sees_network, Actor.TSO: session.grid.transmission.sees_network}
    return view.get(actor, False)


def _seen(session: Session, others: _Others) -> Iterator[Exchange]:
    """What the clearing sees of grids that the operator of the session does not run, unless needs already tell it."""
    runs = operator(session)
    for actor in (Actor.DSO, Actor.TSO):
        tells_needs = session.needs.assessed and actor.value in session.buyers
        if _sees(session, actor) and not tells_needs:
            yield Exchange(session.id, Phase.PLAN, actor, runs, Information.GRID_LIMITS, _among(actor))
    carried = any(one.forward and one.forward.carry is Carry.TRAFFIC_LIGHT for one in others.feeding(session))
    if session.grid.distribution is DistributionGrid.CAPABILITY and not carried:
        yield Exchange(session.id, Phase.PLAN, Actor.DSO, runs, Information.TRAFFIC_LIGHT, Per.GRID)


def _at_the_interface(session: Session, others: _Others) -> Iterator[Exchange]:
    """What must be known of the power between the grids. Of a session that repeats, later ones have moved some too."""
    runs = operator(session)
    if session.interface is Interface.NETTED:
        around = [*others.earlier, *(others.later if session.repeat is not None else ())]
        for actor in dict.fromkeys(operator(one) for one in around if not one.trades.is_capacity):
            yield Exchange(session.id, Phase.PLAN, actor, runs, Information.INTERFACE_SCHEDULE, Per.GRID)
    elif session.interface is Interface.FIXED:
        yield Exchange(session.id, Phase.PLAN, Actor.TSO, runs, Information.INTERFACE_SCHEDULE, Per.GRID)
    elif session.interface is Interface.PRICED:
        yield Exchange(session.id, Phase.PLAN, Actor.TSO, runs, Information.INTERFACE_PRICE, Per.ONCE)


def _offered(session: Session, others: _Others) -> Iterator[Exchange]:
    """Offers up to the gate. What was forwarded is not sent again."""
    runs, sellers = operator(session), session.sellers

    def told(sender: Actor, information: Information, per: Per) -> Exchange:
        return Exchange(session.id, Phase.BIDDING, sender, runs, information, per)

    for source in others.earlier:
        if source.id in session.admits:
            yield told(operator(source), Information.CONTRACTED_OFFERS, Per.SELLER)
    fed = any(one.forward and one.forward.offers is not Offered.NONE for one in others.feeding(session))
    if Resource.UNITS in sellers.resources and (not fed or Level.TRANSMISSION in sellers.levels):
        yield told(Actor.SERVICE_PROVIDER, Information.OFFERS, Per.OFFER)
    if Resource.VOLTAGE_REDUCTION in sellers.resources:
        yield told(Actor.DSO, Information.CONSUMPTION_FORECAST, Per.GRID)
        yield told(Actor.DSO, Information.OFFERS, Per.OFFER)


def _selected(session: Session, others: _Others) -> Iterator[Exchange]:
    """The list to the DSO and back, then results to sellers, buyers and the operators of the grids they are in."""
    runs = operator(session)

    def told(sender: Actor, receiver: Actor, information: Information, per: Per) -> Exchange:
        return Exchange(session.id, Phase.SELECTION, sender, receiver, information, per)

    if session.validation is Validation.MERIT_ORDER:
        yield told(runs, Actor.DSO, Information.MERIT_ORDER_LIST, Per.GRID)
        yield told(Actor.DSO, runs, Information.VALIDATION, Per.LINE)
    if _by_providers(session):
        yield told(runs, Actor.SERVICE_PROVIDER, Information.RESULTS, Per.PROVIDER)
    concerned = [Actor(buyer.value) for buyer in session.buyers]
    if Level.DISTRIBUTION in session.sellers.levels or Resource.VOLTAGE_REDUCTION in session.sellers.resources:
        concerned.append(Actor.DSO)
    for actor in dict.fromkeys(concerned):
        yield told(runs, actor, Information.RESULTS, _among(actor))
    for actor in dict.fromkeys(operator(one) for one in _waiting(session, others.later)):
        yield told(runs, actor, Information.UNAVAILABLE_UNITS, Per.ONCE)
    if session.exclusion is not None and session.exclusion.first == session.id:
        (other,) = (one for one in others.earlier if one.id == session.exclusion.session)
        yield told(runs, operator(other), Information.UNAVAILABLE_UNITS, Per.ONCE)


def _waiting(session: Session, later: Sequence[Session]) -> Iterator[Session]:
    """Later sessions that must know which units this one holds: those for the same resources, except one that gets
    what was left of them, and one that keeps what both select."""
    for one in later:
        a, b = session.sellers, one.sellers
        alike = session.trades.is_capacity == one.trades.is_capacity and (
            (session.trades is Trades.REACTIVE_ENERGY) == (one.trades is Trades.REACTIVE_ENERGY)
        )
        forward = session.forward
        fed = forward is not None and forward.to == one.id and forward.offers is not Offered.NONE
        keeps = one.exclusion is not None and one.exclusion.session == session.id and one.exclusion.first == one.id
        if alike and not fed and not keeps and set(a.levels) & set(b.levels) and _same_sellers(session, one):
            yield one


def _by_providers(session: Session) -> bool:
    """Whether providers sell here, by free offers or under contract."""
    return set(session.sellers.resources) != {Resource.VOLTAGE_REDUCTION}


def _same_sellers(one: Session, other: Session) -> bool:
    """Whether one seller may sell in both: a provider, or a DSO."""
    common = set(one.sellers.resources) & set(other.sellers.resources)
    return Resource.VOLTAGE_REDUCTION in common or (_by_providers(one) and _by_providers(other))


def _forwarded(session: Session, others: _Others) -> Iterator[Exchange]:
    """Offers that go on, and what tells how far they are safe: the DSO's lights, or its cut of each offer."""
    forward = session.forward
    if forward is None:
        return
    (target,) = (one for one in others.later if one.id == forward.to)

    def told(sender: Actor, information: Information, per: Per) -> Exchange:
        return Exchange(session.id, Phase.SELECTION, sender, operator(target), information, per)

    if forward.offers is Offered.UNUSED:
        yield told(operator(session), Information.UNUSED_OFFERS, Per.OFFER)
    elif forward.offers is Offered.AGGREGATED:
        yield told(operator(session), Information.AGGREGATED_OFFERS, Per.GRID)
    if forward.carry is Carry.TRAFFIC_LIGHT:
        yield told(Actor.DSO, Information.TRAFFIC_LIGHT, Per.GRID)
    elif forward.carry is Carry.FILTER:
        yield told(Actor.DSO, Information.OFFER_FILTER, Per.OFFER)


def _answered(design: Design, session: Session) -> Iterator[Exchange]:
    """In an iteration, each session's dispatch goes to the one that answers it."""
    if design.iterate is None or session.id not in design.iterate.sessions:
        return
    names = design.iterate.sessions
    after = names[(names.index(session.id) + 1) % len(names)]
    (target,) = (one for one in design.sessions if one.id == after)
    yield Exchange(session.id, Phase.SELECTION, operator(session), operator(target), Information.DISPATCH, Per.ONCE)


def _delivered(session: Session) -> Iterator[Exchange]:
    """Orders and their receipt. What is held as capacity is called by the sessions of energy that admit it."""
    if session.trades.is_capacity:
        return
    runs = operator(session)
    for sender, per in _sellers(session):
        yield Exchange(session.id, Phase.DELIVERY, runs, sender, Information.ACTIVATION, per)
        yield Exchange(session.id, Phase.DELIVERY, sender, runs, Information.ACKNOWLEDGEMENT, per)


def _settled(session: Session) -> Iterator[Exchange]:
    """Baselines with what was measured, and who owes what."""
    runs = operator(session)
    # A lease is paid as agreed, whatever its lessee does with it.
    for sender, per in () if session.trades is Trades.STORAGE_CAPACITY else _sellers(session):
        yield Exchange(session.id, Phase.SETTLEMENT, sender, runs, Information.BASELINE, per)
    for sender, per in _sellers(session):
        paid = Per.PROVIDER if sender is Actor.SERVICE_PROVIDER else per
        yield Exchange(session.id, Phase.SETTLEMENT, runs, sender, Information.SETTLEMENT, paid)
    for buyer in session.buyers:
        actor = Actor(buyer.value)
        yield Exchange(session.id, Phase.SETTLEMENT, runs, actor, Information.SETTLEMENT, _among(actor))


def _sellers(session: Session) -> Iterator[tuple[Actor, Per]]:
    """Who sells: providers for each of their units, DSOs for their grid."""
    if _by_providers(session):
        yield Actor.SERVICE_PROVIDER, Per.SELLER
    if Resource.VOLTAGE_REDUCTION in session.sellers.resources:
        yield Actor.DSO, Per.GRID

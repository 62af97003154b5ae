"""How a caller stands to a record: by its roles, by what the record names it as, and through what the record hangs on.

A unit names its provider; its connection point names the operators; so a unit's operators are known through its point.
Each kind says both, and how the records that a party is only led to are found without a look at all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, TypeVar, cast
from zoneinfo import ZoneInfo

from coflex.domain.party import Role
from coflex.domain.time import delivery_day
from coflex.register import access, market
from coflex.register.activations import ActivationOrder, Backup, Regulation, SetPointEntry
from coflex.register.consents import Availability, Consent
from coflex.register.devices import DataGrant, DataScope, Device
from coflex.register.fields import Relation, readable
from coflex.register.outcomes import SessionOutcome
from coflex.register.parties import PartyEntry
from coflex.register.prequalification import (
    Agreement,
    AnswerRecording,
    GridPrequalification,
    ProductProcedure,
    ProductQualification,
    ProductTest,
    SchedulingMember,
    SchedulingUnit,
)
from coflex.register.products import ProductEntry
from coflex.register.records import Record
from coflex.register.resources import GroupEntry, Perimeter, PointEntry, UnitEntry
from coflex.register.settlement import (
    BaselineDay,
    BillingDetails,
    DisputeEntry,
    InvoiceEntry,
    MeteredDay,
    OwnerContract,
    ReadyDay,
    SharedPurchase,
    StatementEntry,
)
from coflex.service.index import index
from coflex.service.machine import PLATFORM
from coflex.service.rules import units_at
from coflex.service.state import State

R = TypeVar("R", bound=Record)
Pairs = Iterable[tuple[str, Relation]]

EVERYBODY = "*"
_OF_ROLE = {Role.MARKET_OPERATOR: Relation.MARKET_OPERATOR, Role.REGISTER_OPERATOR: Relation.REGISTER_OPERATOR}
_GRID = (Relation.CONNECTING, Relation.IMPACTED)


class Asker(Protocol):
    """Who reads: a `Who`, or the context of a command."""

    @property
    def party(self) -> str: ...
    @property
    def actor(self) -> str: ...
    @property
    def roles(self) -> frozenset[Role]: ...


def standing(who: Asker) -> frozenset[Relation]:
    """Relations that do not depend on a record."""
    found = {Relation.ANYONE} | {_OF_ROLE[role] for role in who.roles if role in _OF_ROLE}
    if who.roles:
        found.add(Relation.MEMBER)
    if who.actor in PLATFORM:
        found |= {Relation.PLATFORM, Relation.MEMBER, Relation.MARKET_OPERATOR, Relation.REGISTER_OPERATOR}
    return frozenset(found)


def relations(state: State, who: Asker, record: Record) -> frozenset[Relation]:
    """Every relation in which the caller stands to a record."""
    me = {who.party, EVERYBODY} if who.roles else {who.party}
    named = (relation for party, relation in kin_of(type(record)).of(state, record) if party in me)
    return standing(who).union(named)


def concerned(state: State, record: Record) -> tuple[str, ...]:
    """The parties that a record names and that may know of it, sorted: the audience of news about it."""
    named: dict[str, set[Relation]] = {}
    for party, relation in kin_of(type(record)).of(state, record):
        named.setdefault(party, set()).add(relation)
    return tuple(sorted(party for party, them in named.items() if party and readable(type(record), frozenset(them))))


def operators(state: State, role: Role = Role.REGISTER_OPERATOR) -> tuple[str, ...]:
    """Parties that have a role now, by id."""
    return tuple(one.id for one in index(state, PartyEntry, "role", _roles_of).at(role))


def _roles_of(entry: PartyEntry) -> tuple[Role, ...]:
    return entry.roles


def candidates(state: State, kind: type[R], party: str) -> Mapping[str, R]:
    """Records of a kind that may concern a party, by their id: all that do, and perhaps more."""
    kin = kin_of(kind)
    direct = index(state, kind, "party", lambda one: {name for name, _ in kin.names(one)})
    return {cast("Any", one).id: one for one in chain(direct.at(party), cast("Iterable[R]", kin.reached(state, party)))}


# ---------------------------------------------------------------- whom each kind names


def _none(*given: object) -> tuple[()]:
    return ()


@dataclass(frozen=True, slots=True)
class Kin:
    """`names`: the parties that a record itself names, and as what. `through`: those that others name for it.

    `reached`: the records to which a party stands through others alone. `leans_on`: kinds of these others.
    """

    names: Callable[[Any], Pairs] = _none
    through: Callable[[State, Any], Pairs] = _none
    reached: Callable[[State, str], Iterable[Record]] = _none
    leans_on: tuple[type[Record], ...] = ()

    def of(self, state: State, record: Record) -> Pairs:
        return chain(self.names(record), self.through(state, record))


def kin_of(kind: type[Record]) -> Kin:
    return KIN.get(kind, _NOBODY)


def _spoken_for(issuer: access.Issuer) -> Pairs:
    return ((party, Relation.ITSELF) for party in issuer.parties)


def _itself(record: Any) -> Pairs:
    return ((record.party, Relation.ITSELF),)


def _party(entry: PartyEntry) -> Pairs:
    yield entry.id, Relation.ITSELF
    if entry.stands and not entry.personal_commitment:
        yield EVERYBODY, Relation.PEER


def _perimeter(entry: Perimeter) -> Pairs:
    return ((entry.system_operator, Relation.CONNECTING),)


def _operators_at(entry: PointEntry | None) -> Iterator[tuple[str, Relation]]:
    if entry is not None:
        yield entry.point.system_operator, Relation.CONNECTING
        for operator in entry.impacted:
            yield operator, Relation.IMPACTED


# ---- points


def _point(entry: PointEntry) -> Pairs:
    yield from _operators_at(entry)
    yield entry.point.owner, Relation.OWNER


def _by_its_units(state: State, entry: PointEntry) -> Pairs:
    units = units_at(state, entry.id)
    for unit in units:
        yield from _unit(unit)
    if all(unit.unit.provider == entry.registered_by for unit in units):
        yield entry.registered_by, Relation.REGISTRANT


def _points_of_units(state: State, party: str) -> Iterator[Record]:
    direct = index(state, UnitEntry, "party", lambda one: {name for name, _ in _unit(one)})
    for point in sorted({unit.unit.connection_point for unit in direct.at(party)}):
        entry = state.find(PointEntry, point)
        if entry is not None:
            yield entry
    yield from index(state, PointEntry, "registrant", lambda one: (one.registered_by,)).at(party)


# ---- units


def _unit(entry: UnitEntry) -> Pairs:
    unit = entry.unit
    yield unit.provider, Relation.PROVIDER
    yield unit.owner, Relation.OWNER
    yield unit.balance_responsible_party, Relation.BALANCE


def _by_its_point(state: State, entry: UnitEntry) -> Pairs:
    return _operators_at(state.find(PointEntry, entry.unit.connection_point))


def _units_at_points(state: State, party: str) -> Iterator[Record]:
    points = index(state, PointEntry, "operator", lambda one: one.operators).at(party)
    there = index(state, UnitEntry, "any connection point", lambda one: (one.unit.connection_point,))
    for point in points:
        yield from there.at(point.id)


def _unit_named(state: State, name: str) -> Pairs:
    entry = state.find(UnitEntry, name)
    return KIN[UnitEntry].of(state, entry) if entry is not None else ()


# ---- groups


def _group(entry: GroupEntry) -> Pairs:
    yield entry.group.provider, Relation.PROVIDER
    yield entry.group.balance_responsible_party, Relation.BALANCE


def _by_its_units_and_product(state: State, entry: GroupEntry) -> Pairs:
    yield from _procuring(state, entry.group.product)
    for name in entry.group.units:
        for party, relation in _unit_named(state, name):
            if relation is Relation.OWNER or relation in _GRID:
                yield party, relation


def _groups_of_units(state: State, party: str) -> Iterator[Record]:
    members = index(state, GroupEntry, "any unit", lambda one: set(one.group.units))
    for unit in candidates(state, UnitEntry, party):
        yield from members.at(unit)
    by_product = index(state, GroupEntry, "product", lambda one: (one.group.product,))
    for product in candidates(state, ProductEntry, party):
        yield from by_product.at(product)


# ---- products and consents


def _product(entry: ProductEntry) -> Pairs:
    return [(party, Relation.PROCURING) for party in entry.procured_by]


def _procuring(state: State, product: str) -> Pairs:
    entry = state.find(ProductEntry, product)
    return _product(entry) if entry is not None else ()


def _consent(entry: Consent) -> Pairs:
    return ((entry.owner, Relation.OWNER), (entry.provider, Relation.PROVIDER))


def _availability(entry: Availability) -> Pairs:
    return ((entry.owner, Relation.OWNER),)


def _by_its_unit(state: State, entry: Availability) -> Pairs:
    return [pair for pair in _unit_named(state, entry.id) if pair[1] is Relation.PROVIDER]


def _availabilities_of_units(state: State, party: str) -> Iterator[Record]:
    for unit in candidates(state, UnitEntry, party):
        entry = state.find(Availability, unit)
        if entry is not None:
            yield entry


# ---- qualification


def _grid_prequalification(entry: GridPrequalification) -> Pairs:
    return ((entry.operator, Relation.TESTER), (entry.provider, Relation.PROVIDER))


def _by_the_unit(state: State, entry: GridPrequalification) -> Pairs:
    return _unit_named(state, entry.unit)


def _prequalifications_of_units(state: State, party: str) -> Iterator[Record]:
    of_unit = index(state, GridPrequalification, "unit", lambda one: (one.unit,))
    for unit in candidates(state, UnitEntry, party):
        yield from of_unit.at(unit)


def _product_qualification(entry: ProductQualification) -> Pairs:
    yield entry.provider, Relation.PROVIDER
    for tester in entry.testers:
        yield tester, Relation.TESTER


def _by_its_group(state: State, entry: ProductQualification) -> Pairs:
    yield from _procuring(state, entry.product)
    group = state.find(GroupEntry, entry.group)
    for party, relation in KIN[GroupEntry].of(state, group) if group is not None else ():
        if relation in _GRID:
            yield party, relation


def _qualifications_of_groups(state: State, party: str) -> Iterator[Record]:
    by_group = index(state, ProductQualification, "group", lambda one: (one.group,))
    for group in candidates(state, GroupEntry, party):
        yield from by_group.at(group)
    by_product = index(state, ProductQualification, "product", lambda one: (one.product,))
    for product in candidates(state, ProductEntry, party):
        yield from by_product.at(product)


def _test(entry: ProductTest | AnswerRecording) -> Pairs:
    yield entry.provider, Relation.PROVIDER
    yield entry.tester, Relation.TESTER
    for party in entry.present:
        yield party, Relation.PRESENT


def _by_its_product(state: State, entry: ProductProcedure) -> Pairs:
    return _procuring(state, entry.id)


def _scheduling_unit(entry: SchedulingUnit) -> Pairs:
    yield entry.bsp, Relation.BSP
    yield entry.tso, Relation.TSO
    for provider in entry.providers:
        yield provider, Relation.PROVIDER
    for operator in entry.operators:
        yield operator, Relation.CONNECTING


def _scheduling_member(entry: SchedulingMember) -> Pairs:
    return ((entry.bsp, Relation.BSP), (entry.provider, Relation.PROVIDER))


def _agreement(entry: Agreement) -> Pairs:
    return ((entry.bsp, Relation.BSP), (entry.tso, Relation.TSO))


def _buyer(entry: Any) -> Pairs:
    return ((entry.buyer, Relation.BUYER),)


# ---- activation and the field


def _ordered(entry: ActivationOrder | SetPointEntry | Regulation) -> Pairs:
    yield entry.buyer, Relation.BUYER
    yield entry.provider, Relation.PROVIDER
    for operator in entry.operators:
        yield operator, Relation.CONNECTING


def _set_point(entry: SetPointEntry) -> Pairs:
    yield entry.owner, Relation.OWNER
    yield from _ordered(entry)


def _of_both_sides(entry: Backup | OwnerContract) -> Pairs:
    return ((entry.owner, Relation.OWNER), (entry.provider, Relation.PROVIDER))


def _device(entry: Device) -> Pairs:
    return ((entry.owner, Relation.OWNER),)


def _by_its_own_unit(state: State, entry: Device) -> Pairs:
    return _unit_named(state, entry.unit)


def _devices_of_units(state: State, party: str) -> Iterator[Record]:
    of_unit = index(state, Device, "unit", lambda one: (one.unit,))
    for unit in candidates(state, UnitEntry, party):
        yield from of_unit.at(unit)


def _data_grant(entry: DataGrant) -> Pairs:
    return ((entry.owner, Relation.OWNER), (entry.party, Relation.GRANTED))


# ---- settlement


def _metered(entry: MeteredDay | BaselineDay) -> Pairs:
    for owner in entry.owners:
        yield owner, Relation.OWNER
    for provider in entry.providers:
        yield provider, Relation.PROVIDER


def _by_grants(state: State, entry: MeteredDay | BaselineDay) -> Pairs:
    """Whom the owner lets see certified data of the whole of the day."""
    market_of = state.find(market.Market, "market")
    grants = index(state, DataGrant, "unit", lambda one: (one.unit,)).at(entry.unit)
    if market_of is None or not grants:
        return
    axis = delivery_day(entry.day, ZoneInfo(market_of.zone))
    for one in grants:
        covers = one.starts <= axis.start and axis.end <= one.ends and DataScope.CERTIFIED in one.scope
        if covers and one.withdrawn is None and one.owner in entry.owners:
            yield one.party, Relation.GRANTED


def _granted_days(kind: type[Record]) -> Callable[[State, str], Iterable[Record]]:
    def reached(state: State, party: str) -> Iterator[Record]:
        of_unit = index(state, cast("Any", kind), "unit", lambda one: (one.unit,))
        for unit in sorted({one.unit for one in candidates(state, DataGrant, party).values()}):
            yield from of_unit.at(unit)

    return reached


def _owing(entry: InvoiceEntry | DisputeEntry) -> Pairs:
    return ((entry.seller, Relation.SELLER), (entry.customer, Relation.CUSTOMER))


def _sharing(entry: SharedPurchase) -> Pairs:
    yield entry.buyer, Relation.BUYER
    for one in entry.sharers:
        yield one.party, Relation.CUSTOMER


_NOBODY = Kin()
_UNITS = (UnitEntry, PointEntry)
_GROUPS = (GroupEntry, UnitEntry, PointEntry, ProductEntry)
KIN: dict[type[Record], Kin] = {
    PartyEntry: Kin(_party),
    Perimeter: Kin(_perimeter),
    PointEntry: Kin(_point, _by_its_units, _points_of_units, (UnitEntry,)),
    UnitEntry: Kin(_unit, _by_its_point, _units_at_points, (PointEntry,)),
    GroupEntry: Kin(_group, _by_its_units_and_product, _groups_of_units, _GROUPS),
    ProductEntry: Kin(_product),
    Consent: Kin(_consent),
    Availability: Kin(_availability, _by_its_unit, _availabilities_of_units, _UNITS),
    GridPrequalification: Kin(_grid_prequalification, _by_the_unit, _prequalifications_of_units, _UNITS),
    ProductQualification: Kin(_product_qualification, _by_its_group, _qualifications_of_groups, _GROUPS),
    ProductProcedure: Kin(through=_by_its_product, leans_on=(ProductEntry,)),
    ProductTest: Kin(_test),
    AnswerRecording: Kin(_test),
    SchedulingUnit: Kin(_scheduling_unit),
    SchedulingMember: Kin(_scheduling_member),
    Agreement: Kin(_agreement),
    ActivationOrder: Kin(_ordered),
    SetPointEntry: Kin(_set_point),
    Backup: Kin(_of_both_sides),
    Regulation: Kin(_ordered),
    Device: Kin(_device, _by_its_own_unit, _devices_of_units, _UNITS),
    DataGrant: Kin(_data_grant),
    MeteredDay: Kin(_metered, _by_grants, _granted_days(MeteredDay), (DataGrant, market.Market)),
    BaselineDay: Kin(_metered, _by_grants, _granted_days(BaselineDay), (DataGrant, market.Market)),
    OwnerContract: Kin(_of_both_sides),
    SharedPurchase: Kin(_sharing),
    ReadyDay: Kin(lambda entry: ((entry.provider, Relation.PROVIDER),)),
    StatementEntry: Kin(_itself),
    BillingDetails: Kin(lambda entry: ((entry.id, Relation.ITSELF),)),
    InvoiceEntry: Kin(_owing),
    DisputeEntry: Kin(_owing),
    access.Issuer: Kin(_spoken_for),
    **dict.fromkeys(
        (access.Client, access.User, access.Grants, access.RevokedToken, access.Webhook, access.WebhookProgress,
         market.Proposal),
        Kin(_itself),
    ),
    **dict.fromkeys((market.SessionRequests, SessionOutcome), Kin(_buyer)),
}  # fmt: skip

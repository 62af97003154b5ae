"""Who may read and who may write each field of each kind of record: the one table (REG-11; document B, 7.2).

A caller stands to a record in some relations: some come from its roles, some from the record, which names it as owner,
provider, operator. A field is read or written by whoever stands in one of the relations of its row. A field without a
row is read and written by nobody, and a record whose `id` a caller may not read is not there for it.

`PLATFORM` writes alone: gates and computed results, so nobody updates a market outcome. `CONSEQUENCE`: the field
follows from a write of another one (since when a status holds), whoever made that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, get_type_hints

from coflex.register.records import KIND_OF, KINDS, Record


class Relation(StrEnum):
    """How a caller stands to a record."""

    # of the caller alone
    ANYONE = "anyone"
    MEMBER = "a party with a role"
    MARKET_OPERATOR = "the market operator"
    REGISTER_OPERATOR = "the register operator"
    PLATFORM = "the platform itself"
    PEER = "a party with a role, of a company that stands in the register"
    # as the record names it
    ITSELF = "the party itself"
    OWNER = "the owner"
    PROVIDER = "the provider"
    REGISTRANT = "who registered a connection point, until others have units there"
    BALANCE = "the balance responsible party"
    CONNECTING = "the connecting system operator"
    IMPACTED = "an impacted system operator"
    PROCURING = "a procuring system operator"
    TESTER = "who tests"
    PRESENT = "who takes part in a test"
    BUYER = "the buyer of a session"
    BSP = "the balancing service provider"
    TSO = "the transmission system operator concerned"
    GRANTED = "whom the owner lets see data"
    SELLER = "the seller of what is billed"
    CUSTOMER = "who is billed"
    # of a write
    CONSEQUENCE = "follows from another field"


@dataclass(frozen=True, slots=True)
class Rights:
    """Relations of which a caller needs one."""

    read: frozenset[Relation]
    write: frozenset[Relation]


R = Relation
NOBODY: frozenset[Relation] = frozenset()
OPERATORS = frozenset({R.MARKET_OPERATOR, R.REGISTER_OPERATOR})
KEEPER = frozenset({R.REGISTER_OPERATOR})
MARKET = frozenset({R.MARKET_OPERATOR})
PUBLIC = frozenset({R.ANYONE})
MEMBERS = frozenset({R.MEMBER}) | OPERATORS
PEERS = frozenset({R.PEER}) | OPERATORS
FOLLOWS = frozenset({R.CONSEQUENCE})
PLATFORM = frozenset({R.PLATFORM})
GRID = frozenset({R.CONNECTING, R.IMPACTED})
ITSELF = frozenset({R.ITSELF})
SIDES = frozenset({R.OWNER, R.PROVIDER})
# Everybody whom a unit or a group concerns.
CONCERNED = SIDES | GRID | OPERATORS | {R.BALANCE}
JUDGED = CONCERNED | {R.TESTER}
# Whom a qualification and a test of it concern.
QUALIFYING = frozenset({R.PROVIDER, R.TESTER, R.PROCURING, R.CONNECTING, R.IMPACTED}) | OPERATORS
TESTING = frozenset({R.PROVIDER, R.TESTER, R.PRESENT}) | OPERATORS
SCHEDULING = frozenset({R.BSP, R.TSO, R.PROVIDER, R.CONNECTING}) | OPERATORS
# Whom an order and a regulation concern, and whom a unit's share of one.
ORDERING = MARKET | GRID | {R.BUYER, R.PROVIDER}
TOLD = ORDERING | {R.OWNER}
# Who sees what was metered of a unit, and who what one party owes another.
METERED = SIDES | MARKET | {R.GRANTED}
OWING = MARKET | {R.SELLER, R.CUSTOMER}
SHARING = frozenset({R.BUYER, R.CUSTOMER})


def _rows(names: str, read: Iterable[Relation], write: Iterable[Relation]) -> dict[str, Rights]:
    return dict.fromkeys(names.split(), Rights(frozenset(read), frozenset(write)))


_TECHNICAL = (
    "unit.category unit.technology unit.connection_point unit.element unit.up_kw unit.down_kw unit.tan_phi "
    "unit.preparation_period_s unit.ramping_period_s unit.full_activation_time_s unit.deactivation_period_s "
    "unit.min_quantity_kw unit.max_quantity_kw unit.min_duration_s unit.max_duration_s unit.recovery_time_s "
    "unit.energy_up_kwh unit.energy_down_kwh"
)
_PRODUCT = (
    "product.id product.scope product.kind product.directions product.resolution_s product.tick_kw "
    "product.min_quantity_kw product.full_activation_time_s product.price_cap_eur_mwh product.divisible "
    "product.symmetric product.tolerance product.penalty_share product.perimeters product.months product.weekdays "
    "product.hours product.max_up_kw product.max_down_kw product.min_duration_s product.max_duration_s "
    "product.recovery_time_s product.deactivation_time_s product.measurement_interval_s product.accuracy_percent "
    "product.pricing product.test_share product.test_within_s product.test_interval_s product.test_accuracy_percent"
)

FIELDS: Mapping[str, Mapping[str, Rights]] = {
    "party": {
        **_rows("id party.id", PEERS | ITSELF, ITSELF),
        **_rows("party.name code", PEERS | ITSELF, ITSELF | OPERATORS),
        **_rows("party.roles", PEERS | ITSELF, OPERATORS | {R.CONSEQUENCE}),
        **_rows("status", PEERS | ITSELF, OPERATORS | ITSELF),
        **_rows("status_since", PEERS | ITSELF, FOLLOWS),
        **_rows("reason", OPERATORS | ITSELF, OPERATORS | ITSELF),
        **_rows("tso_contract duties personal_commitment", OPERATORS | ITSELF, ITSELF | OPERATORS),
        **_rows("personal_erased", OPERATORS | ITSELF, ITSELF | KEEPER | FOLLOWS),
    },
    "perimeter": _rows("id system_operator name buses", MEMBERS, KEEPER | {R.CONNECTING}),
    "connection_point": {
        **_rows("id point.id point.bus point.level point.voltage_kv point.system_operator impacted",
                CONCERNED | {R.REGISTRANT}, KEEPER | {R.CONNECTING, R.REGISTRANT}),
        **_rows("point.owner point.latitude point.longitude", SIDES | GRID | KEEPER | {R.REGISTRANT},
                KEEPER | {R.CONNECTING, R.REGISTRANT}),
        **_rows("registered_by", KEEPER | {R.CONNECTING, R.REGISTRANT}, FOLLOWS),
        **_rows("ended", CONCERNED, KEEPER | {R.CONNECTING}),
    },
    "unit": {
        **_rows("id unit.id", CONCERNED, KEEPER | {R.PROVIDER}),
        **_rows(_TECHNICAL, CONCERNED, KEEPER | {R.PROVIDER}),
        **_rows("unit.provider", CONCERNED, KEEPER | {R.PROVIDER}),
        # a provider names the owner when it registers a unit; if it could name another one later, consent meant nothing
        **_rows("unit.owner", SIDES | GRID | KEEPER, KEEPER | FOLLOWS),
        **_rows("unit.balance_responsible_party", CONCERNED, KEEPER | {R.PROVIDER}),
        **_rows("status", CONCERNED, OPERATORS | SIDES | {R.CONNECTING}),
        **_rows("status_since changed_materially", CONCERNED, FOLLOWS),
    },
    "group": {
        **_rows("id group.id group.provider", CONCERNED | {R.PROCURING}, KEEPER | {R.PROVIDER}),
        **_rows("group.scope group.product group.perimeter", CONCERNED | {R.PROCURING}, KEEPER | {R.PROVIDER}),
        **_rows("group.balance_responsible_party", CONCERNED | {R.PROCURING}, KEEPER | {R.PROVIDER}),
        **_rows(
            "group.units", GRID | OPERATORS | {R.PROVIDER, R.BALANCE, R.PROCURING}, KEEPER | SIDES | {R.CONSEQUENCE}
        ),
        **_rows("status", CONCERNED | {R.PROCURING}, OPERATORS | {R.PROVIDER, R.CONSEQUENCE}),
        **_rows("status_since changed_materially", CONCERNED | {R.PROCURING}, FOLLOWS),
    },
    "product": {
        **_rows("id procured_by withdrawn", PUBLIC, MARKET | {R.PROCURING}),
        **_rows(_PRODUCT, PUBLIC, MARKET | {R.PROCURING}),
    },
    "consent": _rows(
        "id owner unit provider scope starts ends withdrawn", SIDES | KEEPER, {R.OWNER}
    ),
    "availability": _rows("id owner windows", SIDES | KEEPER, {R.OWNER, R.CONSEQUENCE}),
    # qualification
    "grid_prequalification": {
        **_rows("id unit operator provider connecting", JUDGED, {R.PROVIDER, R.CONSEQUENCE}),
        **_rows("status reason", JUDGED, OPERATORS | {R.PROVIDER, R.TESTER, R.PLATFORM, R.CONSEQUENCE}),
        **_rows("mode renew_until answer", JUDGED, {R.TESTER, R.PLATFORM, R.CONSEQUENCE}),
        **_rows("status_since", JUDGED, FOLLOWS),
    },
    "product_qualification": {
        **_rows("id group product provider up_kw down_kw", QUALIFYING, {R.PROVIDER}),
        **_rows("correction", QUALIFYING, {R.PROVIDER}),
        **_rows("testers tester_reason attempt tests status_since", QUALIFYING, FOLLOWS),
        **_rows("status reason grant", QUALIFYING, {R.PROVIDER, R.TESTER, R.PROCURING, R.CONSEQUENCE}),
    },
    "product_procedure": _rows("id procedure set_by", MEMBERS, MARKET | {R.PROCURING}),
    "product_test": {
        **_rows("id subject subject_id product provider tester present attempt", TESTING, {R.TESTER, R.CONSEQUENCE}),
        **_rows("starts ends signal asked baseline as_of", TESTING, {R.TESTER, R.PROVIDER, R.CONSEQUENCE}),
        **_rows("judgement judged_at", TESTING, FOLLOWS),
    },
    "answer_recording": {
        **_rows("id recording", TESTING, {R.PROVIDER, R.TESTER}),
        **_rows("provider tester present sent_by sent_at", TESTING, FOLLOWS),
    },
    "scheduling_unit": {
        **_rows("id bsp tso type products status note", PUBLIC, {R.BSP, R.TSO, R.CONSEQUENCE}),
        **_rows("status_since steps", SCHEDULING, FOLLOWS),
        **_rows("providers confirmed_by points operators ready up_kw down_kw attempt tests", SCHEDULING,
                {R.BSP, R.PROVIDER, R.CONNECTING, R.CONSEQUENCE}),
        **_rows("conditions", SCHEDULING, {R.BSP}),
        **_rows("reason agreement", SCHEDULING, {R.BSP, R.TSO, R.CONSEQUENCE}),
    },
    "scheduling_member": _rows(
        "id scheduling_unit bsp unit provider status status_since reason", OPERATORS | {R.BSP, R.PROVIDER},
        {R.BSP, R.PROVIDER, R.CONSEQUENCE},
    ),
    "agreement": _rows(
        "id tso bsp reference version since scheduling_units pending pending_reference proposed_by",
        OPERATORS | {R.BSP, R.TSO}, {R.BSP, R.TSO, R.CONSEQUENCE},
    ),
    # activation: what is ordered, what each unit is told, what stands by
    "activation": {
        **_rows("id kind state buyer provider product session offer direction unit group profile", ORDERING,
                {R.BUYER, R.PLATFORM, R.CONSEQUENCE}),
        **_rows("awarded lost missing operators ordered_at split_by due version own_split replaces reason", ORDERING,
                PLATFORM | FOLLOWS),
        **_rows("price_eur_mwh", MARKET | {R.BUYER, R.PROVIDER}, FOLLOWS),
        **_rows("notices", ORDERING, GRID),
        **_rows("failures", ORDERING, {R.PROVIDER}),
        **_rows("acknowledgements", ORDERING, GRID | PLATFORM | {R.CONSEQUENCE}),
    },
    "set_point": {
        **_rows("id order session unit owner provider buyer operators direction version since", TOLD, FOLLOWS),
        **_rows("profile", TOLD, {R.PROVIDER, R.CONSEQUENCE}),
        **_rows("state sequences sent_at acknowledgements alarm alarm_since told_until", TOLD, PLATFORM | FOLLOWS),
        **_rows("deviation_kw", SIDES | MARKET, PLATFORM | FOLLOWS),
    },
    "backup": {
        **_rows("id provider owner unit starts ends", SIDES | MARKET, {R.PROVIDER}),
        **_rows("released", SIDES | MARKET, {R.PROVIDER} | FOLLOWS),
        **_rows("reserved_at", SIDES | MARKET, FOLLOWS),
    },
    "session_orders": _rows("id offers done at", MARKET, PLATFORM | FOLLOWS),
    "regulation": {
        **_rows("id buyer provider product session offers band starts ends up_kw down_kw state", ORDERING, {R.BUYER}),
        **_rows("full_activation_s operators stopped_at", ORDERING, FOLLOWS),
        **_rows("shares", ORDERING, {R.PROVIDER, R.CONSEQUENCE}),
    },
    # the field: devices, and who sees what they measure
    "device": {
        **_rows("id unit owner", SIDES | GRID | KEEPER, SIDES),
        **_rows("keys", SIDES | GRID | KEEPER, SIDES | FOLLOWS),
        **_rows("revoked reason", SIDES | GRID | KEEPER, SIDES | KEEPER | FOLLOWS),
        **_rows("point enrolled enrolled_by", SIDES | GRID | KEEPER, FOLLOWS),
    },
    "data_grant": _rows(
        "id owner unit party scope starts ends withdrawn", {R.OWNER, R.GRANTED} | KEEPER, {R.OWNER}
    ),
    # settlement: what was metered comes from the field, what follows from it is nobody's to write
    "metered_day": _rows("id unit day owners providers log quantities", METERED, PLATFORM | FOLLOWS),
    "baseline_day": _rows(
        "id unit day owners providers method method_version fingerprint record start kwh log_size note version",
        METERED, PLATFORM | FOLLOWS,
    ),
    "ready_day": _rows("id band day provider log shares", MARKET | {R.PROVIDER}, PLATFORM | FOLLOWS),
    "settlement_terms": _rows("id terms", MEMBERS, MARKET | {R.CONSEQUENCE}),
    "billing_details": _rows("id details", ITSELF | MARKET, ITSELF | MARKET),
    "owner_contract": {
        **_rows("id unit provider share eur_mwh penalty_share from_day", SIDES | MARKET, {R.PROVIDER}),
        **_rows("owner", SIDES | MARKET, FOLLOWS),
        **_rows("until_day", SIDES | MARKET, SIDES),
        **_rows("agreed", SIDES | MARKET, {R.OWNER}),
    },
    "shared_purchase": {
        **_rows("id session buyer costs", SHARING | MARKET, {R.BUYER}),
        **_rows("day", SHARING | MARKET, FOLLOWS),
        **_rows("sharers ended", SHARING | MARKET, SHARING),
    },
    "settlement_run": {
        **_rows("id period number first_day last_day", MARKET, MARKET | FOLLOWS),
        **_rows("at by inputs deliveries unmetered lines corrected paid_cents received_cents fee_cents rounding_cents "
                "left_out dispute", MARKET, FOLLOWS),
        **_rows("reason billed", MARKET, MARKET),
    },
    "settlement_kept": _rows("id inputs rules lines invoice", MARKET, FOLLOWS),
    "statement": _rows("id run period party at totals balance_cents lines", ITSELF | MARKET, FOLLOWS),
    "invoice": {
        **_rows("id run period seller customer issued due", OWING, MARKET | FOLLOWS),
        **_rows("kind positions net_cents tax tax_cents gross_cents corrects", OWING, FOLLOWS),
    },
    "dispute": {
        **_rows("id period line party seller customer", OWING, {R.SELLER, R.CUSTOMER}),
        **_rows("state steps", OWING, OWING),
        **_rows("changes", OWING, MARKET),
        **_rows("old new posted", OWING, FOLLOWS),
    },
    # access: proofs of identity are read by nobody
    "client": {
        **_rows("id party name scopes created expires redirects behind", ITSELF, ITSELF | PLATFORM),
        **_rows("revoked previous_until tokens", ITSELF, ITSELF | PLATFORM),
        **_rows("rates", ITSELF | MARKET, MARKET),
        **_rows("secret_hash previous_hash", NOBODY, ITSELF | PLATFORM),
    },
    "user": {
        **_rows("id party scopes created created_by behind password_since locked tokens", ITSELF, ITSELF),
        **_rows("login password", NOBODY, ITSELF),
    },
    "grants": _rows("id party", ITSELF, ITSELF) | _rows("grants", NOBODY, ITSELF),
    "revoked_token": _rows("id party expires", NOBODY, ITSELF),
    "issuer": {
        **_rows("id url audience claim names parties scopes", OPERATORS | ITSELF, OPERATORS),
        **_rows("accepted", OPERATORS | ITSELF, ITSELF | FOLLOWS),
    },
    "webhook": {
        **_rows("id party url kinds created generation rotated", ITSELF, ITSELF),
        **_rows("enabled reason", ITSELF, ITSELF | PLATFORM),
    },
    "webhook_progress": _rows("id party number position failing_since", ITSELF, PLATFORM | FOLLOWS),
    # the market: what gates and computing bring about, nobody updates; a rerun takes it back and computes it anew
    "market": {
        **_rows("id title zone first_day last_day since starts speed sandbox", PUBLIC, MARKET | PLATFORM),
        **_rows("design case price_limit_eur_mwh", MEMBERS, MARKET | PLATFORM),
    },
    "design": _rows("id text", MEMBERS, MARKET | PLATFORM),
    "session": {
        **_rows("id day session state opens closes reached offers outcome plan design", MEMBERS, PLATFORM | FOLLOWS),
        **_rows("alarm", OPERATORS, PLATFORM | FOLLOWS),
        **_rows("without reason", MARKET, MARKET),
        **_rows("withdrawn", MARKET, FOLLOWS),
    },
    "session_requests": _rows("id session buyer asked", MARKET | {R.BUYER}, {R.BUYER}),
    "session_outcome": {
        **_rows("id day session step at buyer", MEMBERS, PLATFORM | FOLLOWS),
        **_rows("added removed documents series", MARKET | {R.BUYER}, PLATFORM | FOLLOWS),
        **_rows("given left_out", MARKET, PLATFORM | FOLLOWS),
    },
    "proposal": _rows(
        "id verb subject party body proposed_by proposed_at status decided_by decided_at version", ITSELF, ITSELF
    ),
    # beside the records
    "personal": _rows("data", ITSELF | KEEPER, ITSELF | KEEPER),
}  # fmt: skip


def rights(kind: str, path: str) -> Rights:
    """The row of a field; nobody reads or writes one without a row."""
    return FIELDS.get(kind, {}).get(path, Rights(NOBODY, NOBODY))


def paths(record: type[Record]) -> tuple[str, ...]:
    """Fields of a kind of record, those of a domain value in it by their path: "status", "unit.up_kw"."""
    return _paths(KIND_OF[record])


def readable(record: type[Record], relations: frozenset[Relation]) -> frozenset[str]:
    """Fields that somebody in these relations may read; none where the record is not to be known."""
    return _readable(KIND_OF[record], relations)


def writable(record: type[Record], relations: frozenset[Relation]) -> frozenset[str]:
    """Fields that somebody in these relations may write."""
    return _writable(KIND_OF[record], relations)


@cache
def _paths(kind: str) -> tuple[str, ...]:
    record: Any = KINDS[kind]
    found: list[str] = []
    hints = get_type_hints(record)
    for one in fields(record):
        inner = hints[one.name]
        if is_dataclass(inner) and inner.__module__.startswith("coflex.domain."):
            found += [f"{one.name}.{name.name}" for name in fields(inner)]
        else:
            found.append(one.name)
    return tuple(found)


@cache
def _readable(kind: str, relations: frozenset[Relation]) -> frozenset[str]:
    if not rights(kind, "id").read & relations:
        return frozenset()
    return frozenset(path for path in _paths(kind) if rights(kind, path).read & relations)


@cache
def _writable(kind: str, relations: frozenset[Relation]) -> frozenset[str]:
    return frozenset(path for path in _paths(kind) if rights(kind, path).write & relations)


def value(record: Any, path: str) -> Any:
    """What a record holds at a path."""
    for name in path.split("."):
        record = getattr(record, name)
    return record


def differences(before: Record | None, after: Record | None) -> frozenset[str]:
    """Fields in which two versions of a record differ; all of them where it begins or ends."""
    known = before if before is not None else after
    if known is None:
        return frozenset()
    if before is None or after is None:
        return frozenset(paths(type(known)))
    return frozenset(path for path in paths(type(known)) if value(before, path) != value(after, path))

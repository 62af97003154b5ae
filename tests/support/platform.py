"""A tenant that is ready to trade, in a few commands: its records are put in as they are, without their processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec

from coflex.domain.party import Party, Role
from coflex.domain.product import Product, QuantityKind
from coflex.domain.quantity import Direction
from coflex.domain.unit import ConnectionPoint, Group, Level, Scope, Technology, Unit
from coflex.register.access import Client, ClientScope, Rates
from coflex.register.consents import Consent, ConsentScope
from coflex.register.parties import PartyEntry, PartyStatus
from coflex.register.prequalification import (
    Basis,
    Grant,
    GridAnswer,
    GridPrequalification,
    GridStatus,
    ProductQualification,
    ProductStatus,
    grid_id,
    qualification_id,
)
from coflex.register.products import ProductEntry
from coflex.register.records import KIND_OF, KINDS
from coflex.register.resources import GroupEntry, PointEntry, UnitEntry, UnitStatus
from coflex.service.machine import CREATED, Context, Machine, Outcome, Verb, decode, encode
from coflex.service.ports import Command, Journal
from coflex.service.sequencer import Sequencer
from coflex.service.state import State
from coflex.service.verbs import VERBS

TENANT = "demo"
DAY = date(2016, 7, 5)
LONG_AGO = datetime(2016, 1, 1, tzinfo=UTC)
LONG_AHEAD = datetime(2030, 1, 1, tzinfo=UTC)
# Half an hour into the first session of the day: its gate is open from 8 to 10 o'clock in Rome, the day before.
OPEN = datetime(2016, 7, 4, 6, 30, tzinfo=UTC)
FIRST = "2016-07-05.local-1"
FIRST_START = datetime(2016, 7, 4, 22, tzinfo=UTC)
SECRET = "s" * 43


class Put(msgspec.Struct, frozen=True):
    """A record as it is to be."""

    kind: str
    id: str
    body: msgspec.Raw


def _put(state: State, context: Context, form: list[Put]) -> Outcome:
    records = tuple((KINDS[one.kind], one.id, decode(bytes(one.body), KINDS[one.kind])) for one in form)
    return Outcome(len(records), records, status=CREATED)


TEST_VERBS = {**VERBS, "test.put": Verb("test.put", list[Put], _put)}


def put(records: Iterable[Any]) -> Command:
    """The command that writes records."""
    body = encode([Put(KIND_OF[type(one)], one.id, msgspec.Raw(encode(one))) for one in records])
    return Command(TENANT, "test.put", "", "", "", "operator", body)


def open_tenant(case: str = "demo") -> Command:
    """A sandbox tenant whose clock stands a day before its first session opens."""
    body = {
        "title": "Test",
        "zone": "Europe/Rome",
        "design": "beflexible_six",
        "case": case,
        "first_day": DAY.isoformat(),
        "last_day": DAY.isoformat(),
        "starts": (OPEN - timedelta(days=1)).isoformat(),
        "speed": 0,
        "sandbox": True,
    }
    return Command(TENANT, "tenant.open", "", "", "", "operator", encode(body))


def set_clock(to: datetime = OPEN, speed: int = 0) -> Command:
    return Command(
        TENANT, "sandbox.clock", "market", "", "", "operator", encode({"to": to.isoformat(), "speed": speed})
    )


def ready(units: int = 20, providers: int = 4, speed: int = 0) -> list[Command]:
    """The commands after which `sp-1` .. offer the units `cu-0001` .., dealt out in turn, in the session FIRST."""
    return [open_tenant(), put(register(units, providers)), set_clock(OPEN, speed)]


def register(units: int, providers: int) -> list[Any]:
    return [*_parties(providers), *_products(), *_clients(providers), *_units(units, providers)]


def provider_of(unit: int, providers: int) -> str:
    return f"sp-{unit % providers + 1}"


def key_of(party: str) -> str:
    """The API key of a party's client."""
    return f"cf_client-{party}_{SECRET}"


def _parties(providers: int) -> Iterator[PartyEntry]:
    named: list[tuple[str, tuple[Role, ...]]] = [
        ("mo", (Role.MARKET_OPERATOR, Role.REGISTER_OPERATOR)),
        ("dso", (Role.DSO,)),
        ("tso", (Role.TSO,)),
        ("owner", (Role.ASSET_OWNER,)),
        ("brp", (Role.BALANCE_RESPONSIBLE_PARTY,)),
        *((f"sp-{k + 1}", (Role.SERVICE_PROVIDER,)) for k in range(providers)),
    ]
    for name, roles in named:
        yield PartyEntry(name, Party(name, name.upper(), roles), PartyStatus.APPROVED, LONG_AGO)


def _clients(providers: int) -> Iterator[Client]:
    rates = Rates(100_000, 200_000, 10_000_000, 20_000_000)
    scopes = (ClientScope.READ, ClientScope.WRITE, ClientScope.MANAGE)
    for party in ("mo", "dso", "tso", "owner", *(f"sp-{k + 1}" for k in range(providers))):
        hashed = sha256(SECRET.encode()).hexdigest()
        yield Client(f"client-{party}", party, party, scopes, hashed, LONG_AGO, rates=rates)


def _products() -> Iterator[ProductEntry]:
    for scope, operator in ((Scope.LOCAL, "dso"), (Scope.GLOBAL, "tso")):
        product = Product(
            id=f"{scope.value}_energy",
            scope=scope,
            kind=QuantityKind.ACTIVE_ENERGY,
            directions=(Direction.UP, Direction.DOWN),
            resolution_s=900,
            tick_kw=1,
            min_quantity_kw=1,
            full_activation_time_s=900,
            price_cap_eur_mwh=Decimal(1000),
            divisible=True,
            symmetric=False,
            tolerance=Decimal("0.1"),
            penalty_share=Decimal("0.5"),
        )
        yield ProductEntry(product.id, product, (operator,))


def _units(count: int, providers: int) -> Iterator[Any]:
    members: dict[str, list[str]] = {}
    for k in range(count):
        name, provider = f"cu-{k + 1:04d}", provider_of(k, providers)
        point = ConnectionPoint(f"pod-{k + 1:04d}", "", Level.DISTRIBUTION, 20.0, "dso", "owner", 41.9, 12.5)
        yield PointEntry(point.id, point)
        yield UnitEntry(name, _unit(name, point.id, provider), UnitStatus.ACTIVE, LONG_AGO, LONG_AGO)
        yield Consent(f"consent-{name}", "owner", name, provider, tuple(ConsentScope), LONG_AGO, LONG_AHEAD)
        answer = GridAnswer(
            GridStatus.APPROVED, 1000, 1000, "", "by hand", (), "dso", LONG_AGO, LONG_AHEAD, LONG_AGO
        )  # fmt: skip
        yield GridPrequalification(
            grid_id(name, "dso"), name, "dso", provider, True, GridStatus.APPROVED, LONG_AGO, answer=answer
        )
        members.setdefault(provider, []).append(name)
    for provider, mine in sorted(members.items()):
        for scope in Scope:
            yield from _group(provider, scope, tuple(mine))


def _unit(name: str, point: str, provider: str) -> Unit:
    return Unit(
        id=name,
        category="load",
        technology=Technology.INDUSTRIAL_LOAD,
        connection_point=point,
        element="",
        provider=provider,
        owner="owner",
        balance_responsible_party="brp",
        up_kw=1000,
        down_kw=1000,
        tan_phi=0.0,
        preparation_period_s=60,
        ramping_period_s=60,
        full_activation_time_s=300,
        deactivation_period_s=60,
        min_quantity_kw=1,
        max_quantity_kw=1000,
        min_duration_s=900,
        max_duration_s=86_400,
        recovery_time_s=0,
    )


def _group(provider: str, scope: Scope, units: tuple[str, ...]) -> Iterator[Any]:
    product = f"{scope.value}_energy"
    group = Group(f"{provider}-{scope.value}", provider, scope, product, "", units, "brp")
    yield GroupEntry(group.id, group, UnitStatus.ACTIVE, LONG_AGO, LONG_AGO)
    grant = Grant(Basis.TEMPORARY, 10**6, 10**6, LONG_AGO, LONG_AHEAD, LONG_AGO)
    yield ProductQualification(
        qualification_id(group.id, product), group.id, product, provider, ("dso",), "", 10**6, 10**6,
        ProductStatus.PASSED, LONG_AGO, grant=grant,
    )  # fmt: skip


def offer(name: str, unit: int, first: int = 0, kw: Sequence[int] = (100,), price: str = "45", **more: Any) -> Any:
    """An offer's body: of unit cu-<unit>, kW of the quarter-hours from the first one of the session's horizon."""
    start = FIRST_START + first * timedelta(minutes=15)
    step = {"start": start.isoformat(), "price_eur_mwh": price, "quantity_kw": list(kw)}
    return {
        "id": name,
        "product": "local_energy",
        "direction": "up",
        "unit": f"cu-{unit:04d}",
        "steps": [step],
    } | more


def submit(party: str, body: Any, key: str | None = None, session: str = FIRST, verb: str = "offer.submit") -> Command:
    return Command(TENANT, verb, session, party, party, f"client-{party}", encode(body), key)


class Clock:
    """A server's clock that stands until it is moved."""

    def __init__(self, at: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


def desk(journal: Journal, clock: Callable[[], datetime] | None = None, gates: bool = True) -> Sequencer:
    """A sequencer without a writer's thread, on a machine at the journal's head."""
    from coflex.service.gates import TenantGates
    from coflex.service.replay import restore

    machine = Machine(TEST_VERBS)
    restore(machine, journal)
    return Sequencer(machine, journal, clock or Clock(), TenantGates(machine) if gates else None)
